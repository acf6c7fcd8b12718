"""Engines of another GPU, version, platform or precision: what the user reads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from resdeploy.deploy.bundle.lone_file import sidecar_path
from resdeploy.deploy.engine.layer_table import LayerCounts
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.engine.sidecar import (
    Machine,
    Sidecar,
    misfit,
    read_sidecar,
    remarks,
    write_sidecar,
)
from resdeploy.deploy.engine.store import engine_name
from resdeploy.deploy.errors import EngineError
from resdeploy.deploy.files import sealed

ORIN = Machine(
    "tensorrt", "10.3.0", "linux-aarch64", "8.7", "Orin", "Jetson Orin NX, L4T 36.4.3", "25W"
)
BUILT = Sidecar(
    machine=ORIN,
    precision="int8",
    variant="int8",
    typing="weak",
    compute_capabilities=("8.7",),
    options=BuildOptions(),
    graph_sha256="a" * 64,
    plan_sha256="b" * 64,
    plan_bytes=123,
    build_seconds=61.5,
    workspace_mib=1024,
    free_memory_mib=5120,
    peak_memory_mib=1800,
    warnings=("a kernel was skipped",),
    layers=LayerCounts(40, 30, 8, 2),
    convolutions=None,
)


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (ORIN, None),
        (replace(ORIN, compute_capability="8.6"), "built for sm_87; here sm_86"),
        (replace(ORIN, compute_capability=None), "built for sm_87; here no GPU"),
        (
            replace(ORIN, version="10.7.0"),
            "built with TensorRT 10.3.0; here with TensorRT 10.7.0",
        ),
        (
            replace(ORIN, version="10.7.0", compute_capability="8.6", platform="linux-x86_64"),
            "built for sm_87 with TensorRT 10.3.0 on linux-aarch64; "
            "here sm_86 with TensorRT 10.7.0 on linux-x86_64",
        ),
        (
            replace(ORIN, flavor="tensorrt-rtx", version="1.7.1.116"),
            "built with TensorRT 10.3.0; here with TensorRT-RTX 1.7.1.116",
        ),
    ],
)
def test_what_differs_is_said(here: Machine, message: str | None) -> None:
    assert misfit(BUILT, here) == message


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [
        ("8.6.1", "10.3.0", True),
        ("10.3.0", "11.4.0.106", True),
        ("8.6.1", "11.4.0.106", False),
        ("10.7.0", "10.3.0", False),
        ("10.3.0", "10.3.0", True),
    ],
)
def test_version_compatible_engines_run_on_later_versions(
    built: str, here: str, fits: bool
) -> None:
    sidecar = replace(
        BUILT,
        machine=replace(ORIN, version=built),
        options=BuildOptions(version_compatible=True),
    )
    assert (misfit(sidecar, replace(ORIN, version=here)) is None) == fits


def test_hardware_compatible_engines_run_from_ampere_on() -> None:
    sidecar = replace(BUILT, options=BuildOptions(hardware_compatible=True))
    assert misfit(sidecar, replace(ORIN, compute_capability="12.0")) is None
    assert misfit(sidecar, replace(ORIN, compute_capability="7.5")) == (
        "built for sm_87; here sm_75"
    )


def test_what_only_slows_is_a_remark() -> None:
    here = replace(ORIN, power_mode="15W", gpu="Orin Nano")
    assert misfit(BUILT, here) is None
    assert remarks(BUILT, here) == [
        "built on GPU Orin, here Orin Nano",
        "built on power mode 25W, here 15W",
    ]


def test_a_sidecar_is_read_as_it_was_written(tmp_path: Path) -> None:
    engine = tmp_path / engine_name("int8", ORIN, ("8.7",), BUILT.options)
    assert engine.name == "int8-tensorrt-10.3.0-sm87.engine"
    write_sidecar(engine, BUILT)
    assert read_sidecar(engine) == BUILT
    assert [path.name for path in tmp_path.iterdir()] == ["int8-tensorrt-10.3.0-sm87.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "so what it was built for is unknown: build it with resdeploy build"),
        ("{", r"cannot be read .*: build the engine again"),
        ('{"a": 1}', r"cannot be read \(altered since it was written\): build the engine again"),
        (json.dumps(sealed({})), r"not an engine's sidecar .*: build the engine again"),
        (
            json.dumps(sealed({"format_version": 99})),
            "format version 99, this resdeploy reads up to 1: renew it with",
        ),
        ("[]", "a JSON list, expected an object"),
    ],
)
def test_a_damaged_sidecar_is_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    engine = tmp_path / "x.engine"
    if content is not None:
        sidecar_path(engine).write_text(content)
    with pytest.raises(EngineError, match=message):
        read_sidecar(engine)


def test_a_field_of_a_later_version_is_refused(tmp_path: Path) -> None:
    engine = tmp_path / "x.engine"
    fields = {**json.loads(json.dumps(BUILT.to_json())), "surprise": 1}
    sidecar_path(engine).write_text(json.dumps(sealed(fields)))
    with pytest.raises(EngineError, match="not an engine's sidecar"):
        read_sidecar(engine)
