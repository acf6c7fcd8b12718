"""A bundle or a lone ONNX file opens on the backend asked for, or says why it does not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.errors import BackendError, BundleError, GraphError, InputError
from resdeploy.deploy.manifest import graph_metadata, input_spec
from resdeploy.deploy.session import check_batch, open_model, open_session, sizes_of
from resdeploy.deploy.specs import Variant


def _lone(flower_bundle: Path, folder: Path, variant: Variant) -> Path:
    """The bundle's graph under another name, saying that it is `variant`."""
    manifest = open_model(flower_bundle).manifest
    graph = onnx.load(flower_bundle / "fp32.onnx")
    metadata = graph_metadata(manifest, variant, opset=17, parent_sha256="ab" * 32)
    onnx.helper.set_model_props(graph, metadata)
    path = folder / "somewhere-else.onnx"
    onnx.save(graph, path)
    return path


def test_a_bundle_and_its_lone_graph_are_the_same_model(
    flower_bundle: Path, tmp_path: Path
) -> None:
    lone_file = shutil.copy(flower_bundle / "fp32.onnx", tmp_path / "net.ONNX")
    bundle, lone = open_model(flower_bundle), open_model(lone_file)
    assert lone.bundle is None and lone.graph("fp32") == lone_file
    for field in ("model", "input", "output", "preprocess", "labels"):
        assert getattr(lone.manifest, field) == getattr(bundle.manifest, field)
    (file,) = lone.manifest.variants.values()
    assert (file.opset, file.bytes) == (17, lone_file.stat().st_size)
    batch = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with open_session(bundle) as one, open_session(lone) as other:
        assert one.input == bundle.manifest.input and one.output == bundle.manifest.output
        assert np.array_equal(one.run(batch), other.run(batch))


@pytest.mark.parametrize(
    ("variant", "precision"),
    [("fp16", "fp16"), ("int8", "int8"), ("int8-cpu", "int8"), ("int8-fp16", "int8")],
)
def test_a_lone_graph_needs_no_precision(
    variant: Variant, precision: str, flower_bundle: Path, tmp_path: Path
) -> None:
    model = open_model(_lone(flower_bundle, tmp_path, variant))
    assert model.precision == precision
    with open_session(model, backend="ort-cpu") as session:
        assert getattr(session, "variant") == variant  # noqa: B009
    with pytest.raises(InputError, match=f"holding the {variant} variant, not fp32"):
        open_session(model, precision="fp32", backend="ort-cpu")


def test_what_is_asked_for_wrongly(flower_bundle: Path) -> None:
    model = open_model(flower_bundle)
    with pytest.raises(InputError, match="precision 'fp8' is not one of fp32, fp16, int8"):
        open_session(model, precision="fp8", backend="ort-cpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="backend 'cuda' is not one of auto, ort-cpu"):
        open_session(model, backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads 0 is not at least 1"):
        open_session(model, threads=0)
    with pytest.raises(BundleError, match="no int8 variant"):
        open_session(model, precision="int8", backend="ort-cpu")


@pytest.mark.skipif(cuda_problem() is None, reason="a GPU is here")
def test_gpu_backends_without_a_gpu(flower_bundle: Path) -> None:
    model = open_model(flower_bundle)
    with pytest.raises(
        BackendError, match=r"ort-cuda needs an NVIDIA GPU: .*; use ort-cpu"
    ) as info:
        open_session(model, backend="ort-cuda")
    assert info.value.exit_code == 4
    with open_session(model, backend="auto") as session:
        assert getattr(session, "backend") == "ort-cpu"  # noqa: B009


def test_lone_files_that_are_not_ours(tmp_path: Path, flower_bundle: Path) -> None:
    graph = onnx.load(flower_bundle / "fp32.onnx")
    graph.ClearField("metadata_props")
    foreign = tmp_path / "foreign.onnx"
    onnx.save(graph, foreign)
    with pytest.raises(BundleError, match=r"foreign\.onnx: an ONNX file without resdeploy's"):
        open_model(foreign)
    whole = (flower_bundle / "fp32.onnx").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        foreign.write_bytes(content)
        with pytest.raises((GraphError, BundleError), match=r"foreign\.onnx: ") as info:
            open_model(foreign)
        assert "\n" not in str(info.value)
    with pytest.raises(BundleError, match="no such bundle"):
        open_model(tmp_path / "absent.onnx")


def test_check_batch_names_what_it_got() -> None:
    spec = input_spec(32, 48)
    assert sizes_of(spec) == (3, 32, 48)
    check_batch(np.zeros((1, 3, 32, 48), np.float32), spec)
    wrong: list[Callable[[], np.ndarray]] = [
        lambda: np.zeros((0, 3, 32, 48), np.float32),
        lambda: np.zeros((3, 32, 48), np.float32),
        lambda: np.zeros((1, 3, 48, 32), np.float32),
        lambda: np.zeros((1, 3, 32, 48), np.float64),
        lambda: np.zeros((1, 3, 32, 48), ">f4"),
        lambda: np.zeros((), np.float32),
    ]
    for batch in wrong:
        with pytest.raises(InputError, match=r"input: got .* expected float32 of shape \(N, 3, 32"):
            check_batch(batch(), spec)
