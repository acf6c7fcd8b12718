"""Folders change places in one step, and what killed processes left is mended and removed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resdeploy.deploy.bundle import exchange as module
from resdeploy.deploy.bundle.exchange import exchange, put_in_place, restore, sibling
from resdeploy.deploy.temporaries import sweep

Content = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def dead_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_two_folders_swap_their_names(tmp_path: Path) -> None:
    one, other = _folder(tmp_path / "one", "1"), _folder(tmp_path / "other", "2")
    if not exchange(one, other):
        pytest.skip("this filesystem cannot exchange names")
    assert ((one / "file").read_text(), (other / "file").read_text()) == ("2", "1")
    with pytest.raises(FileNotFoundError):
        exchange(one, tmp_path / "gone")


@pytest.mark.parametrize("one_step", [True, False])
def test_the_new_state_takes_the_place(
    one_step: bool, tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not one_step:
        monkeypatch.setattr(module, "exchange", lambda *_: False)
    place = tmp_path / "net.bundle"
    for text in ("first", "second"):
        with sibling(place) as folder:
            (folder / "file").write_text(text)
            former = put_in_place(folder, place)
            assert (former is None) == (text == "first")
            if former is not None:
                assert (former / "file").read_text() == "first"
    assert content(tmp_path) == {"net.bundle/file": b"second"}


def test_a_sibling_is_empty_and_gone_afterwards(tmp_path: Path) -> None:
    place = _folder(tmp_path / "net.bundle", "old")
    with pytest.raises(ValueError), sibling(place) as folder:
        assert folder.parent == tmp_path and not list(folder.iterdir())
        (folder / "file").write_text("half")
        raise ValueError
    assert [path.name for path in tmp_path.iterdir()] == ["net.bundle"]


def test_what_the_dead_left_is_swept_and_what_the_living_hold_is_kept(
    tmp_path: Path, dead_process: int
) -> None:
    place = _folder(tmp_path / "net.bundle", "whole")
    left = _folder(tmp_path / f".net.bundle.new.{dead_process}.00ff", "half")
    _folder(tmp_path / f".net.bundle.old.{dead_process}.00fe", "former")
    other = _folder(tmp_path / f".other.bundle.new.{dead_process}.00ff", "not ours to sweep")
    with sibling(place) as mine:
        assert not left.exists()
        sweep(tmp_path, place.name)
        assert mine.exists()
    assert sorted(tmp_path.iterdir()) == sorted((place, other))


def test_a_replacement_killed_half_way_is_brought_back(tmp_path: Path, dead_process: int) -> None:
    place = tmp_path / "net.bundle"
    aside = _folder(tmp_path / f".net.bundle.old.{dead_process}.00ff", "former")
    restore(place)
    assert (place / "file").read_text() == "former" and not aside.exists()
    restore(tmp_path / "never-was")
    assert not (tmp_path / "never-was").exists()


def test_a_failed_second_rename_brings_the_old_state_back(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _folder(tmp_path / "net.bundle", "old")
    rename = os.rename

    def fail_for_the_new(source: Path, target: Path) -> None:
        if ".new." in Path(source).name:
            raise OSError(5, "Input/output error", str(source))
        rename(source, target)

    monkeypatch.setattr(module, "exchange", lambda *_: False)
    monkeypatch.setattr(os, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="Input/output"), sibling(place) as folder:
        put_in_place(folder, place)
    assert content(tmp_path) == {"net.bundle/file": b"old"}
