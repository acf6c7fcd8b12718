"""Damage in a zip checkpoint is found, and a small one never grows large."""

import copy
import pickle
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.checkpoint.formats.archive import open_archive
from resdeploy.export.checkpoint.formats.contents import open_contents
from resdeploy.export.checkpoint.read import read_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net.pth"
    torch.manual_seed(0)
    torch.save({"a.weight": torch.randn(8, 3, 3, 3), "a.bias": torch.randn(8)}, path)
    return path


def _zip(path: Path, records: dict[str, bytes], method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in records.items():
            archive.writestr(f"net/{name}", data)
    return path


def test_a_flipped_bit_of_a_weight_is_found(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    archive = open_archive(checkpoint)
    info = archive.records["data/0"]
    start = whole.index(archive.read("data/0").tobytes())
    random_ = random.Random(0)
    for _ in range(40):
        content = bytearray(whole)
        content[start + random_.randrange(info.file_size)] ^= 1 << random_.randrange(8)
        checkpoint.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"a\.weight cannot be read .*checksum"):
            read_checkpoint(checkpoint)


@pytest.mark.parametrize(("rows", "noticed"), [(8, True), (800, False)], ids=["small", "large"])
def test_for_names_and_shapes_large_values_stay_unread(
    rows: int, noticed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a.weight": torch.randn(rows, 8, 3, 3)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(open_archive(path).read("data/0")[:64].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        read_checkpoint(path)
    if noticed:
        with pytest.raises(CheckpointError, match="checksum"):
            read_checkpoint(path, checked=False)
    else:
        assert read_checkpoint(path, checked=False).tensors["a.weight"].shape == (rows, 8, 3, 3)


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_one_line_or_harmless(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    before = read_checkpoint(checkpoint).tensors
    random_ = random.Random(1)
    for _ in range(300):
        content = bytearray(whole)
        content[random_.randrange(len(whole))] ^= 1 << random_.randrange(8)
        checkpoint.write_bytes(content)
        try:
            found = read_checkpoint(checkpoint).tensors
        except CheckpointError as error:
            assert "\n" not in str(error)
        else:
            assert all((found[name] == values).all() for name, values in before.items())


@pytest.fixture
def without_checksums() -> Iterator[None]:
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


def test_without_checksums_it_is_read_and_said(without_checksums: None, checkpoint: Path) -> None:
    found = read_checkpoint(checkpoint)
    assert found.tensors["a.weight"].shape == (8, 3, 3, 3)
    assert any(note.startswith("saved without checksums") for note in found.notes)


def test_a_compressed_archive_is_read(checkpoint: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(checkpoint) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    packed = _zip(tmp_path / "packed.pth", records, zipfile.ZIP_DEFLATED)
    weights = [read_checkpoint(path).tensors["a.weight"] for path in (packed, checkpoint)]
    assert (weights[0] == weights[1]).all()
    other = _zip(tmp_path / "other.pth", records, zipfile.ZIP_LZMA)
    with pytest.raises(CheckpointError, match="compression method 14"):
        read_checkpoint(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "records",
    [
        {"data.pkl": b"\x80\x02" + b"N0" * 5_000_000 + b"}."},  # ten million opcodes in 10 kB
        {"data.pkl": pickle.dumps({}), "data/0": bytes(300_000_000)},
    ],
)
def test_what_grows_hugely_is_refused_before_it_does(
    records: dict[str, bytes], tmp_path: Path
) -> None:
    path = _zip(tmp_path / "bomb.pth", records, zipfile.ZIP_DEFLATED)
    with pytest.raises((CheckpointError, ValueError), match=r"grows from \d+ to \d+ bytes"):
        open_contents(path).storages("0")


@pytest.mark.parametrize(("offset", "value"), [(6, 9), (8, 99), (10, 99), (28, 250), (46, 0xFF)])
def test_odd_fields_of_the_directory_are_one_line(
    checkpoint: Path, offset: int, value: int
) -> None:
    content = bytearray(checkpoint.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + offset] = value
    content[entry + 9] |= 8  # names in UTF-8, which 0xFF is not
    checkpoint.write_bytes(content)
    try:
        read_checkpoint(checkpoint)
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_records_that_share_their_bytes_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    """A megabyte with ten thousand names for the same record would be read ten thousand times."""
    file = tmp_path / "x.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}))
        archive.writestr("x/data/0", bytes(10_000))
        whole = archive.getinfo("x/data/0")
        for number in range(1, 5):
            same = copy.copy(whole)
            same.filename = f"x/data/{number}"
            archive.filelist.append(same)
            archive.NameToInfo[same.filename] = same
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="its records overlap: 500"):
        read_checkpoint(file)
