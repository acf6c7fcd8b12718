"""What a path given as BUNDLE stands for, and which of its files a precision means."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.deploy.bundle.bundle import REFERENCE, read_bundle, write_manifest
from resdeploy.deploy.bundle.manifest import graph_metadata
from resdeploy.deploy.bundle.model import open_model, precisions_of, recorded_reference
from resdeploy.deploy.bundle.reference import Reference, write_reference
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.specs import Backend, Precision, Variant
from tests.builders import add_variant


def _lone(bundle: Path, variant: Variant) -> Path:
    """The bundle's graph under another name, saying that it is `variant`."""
    graph = onnx.load(bundle / "fp32.onnx")
    manifest = read_bundle(bundle).manifest
    metadata = graph_metadata(manifest, variant, opset=17, parent_sha256="ab" * 32)
    onnx.helper.set_model_props(graph, metadata)
    path = bundle.with_name("somewhere-else.ONNX")
    onnx.save(graph, path)
    return path


def test_a_bundle_is_fp32_unless_said_otherwise(bundle: Path) -> None:
    model = open_model(bundle)
    assert model.bundle is not None and model.precision == "fp32"
    assert model.graph("fp32") == bundle / "fp32.onnx"
    with pytest.raises(BundleError, match="no fp16 variant"):
        model.graph("fp16")
    for missing in (bundle.parent / "absent", bundle.parent / "absent.onnx"):
        with pytest.raises(BundleError, match="no such bundle"):
            open_model(missing)


@pytest.mark.parametrize(
    ("variant", "precision"),
    [("fp16", "fp16"), ("int8", "int8"), ("int8-cpu", "int8"), ("int8-fp16", "int8")],
)
def test_a_lone_graph_is_the_precision_that_it_holds(
    variant: Variant, precision: Precision, bundle: Path
) -> None:
    model = open_model(_lone(bundle, variant))
    assert model.bundle is None and model.precision == precision
    assert model.graph(variant) == model.path
    # whatever the backend runs best, there is only this one
    assert model.variant_for(precision, "ort-cpu") == variant
    assert model.variant_for(precision, "tensorrt") == variant
    with pytest.raises(InputError, match=f"holding the {variant} variant, not fp32"):
        model.graph("fp32")


@pytest.mark.parametrize(
    ("held", "backend", "expected"),
    [
        (("int8", "int8-cpu"), "ort-cpu", "int8-cpu"),
        (("int8", "int8-cpu"), "ort-cuda", "int8"),
        (("int8",), "ort-cpu", "int8"),
        ((), "ort-cpu", "int8"),  # not there: the error names this one
    ],
)
def test_int8_is_the_file_that_the_backend_runs_best(
    held: tuple[Variant, ...], backend: Backend, expected: Variant, bundle: Path
) -> None:
    for variant in held:
        add_variant(bundle, variant, onnx.load(bundle / "fp32.onnx"))
    assert open_model(bundle).variant_for("int8", backend) == expected


def test_precisions_are_those_asked_for_or_all_there_are(bundle: Path) -> None:
    add_variant(bundle, "int8-cpu", onnx.load(bundle / "fp32.onnx"))
    model = open_model(bundle)
    assert precisions_of(model, ()) == ("fp32", "int8")
    assert precisions_of(model, ("int8", "fp32")) == ("fp32", "int8")
    with pytest.raises(InputError, match="precision 'fp8' is not one of fp32, fp16, int8"):
        precisions_of(model, ("fp8",))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="precision 'fp8' is not one of fp32, fp16, int8"):
        model.variant_for("fp8", "ort-cpu")  # type: ignore[arg-type]


def test_a_reference_is_of_this_network_or_refused(bundle: Path, tmp_path: Path) -> None:
    assert recorded_reference(open_model(bundle)) is None
    file = bundle / REFERENCE
    write_reference(file, Reference(np.zeros((2, 3, 32, 32), np.float32), np.eye(2, 5, dtype="f4")))
    write_manifest(bundle, read_bundle(bundle).manifest)
    found = recorded_reference(open_model(bundle))
    assert found is not None and found.logits.shape == (2, 5)
    lone = shutil.copy(bundle / "fp32.onnx", tmp_path / "net.onnx")
    assert recorded_reference(open_model(lone)) is None
    for inputs, logits in (
        ((2, 3, 8, 8), (2, 5)),
        ((2, 3, 32, 32), (2, 4)),
        ((0, 3, 32, 32), (0, 5)),
    ):
        write_reference(file, Reference(np.zeros(inputs, np.float32), np.zeros(logits, np.float32)))
        write_manifest(bundle, read_bundle(bundle).manifest)
        with pytest.raises(BundleError, match=r"reference\.npz: of another bundle: .*export again"):
            recorded_reference(open_model(bundle))
