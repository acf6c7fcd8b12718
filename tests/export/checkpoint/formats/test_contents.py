"""Kinds of file by their first bytes; what is no checkpoint says what it is."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.checkpoint.formats.contents import open_contents
from resdeploy.export.checkpoint.formats.stored import read_float32
from resdeploy.export.checkpoint.formats.unpickle import TENSORS_LIMIT

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_those_torch_reads(zipped: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    base = torch.randn(40).to(dtype)
    tensors = {
        "whole": base.reshape(5, 8),
        "view": base[3:23].reshape(4, 5),
        "turned": base[:12].reshape(3, 4).T,
        "one": base[0],
        "none": base[:0],
    }
    torch.save(tensors, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    contents = open_contents(tmp_path / "x.pth")
    assert contents.format == ("zip" if zipped else "legacy")
    for name, tensor in tensors.items():
        read = read_float32(contents.root[name], contents.storages)
        np.testing.assert_array_equal(read, tensor.float().numpy())


@pytest.mark.parametrize("saved", ["zip", "legacy", "safetensors"])
def test_a_file_that_is_cut_short_while_it_is_read_is_told(saved: str, tmp_path: Path) -> None:
    """A training run saves again: a map of the file would end Python by SIGBUS."""
    file = tmp_path / "x.pth"
    if saved == "safetensors":
        save_file({"w": torch.arange(20_000.0)}, file)
    else:
        zipped = saved == "zip"
        torch.save({"w": torch.arange(20_000.0)}, file, _use_new_zipfile_serialization=zipped)
    contents = open_contents(file)
    assert contents.format == saved
    os.truncate(file, 10_000)
    with pytest.raises(ValueError, match="the file was cut short at 10000 of "):
        read_float32(contents.root["w"], contents.storages)


def test_compressed_records(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(6.0)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    contents = open_contents(tmp_path / "y.pth")
    np.testing.assert_array_equal(
        read_float32(contents.root["w"], contents.storages), np.arange(6, dtype=np.float32)
    )


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_contents(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_keras_files(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    assert "a Keras file" in refusal(tmp_path / "model.h5")
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"")
    assert "tf2onnx" in refusal(tmp_path / "model.keras")


def header(entries: object, values: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + values


_TWO: dict[str, Any] = {"dtype": "F32", "shape": [2]}


@pytest.mark.parametrize(
    "content",
    [
        header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),  # values missing
        header({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        header({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}, bytes(8)),
        header({"w": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        header({"w": _TWO | {"data_offsets": [-8, 0]}}, bytes(0)),  # in the header
        header({"w": _TWO | {"data_offsets": [4, 12]}}, bytes(12)),  # after a gap
        header({"w": _TWO | {"data_offsets": [0, 8]}}, bytes(12)),  # before a rest
        header(
            {"v": _TWO | {"data_offsets": [0, 8]}, "w": _TWO | {"data_offsets": [4, 12]}}, bytes(12)
        ),
        header({"w": 3}),
        header([1]),
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 4) + b"{{{{",
        b"",
    ],
)
def test_damaged_safetensors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert "copy or download it again" in refusal(path)


@pytest.mark.slow
def test_too_many_tensors_are_refused_at_once(tmp_path: Path) -> None:
    count = TENSORS_LIMIT + 1
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    (tmp_path / "model.safetensors").write_bytes(header({f"t{i}": entry for i in range(count)}))
    assert f"holds {count} tensors" in refusal(tmp_path / "model.safetensors")
    # an archive says in its last record how many it has; nothing else is looked at
    end = b"PK\x05\x06" + bytes(4) + struct.pack("<HHIIH", 0xFFFF, 0xFFFF, 0, 0, 0)
    zip64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 10**6, 10**6, 0, 0)
    locator = b"PK\x06\x07" + bytes(16)
    (tmp_path / "model.pth").write_bytes(b"PK\x03\x04" + bytes(60) + zip64 + locator + end)
    assert "holds 1000000 tensors" in refusal(tmp_path / "model.pth")


@pytest.mark.slow
def test_tensors_without_end_that_share_their_values(tmp_path: Path) -> None:
    shared = torch.zeros(1)
    torch.save({str(name): shared.view(1) for name in range(12_000)}, tmp_path / "model.pth")
    told = refusal(tmp_path / "model.pth")
    assert "tensors or more, sharing their values: it is no checkpoint" in told


def test_storages_that_do_not_hold_their_tensors(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(6.0)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "y.pth", "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content[:8] if name.endswith("data/0") else content)
    contents = open_contents(tmp_path / "y.pth")
    with pytest.raises(ValueError, match="24 bytes wanted, 8 there"):
        read_float32(contents.root["w"], contents.storages)


def test_detectron2s_pickle_of_arrays(tmp_path: Path) -> None:
    values = {"model": {"stem.conv1.weight": np.ones((2, 3, 7, 7), np.float32)}, "__author__": "x"}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(values, 2))
    assert open_contents(tmp_path / "R-50.pkl").format == "pickle"
