"""A lone ONNX file of ours tells all that a bundle's manifest tells of it."""

from pathlib import Path

import onnx
import pytest

from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.onnx_file import read_graph_manifest
from resdeploy.deploy.errors import BundleError, GraphError


def test_a_graph_carries_its_manifest(bundle: Path) -> None:
    found, whole = read_graph_manifest(bundle / "fp32.onnx"), read_bundle(bundle).manifest
    for field in ("model", "input", "output", "preprocess", "labels"):
        assert getattr(found, field) == getattr(whole, field)
    ((variant, file),) = found.variants.items()
    assert (variant, file.opset) == ("fp32", 17)
    assert file.bytes == (bundle / "fp32.onnx").stat().st_size


def test_files_that_are_not_ours(bundle: Path) -> None:
    file = bundle / "fp32.onnx"
    whole = file.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises((GraphError, BundleError), match=r"fp32\.onnx: ") as info:
            read_graph_manifest(file)
        assert "\n" not in str(info.value)
    graph = onnx.load_from_string(whole)
    graph.ClearField("metadata_props")
    onnx.save(graph, file)
    with pytest.raises(
        BundleError, match=r"fp32\.onnx: another tool's ONNX file, .* resdeploy adopt"
    ):
        read_graph_manifest(file)
