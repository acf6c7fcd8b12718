"""What was checked is what a library opens, whoever exchanges files meanwhile."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from resdeploy.deploy.bundle.held import HeldFile
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.errors import BundleError, GraphError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.inference.classifier import load
from resdeploy.deploy.ort import open_graph

_ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="paths of open files: Linux")


@pytest.fixture
def bundle(flower_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(flower_bundle, tmp_path / "net.bundle"))


@_ON_LINUX
def test_a_file_that_was_exchanged_is_not_opened(bundle: Path, tmp_path: Path) -> None:
    graph = bundle / "fp32.onnx"
    content = graph.read_bytes()
    (tmp_path / "other").write_bytes(b"another graph")
    with open_model(bundle).held_graph("fp32") as path:
        os.replace(tmp_path / "other", graph)
        assert path.read_bytes() == content and graph.read_bytes() == b"another graph"


def test_content_that_changes_meanwhile_is_found_at_the_end(bundle: Path) -> None:
    graph = bundle / "fp32.onnx"
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    with (
        pytest.raises(BundleError, match=r"fp32\.onnx: altered since it was written: sha256"),
        open_model(bundle).held_graph("fp32"),
    ):
        graph.write_bytes(content)


def test_a_new_name_for_the_same_file_is_no_change(bundle: Path, tmp_path: Path) -> None:
    """`quantize` makes hard links to what it leaves as it is."""
    with open_model(bundle).held_graph("fp32"):
        os.link(bundle / "fp32.onnx", tmp_path / "link.onnx")


@_ON_LINUX
def test_an_error_of_the_library_has_the_files_own_name(bundle: Path) -> None:
    with pytest.raises(GraphError) as info, open_model(bundle).held_graph("fp32") as path:
        raise GraphError(f"{path}: ONNX Runtime cannot load it")
    assert str(info.value) == f"{bundle / 'fp32.onnx'}: ONNX Runtime cannot load it"


def test_what_is_no_file_is_one_line_and_nothing_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with pytest.raises(BundleError, match="missing, though the manifest lists it"):
        HeldFile(tmp_path / "absent", "0")
    with pytest.raises(BundleError, match="cannot be read"):
        HeldFile(tmp_path, "0")
    (tmp_path / "x").write_text("x")
    with pytest.raises(BundleError, match="1 bytes, expected 2"):
        HeldFile(tmp_path / "x", sha256_file(tmp_path / "x"), 2)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


@_ON_LINUX
def test_a_session_is_opened_from_what_was_checked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []

    def seen(graph: Path, *others: Any) -> Any:
        opened.append(graph)
        return open_graph(graph, *others)

    monkeypatch.setattr("resdeploy.deploy.inference.ort_session.open_graph", seen)
    with load(bundle, backend="ort-cpu"):
        assert str(opened[0]).startswith("/proc/self/fd/")
