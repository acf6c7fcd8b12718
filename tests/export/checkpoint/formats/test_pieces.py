"""Pieces of a file are read once, and one that is gone is told, where a map would end Python."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from resdeploy.export.checkpoint.formats.pieces import Pieces


def _pieces(folder: Path, size: int = 100_000) -> tuple[Pieces, Path]:
    file = folder / "x"
    file.write_bytes(bytes(range(256)) * (size // 256 + 1))
    return Pieces(file), file


def test_a_piece_is_what_the_file_holds_and_writable(tmp_path: Path) -> None:
    pieces, file = _pieces(tmp_path)
    piece = pieces.read(300, 5000)
    assert piece.tobytes() == file.read_bytes()[300:5000]
    piece[:] = 0
    assert file.read_bytes()[300] == 300 % 256


def test_torch_can_share_every_piece(tmp_path: Path) -> None:
    pieces, _ = _pieces(tmp_path)
    held = [pieces.read(start, start + 100) for start in range(0, 5000, 100)]
    assert {piece.ctypes.data % 64 for piece in held} == {0}


def test_what_is_in_use_and_the_last_piece_are_not_read_again(tmp_path: Path) -> None:
    pieces, _ = _pieces(tmp_path)
    first = pieces.read(0, 10)[2:]
    pieces.read(10, 20)
    gc.collect()
    assert pieces.read(0, 10).ctypes.data == first.ctypes.data - 2
    last = pieces.read(20, 30)
    place = last.ctypes.data
    del last
    gc.collect()
    assert pieces.read(20, 30).ctypes.data == place


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (99_999, 200_000)])
def test_what_is_not_in_the_file_is_refused(start: int, stop: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bytes "):
        _pieces(tmp_path)[0].read(start, stop)


def test_a_file_that_is_cut_short_meanwhile_is_told(tmp_path: Path) -> None:
    pieces, file = _pieces(tmp_path)
    os.truncate(file, 50_000)
    with pytest.raises(ValueError, match="cut short at 50000 of 100096 bytes"):
        pieces.read(0, 100_000)
    assert np.array_equal(pieces.read(0, 3), [0, 1, 2])


def test_the_file_is_closed_with_its_reader(tmp_path: Path) -> None:
    pieces, file = _pieces(tmp_path)
    piece = pieces.read(0, 10)
    del pieces
    gc.collect()
    held = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if n != "0"
            and os.path.exists(f"/proc/self/fd/{n}")]  # fmt: skip
    assert str(file) not in held and piece[1] == 1
