"""An engine away from its bundle predicts by its sidecar, or says in one line what it needs."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.lone_file import manifest_for_engine, sidecar_path
from resdeploy.deploy.cli.inspection.describe import describe
from resdeploy.deploy.cuda import Cuda, cuda_problem
from resdeploy.deploy.engine import session as engine_session
from resdeploy.deploy.engine.flavor import is_installed
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.engine.sidecar import Machine, Sidecar, read_sidecar, write_sidecar
from resdeploy.deploy.errors import BackendError, EngineError, InputError, MissingDependencyError
from resdeploy.deploy.images.preprocess import Preprocess
from resdeploy.deploy.inference.classifier import load
from resdeploy.deploy.scale_out.packed import pack, unpacked
from resdeploy.deploy.serving.served_model import Source
from resdeploy.deploy.serving.triton.repository import TritonOptions, write_repository
from resdeploy.deploy.verification.verify import verify
from tests import builders
from tests.command import run_command

_SUMS = """
<ir_version: 8, opset_import: ["" : 17]>
sums (float[batch, 3, 2, 2] input) => (float[batch, 3] logits)
{
    logits = ReduceSum <keepdims = 0> (input, axes)
}
"""
_PLAN = b"a plan"
_LABELS = ("red", "green", "blue")

either = pytest.mark.parametrize("library", ["10.3.0", "rtx-1.7.1.116"], indirect=True)


@pytest.fixture
def engine(library: Any, tmp_path: Path) -> Path:
    """An fp32 engine of the network that the recorded TensorRT answers with, and no bundle."""
    bundle = builders.write_bundle(
        tmp_path / "net.bundle",
        {"fp32": builders.graph_of(_SUMS, {"axes": np.array([2, 3], np.int64)})},
        Preprocess("tiny", (2, 2), None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        labels=_LABELS,
    )
    manifest = read_bundle(bundle).manifest
    path = tmp_path / "elsewhere" / "net.engine"
    path.parent.mkdir()
    path.write_bytes(_PLAN)
    machine = Machine(library.flavor, library.version, "linux-aarch64", "8.7", "Orin", None, None)
    sidecar = Sidecar(
        machine=machine, precision="fp32", variant="fp32", typing="weak",
        compute_capabilities=("8.7",), options=BuildOptions(),
        graph_sha256=manifest.variants["fp32"].sha256, plan_sha256=sha256(_PLAN).hexdigest(),
        plan_bytes=len(_PLAN), build_seconds=2.0, workspace_mib=256, free_memory_mib=999,
        peak_memory_mib=300, warnings=(), layers=None, convolutions=None,
        manifest=manifest_for_engine(manifest, "fp32"),
    )  # fmt: skip
    write_sidecar(path, sidecar)
    assert read_sidecar(path) == sidecar
    return path


@pytest.fixture
def on_its_gpu(library: Any, engine: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """This machine passes for the one that the engine was built on."""
    here = read_sidecar(engine).machine
    monkeypatch.setattr(engine_session, "cuda_problem", lambda: None)
    monkeypatch.setattr(engine_session, "is_installed", lambda flavor: True)
    monkeypatch.setattr(engine_session, "import_tensorrt", lambda flavor: library.module)
    monkeypatch.setattr(engine_session, "load_cuda", lambda: Cuda(library.cuda))
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls, flavor, version: here))
    return here


@pytest.fixture
def green(tmp_path: Path) -> Path:
    path = tmp_path / "green.png"
    Image.new("RGB", (2, 2), (0, 255, 0)).save(path)
    return path


@either
@pytest.mark.usefixtures("on_its_gpu")
def test_it_predicts_by_its_sidecar(library: Any, engine: Path, green: Path) -> None:
    with load(engine) as classifier:
        assert classifier.session.backend == library.flavor
        assert (classifier.precision, classifier.manifest.labels) == ("fp32", _LABELS)
        assert classifier.predict(green)[0].label == "green"
        # 2 x 2 pixels of (0 - 0.5) / 0.5 and (1 - 0.5) / 0.5
        pixels = classifier.manifest.preprocess.apply(Image.open(green))
        np.testing.assert_array_equal(classifier.logits(pixels[None]), [[-4, 4, -4]])
        assert [found[0].label for found in classifier.predict_many([green] * 5)] == ["green"] * 5
    with load(engine, precision="auto", backend=library.flavor) as classifier:
        assert f"{classifier.auto}" == f"fp32 on {library.flavor}, the only choice here"
    assert library.cuda.alive == {}


@either
@pytest.mark.usefixtures("on_its_gpu")
def test_the_command_predicts_with_it(engine: Path, green: Path) -> None:
    done = run_command("predict", engine, green)
    assert done.returncode == 0 and "green" in done.stdout
    assert done.stderr.startswith("classified 1 image in ")


@pytest.mark.parametrize("library", ["10.3.0"], indirect=True)
@pytest.mark.usefixtures("on_its_gpu")
def test_what_it_cannot_do_is_one_line(
    engine: Path, green: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=r"net\.engine: an engine of fp32, not of int8"):
        load(engine, precision="int8")
    with pytest.raises(InputError, match="an engine, which TensorRT alone runs"):
        load(engine, backend="ort-cpu")
    with pytest.raises(BackendError, match="runs with backend tensorrt, not tensorrt-rtx"):
        load(engine, backend="tensorrt-rtx")
    with pytest.raises(InputError, match="no recorded answers to be held to: verify the bundle"):
        verify(engine)
    for words in (("quantize", engine, "--calib", green.parent), ("push", engine, "me/net")):
        done = run_command(*words)
        assert done.returncode == 1 and "an engine, expected a bundle's folder" in done.stderr
    other = replace(read_sidecar(engine).machine, compute_capability="8.6")
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls, flavor, version: other))
    built = r"built for sm_87; here sm_86: build one here from its bundle: resdeploy build BUNDLE"
    with pytest.raises(EngineError, match=built):
        load(engine)


@pytest.mark.skipif(cuda_problem() is None, reason="this machine has a GPU")
@either
def test_without_a_gpu_it_says_what_it_needs(library: Any, engine: Path, green: Path) -> None:
    done = run_command("predict", engine, green)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (4, "")
    name = "TensorRT" if library.flavor == "tensorrt" else "TensorRT-RTX"
    assert (
        f"needs a GPU of sm_87 with {name} {library.version} on linux-aarch64: no NVIDIA driver"
        in line
    )
    assert line.endswith("predicts on the CPU: resdeploy predict BUNDLE IMAGE")


@pytest.mark.skipif(is_installed("tensorrt"), reason="tensorrt is here")
@pytest.mark.parametrize("library", ["10.3.0"], indirect=True)
def test_without_tensorrt_it_says_which_one_and_how(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_session, "cuda_problem", lambda: None)
    words = r"with TensorRT 10\.3\.0 on .*: tensorrt is not installed: pip install [^,]*$"
    with pytest.raises(MissingDependencyError, match=words):
        load(engine)


@pytest.mark.parametrize("library", ["10.3.0"], indirect=True)
def test_it_is_described_served_by_triton_and_sent_to_workers(engine: Path, tmp_path: Path) -> None:
    found = describe(engine)
    assert (found["kind"], found["state"]) == ("TensorRT engine", "intact")
    assert found["labels"] == list(_LABELS) and found["preprocess"]["name"] == "tiny"
    assert "manifest" not in found
    with unpacked(pack(engine)) as arrived:
        assert arrived.read_bytes() == _PLAN
        assert sidecar_path(arrived).read_bytes() == sidecar_path(engine).read_bytes()
    options = TritonOptions(backend="tensorrt", instances=1, max_batch=8, max_wait_ms=1.0)
    write_repository([Source("net", engine, None, "tensorrt")], tmp_path / "models", options)
    assert (tmp_path / "models" / "net" / "1" / "model.plan").read_bytes() == _PLAN
