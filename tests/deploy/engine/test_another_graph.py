"""A real engine of another graph: found before it runs, wherever it lies, its cause named."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.deploy.bundle.bundle import describe_file, read_bundle, write_manifest
from resdeploy.deploy.bundle.lone_file import sidecar_path
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.engine import session as engine_session
from resdeploy.deploy.engine.build import build_engine
from resdeploy.deploy.engine.flavor import is_installed
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.engine.sidecar import Machine, read_sidecar
from resdeploy.deploy.errors import EngineError
from resdeploy.deploy.verification.verify import verify

pytestmark = [
    pytest.mark.skipif(
        not is_installed("tensorrt-rtx"), reason="needs tensorrt-rtx to build engines with"
    ),
    pytest.mark.skipif(cuda_problem() is None, reason="this machine has a GPU"),
]


@pytest.fixture
def other(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The same network trained on: other weights, the same file names."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "other.bundle"))
    graph = onnx.load(bundle / "fp32.onnx")
    for tensor in graph.graph.initializer:
        values = 1.5 * onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(graph, bundle / "fp32.onnx")
    manifest = read_bundle(bundle).manifest
    entry = manifest.variants["fp32"]
    described = describe_file(bundle / "fp32.onnx", opset=entry.opset, made_from=entry.made_from)
    write_manifest(bundle, manifest.with_variant("fp32", described))
    return bundle


@pytest.mark.slow
def test_verify_refuses_it_by_name(
    tiny_bundle: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is made up, so that everything up to loading the plan runs as where there is one."""
    options = BuildOptions(compute_capabilities=("8.6",))
    engine = build_engine(other, precision="fp32", flavor="tensorrt-rtx", options=options)
    folder = tiny_bundle / "engines"
    folder.mkdir()
    for file in (engine.path, sidecar_path(engine.path)):
        shutil.copy(file, folder / file.name)
    here = replace(read_sidecar(engine.path).machine, compute_capability="8.6")
    monkeypatch.setattr(engine_session, "cuda_problem", lambda: None)
    monkeypatch.setattr(engine_session, "load_cuda", lambda: None)
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls, flavor, version: here))
    with pytest.raises(EngineError) as raised:
        verify(tiny_bundle, backends=["tensorrt-rtx"], precisions=["fp32"])
    message = str(raised.value)
    assert "built from another fp32 graph than the bundle has now" in message
    assert message.endswith("--precision fp32 --flavor tensorrt-rtx")
    # the plan alone, under the sidecar of this bundle's own engine
    own = build_engine(tiny_bundle, precision="fp32", flavor="tensorrt-rtx", options=options)
    shutil.copy(engine.path, own.path)
    with pytest.raises(EngineError, match="altered since it was built"):
        verify(tiny_bundle, backends=["tensorrt-rtx"], precisions=["fp32"])
