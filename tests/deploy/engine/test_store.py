"""Where engines are, what they are called, and which one a machine gets."""

import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from resdeploy.deploy.bundle.model import Model, open_model
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.engine.sidecar import Machine, Sidecar, write_sidecar
from resdeploy.deploy.engine.store import (
    describe_engine,
    engine_name,
    engines_folder,
    find_engine,
)
from resdeploy.deploy.errors import EngineError
from resdeploy.deploy.specs import BatchRange

_HERE = Machine("tensorrt", "10.3.0", "linux-aarch64", "8.7", "Orin", None, "25W")
_PLAN = b"a plan"
_USUAL = BuildOptions()

Put = Callable[..., Path]


@pytest.fixture
def model(tiny_bundle: Path) -> Model:
    return open_model(tiny_bundle)


@pytest.fixture
def put(model: Model) -> Put:
    """A function that puts an fp32 engine for a machine into the bundle; its path."""

    def write(
        machine: Machine = _HERE,
        *,
        graph: str | None = None,
        options: BuildOptions = _USUAL,
    ) -> Path:
        folder = engines_folder(model)
        folder.mkdir(exist_ok=True)
        capability = str(machine.compute_capability)
        path = folder / engine_name("fp32", machine, (capability,), options)
        path.write_bytes(_PLAN)
        sidecar = Sidecar(
            machine=machine, precision="fp32", variant="fp32", typing="weak",
            compute_capabilities=(capability,), options=options,
            graph_sha256=graph or model.manifest.variants["fp32"].sha256,
            plan_sha256=sha256(_PLAN).hexdigest(), plan_bytes=len(_PLAN), build_seconds=2.0,
            workspace_mib=256, free_memory_mib=999, peak_memory_mib=300, warnings=(),
            layers=None, convolutions=None,
        )  # fmt: skip
        write_sidecar(path, sidecar)
        return path

    return write


def test_engines_lie_in_the_bundle_or_beside_a_lone_graph(model: Model) -> None:
    assert engines_folder(model) == model.path / "engines"
    lone = open_model(model.path / "fp32.onnx")
    assert engines_folder(lone) == model.path / "fp32.engines"


def test_a_name_tells_engines_apart() -> None:
    names = [
        engine_name("fp16", _HERE, targets, options)
        for targets, options in (
            (("8.7",), BuildOptions()),
            (("8.6", "12.0"), BuildOptions()),
            (("8.7",), BuildOptions(hardware_compatible=True, version_compatible=True)),
            (("8.7",), BuildOptions(dla_core=1)),
            (("8.7",), BuildOptions(batch=BatchRange(1, 1, 1))),
        )
    ]
    assert names == [
        "fp16-tensorrt-10.3.0-sm87.engine",
        "fp16-tensorrt-10.3.0-sm86-sm120.engine",
        "fp16-tensorrt-10.3.0-sm87-ampere-plus-any-version.engine",
        "fp16-tensorrt-10.3.0-sm87-dla1.engine",
        "fp16-tensorrt-10.3.0-sm87-batch1-1-1.engine",
    ]


def test_engines_for_other_batch_ranges_stay_and_the_one_built_last_runs(
    model: Model, put: Put
) -> None:
    usual, small = put(), put(options=BuildOptions(batch=BatchRange(1, 1, 4)))
    assert usual.is_file() and small.is_file()
    os.utime(usual, (1, 1))
    assert find_engine(model, "fp32", _HERE).path == small
    os.utime(small, (0, 0))
    assert find_engine(model, "fp32", _HERE).path == usual


def test_the_one_that_fits_is_found_among_others(model: Model, put: Put) -> None:
    put(replace(_HERE, compute_capability="8.6"))
    fitting = put()
    put(replace(_HERE, version="10.7.0"))
    put(replace(_HERE, flavor="tensorrt-rtx"))
    found = find_engine(model, "fp32", _HERE)
    assert found.path == fitting and found.reused
    assert found.sidecar.machine == _HERE


def test_none_that_fits_is_one_line_with_every_reason(model: Model, put: Put) -> None:
    with pytest.raises(EngineError, match="no fp32 engine for tensorrt in it: run resdeploy build"):
        find_engine(model, "fp32", _HERE)
    put(replace(_HERE, compute_capability="8.6"))
    put(graph="1" * 64)
    words = r"sm86\.engine: built for sm_86; here sm_87; .*another fp32 graph .*: run resdeploy"
    with pytest.raises(EngineError, match=words) as caught:
        find_engine(model, "fp32", _HERE)
    assert "--precision fp32 --flavor tensorrt" in str(caught.value)


def test_what_differs_but_may_only_slow_is_logged(
    model: Model, put: Put, caplog: pytest.LogCaptureFixture
) -> None:
    put(replace(_HERE, power_mode="15W"))
    find_engine(model, "fp32", _HERE)
    assert "built on power mode 15W, here 25W" in caplog.text


def test_an_engine_is_described_by_its_sidecar(put: Put) -> None:
    path = put()
    described = describe_engine(path)
    assert (described["kind"], described["state"]) == ("TensorRT engine", "intact")
    assert described["machine"]["compute_capability"] == "8.7"
    path.write_bytes(b"b plan")
    assert describe_engine(path)["state"].startswith("altered since it was built: sha256")


def test_json_has_the_keys_that_build_promises(model: Model, put: Put) -> None:
    put()
    answer = find_engine(model, "fp32", _HERE).to_json()
    assert answer.keys() >= {"engine", "flavor", "precision", "seconds", "bytes", "layers"}
    assert (answer["bytes"], answer["layers"], answer["reused"]) == (len(_PLAN), None, True)
