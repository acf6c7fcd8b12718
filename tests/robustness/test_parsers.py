"""Each reader of files and messages, fed by hypothesis with any bytes and with changed ones.

What it must do is answer, or say in its own error what is wrong. The examples are the same every
time; with ROBUSTNESS_SECONDS they are new and many.
"""

import io
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.reference import read_reference
from resdeploy.deploy.cli.shell.config import read_settings
from resdeploy.deploy.engine.sidecar import read_sidecar
from resdeploy.deploy.errors import ResdeployError
from resdeploy.deploy.files import sealed
from resdeploy.deploy.images.labels import read_labels
from resdeploy.deploy.images.lists import read_image_list
from resdeploy.deploy.images.preprocess import named, read_preprocess
from resdeploy.deploy.serving.protocol.http_body import parse_infer
from resdeploy.export.checkpoint.read import read_checkpoint
from resdeploy.export.checkpoint.sidecars.hub import read_hub

_LONG = "ROBUSTNESS_SECONDS" in os.environ
pytestmark = pytest.mark.slow

# an example may be a megabyte that is refused slowly; nothing here is about time
_settings = settings(
    max_examples=5000 if _LONG else 40,
    derandomize=not _LONG,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


def _npz() -> bytes:
    stream = io.BytesIO()
    arrays = {"inputs": np.zeros((1, 3, 4, 4), np.float32), "logits": np.zeros((1, 2), np.float32)}
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _safetensors(tensors: Mapping[str, Any], values: bytes) -> bytes:
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + values


def _zip() -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save({"conv.weight": torch.zeros(2, 3, 1, 1)}, stream)
    return stream.getvalue()


_TENSORS = {"conv.weight": {"dtype": "F32", "shape": [1, 3, 1, 1], "data_offsets": [0, 12]}}
_REQUEST: dict[str, Any] = {
    "inputs": [
        {
            "name": "input",
            "shape": [1, 3, 2, 2],
            "datatype": "FP32",
            "parameters": {"binary_data_size": 48},
        }
    ],
    "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
}


def _file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def reader(folder: Path, content: bytes) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return reader


def _plain(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _sealed(fields: Any) -> bytes:
    """With a right hash, which only an object can have."""
    return _plain(sealed(fields) if isinstance(fields, dict) else fields)


def _infer(folder: Path, content: bytes) -> object:
    return parse_infer(content, str(len(content) // 2)), parse_infer(content, None)


_read_manifest = _file("manifest.json", lambda file: read_bundle(file.parent))
_read_settings = _file("resdeploy.toml", lambda file: read_settings(file.parent))
_read_sidecar = _file("x.json", lambda file: read_sidecar(file.with_suffix(".engine")))
_read_preprocess = _file("preprocess.json", read_preprocess)
_read_hub = _file("config.json", lambda file: read_hub(file.with_name("model.safetensors")))
_read_safetensors = _file("x.safetensors", read_checkpoint)

# name -> a whole content, and who reads it
_BYTES: dict[str, tuple[bytes, Callable[[Path, bytes], object]]] = {
    "manifest": (b'{"format_version": 1}', _read_manifest),
    "list": (b"path,class\na.jpg,one\n", _file("list.csv", read_image_list)),
    "config": (b"[verify]\nmax-drop = 0.5\n", _read_settings),
    "labels": (b'{"0": "cat", "1": "dog"}', _file("classes.json", read_labels)),
    "engine's sidecar": (b'{"format_version": 1}', _read_sidecar),
    "reference": (_npz(), _file("reference.npz", read_reference)),
    "safetensors": (_safetensors(_TENSORS, bytes(12)), _read_safetensors),
    "zip": (_zip(), _file("x.pth", read_checkpoint)),
    "request": (json.dumps(_REQUEST).encode() + bytes(48), _infer),
}

# name -> a whole object, how it is written, and who reads that
_FIELDS: dict[str, tuple[Any, Callable[[Any], bytes], Callable[[Path, bytes], object]]] = {
    "manifest": (
        {"format_version": 1, "model": {}, "input": {}, "output": {}, "variants": {}},
        _sealed,
        _read_manifest,
    ),
    "engine's sidecar": (
        {"format_version": 1, "machine": {}, "options": {}, "warnings": [], "layers": None},
        _sealed,
        _read_sidecar,
    ),
    "preprocess": (named("imagenet").to_json(), _plain, _read_preprocess),
    "hub": (
        {"architectures": ["ResNet"], "id2label": {"0": "cat"}, "num_labels": 1},
        _plain,
        _read_hub,
    ),
    "safetensors": (
        _TENSORS["conv.weight"],
        lambda fields: _safetensors({"conv.weight": fields}, bytes(12)),
        _read_safetensors,
    ),
    "request": (
        _REQUEST["inputs"][0],
        lambda fields: json.dumps({"inputs": [fields]}).encode() + bytes(48),
        _infer,
    ),
}


@pytest.mark.parametrize("name", _BYTES)
def test_any_bytes_are_read_or_refused(name: str, tmp_path: Path) -> None:
    whole, read = _BYTES[name]
    pieces = st.lists(
        st.tuples(st.integers(0, len(whole)), st.integers(0, 9), st.binary(max_size=9)), max_size=4
    )

    @_settings
    @given(st.binary(max_size=200) | pieces)
    def check(found: bytes | list[tuple[int, int, bytes]]) -> None:
        content = found if isinstance(found, bytes) else whole
        for start, removed, added in () if isinstance(found, bytes) else found:
            content = content[:start] + added + content[start + removed :]
        _answered(lambda: read(tmp_path, content))

    check()


@pytest.mark.parametrize("name", _FIELDS)
def test_any_values_are_read_or_refused(name: str, tmp_path: Path) -> None:
    whole, written, read = _FIELDS[name]
    changes = st.dictionaries(st.sampled_from(sorted(whole)), _JSON, min_size=1, max_size=3)

    @_settings
    @given(changes | _JSON)
    def check(found: Any) -> None:
        content = written({**whole, **found} if isinstance(found, dict) else found)
        _answered(lambda: read(tmp_path, content))

    check()


def _answered(read: Callable[[], object]) -> None:
    try:
        read()
    except ResdeployError as error:
        assert str(error)
