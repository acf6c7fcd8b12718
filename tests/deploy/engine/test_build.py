"""Engines built for real with TensorRT-RTX, which needs no GPU: what is built, kept and refused."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resdeploy.deploy.bundle.bundle import write_manifest
from resdeploy.deploy.bundle.model import open_model
from resdeploy.deploy.cuda import cuda_problem
from resdeploy.deploy.engine import build
from resdeploy.deploy.engine.build import build_engine
from resdeploy.deploy.engine.flavor import is_installed
from resdeploy.deploy.engine.request import BuildOptions
from resdeploy.deploy.engine.sidecar import read_plan, read_sidecar
from resdeploy.deploy.engine.store import describe_engine, find_engine
from resdeploy.deploy.errors import BackendError, EngineError, InputError, MissingDependencyError
from resdeploy.deploy.files import sha256_file
from resdeploy.deploy.installation import install_command
from resdeploy.deploy.specs import PRECISIONS, BatchRange, Precision
from tests.deploy.bundle.test_update import _killed

pytestmark = pytest.mark.skipif(
    not is_installed("tensorrt-rtx"), reason="needs tensorrt-rtx to build engines with"
)
without_gpu = pytest.mark.skipif(cuda_problem() is None, reason="this machine has a GPU")

FOR_86 = BuildOptions(compute_capabilities=("8.6",))
RTX_MAGIC = b"vtrt"


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["resnet18", "resnext50_32x4d", "mobilenet_v2"])
def test_three_families_on_two_architectures(
    family_bundle: Callable[[str], Path],
    copied: Callable[[Path], Path],
    family: str,
    precision: Precision,
) -> None:
    """Every quantized convolution computes in int8; no convolution of an FP16 engine in float."""
    convolutions = {"resnet18": 20, "resnext50_32x4d": 53, "mobilenet_v2": 52}[family]
    bundle = copied(family_bundle(family))
    for architecture in ("8.6", "12.0"):
        options = BuildOptions(compute_capabilities=(architecture,))
        engine = build_engine(bundle, precision=precision, flavor="tensorrt-rtx", options=options)
        counts = engine.sidecar.convolutions
        assert counts is not None and engine.sidecar.layers is not None
        kind = {"fp32": counts.float, "fp16": counts.half, "int8": counts.int8}[precision]
        assert kind == counts.total == convolutions
        assert engine.sidecar.layers.total >= convolutions
        assert read_plan(engine.path).startswith(RTX_MAGIC)
        assert engine.path.name.endswith(f"-sm{architecture.replace('.', '')}.engine")
        assert engine.sidecar.peak_memory_mib < 2048


def test_the_sidecar_says_what_the_engine_is(tiny_bundle: Path) -> None:
    options = BuildOptions(BatchRange(1, 2, 4), compute_capabilities=("8.6", "12.0"))
    engine = build_engine(tiny_bundle, precision="fp32", flavor="tensorrt-rtx", options=options)
    sidecar = read_sidecar(engine.path)
    assert sidecar == engine.sidecar
    assert sidecar.compute_capabilities == ("8.6", "12.0")
    assert sidecar.options.batch == BatchRange(1, 2, 4)
    assert (sidecar.variant, sidecar.typing, sidecar.precision) == ("fp32", "strong", "fp32")
    assert sidecar.plan_bytes == engine.path.stat().st_size
    assert sidecar.graph_sha256 == open_model(tiny_bundle).manifest.variants["fp32"].sha256
    assert sidecar.build_seconds > 0 and sidecar.free_memory_mib > 0
    assert describe_engine(engine.path)["state"] == "intact"


@pytest.mark.slow
def test_an_engine_built_so_is_reused_until_something_changes(tiny_bundle: Path) -> None:
    def again(options: BuildOptions = FOR_86, rebuild: bool = False) -> bool:
        return build_engine(
            tiny_bundle,
            precision="fp32",
            flavor="tensorrt-rtx",
            options=options,
            rebuild=rebuild,
        ).reused

    assert not again()
    assert again()
    assert not again(rebuild=True)
    assert not again(replace(FOR_86, workspace_mib=512))
    (engine,) = (tiny_bundle / "engines").glob("*.engine")
    engine.write_bytes(engine.read_bytes()[:-1])
    assert not again(replace(FOR_86, workspace_mib=512))
    assert not again(replace(FOR_86, batch=BatchRange(1, 1, 1)))
    assert len(list((tiny_bundle / "engines").glob("*.engine"))) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_at_any_moment_leaves_an_engine_and_its_own_sidecar(tiny_bundle: Path) -> None:
    built = build_engine(tiny_bundle, precision="fp32", flavor="tensorrt-rtx", options=FOR_86)

    def publish(bundle: Path, number: int) -> None:
        with build._temporary(built.path) as plan:
            plan.write_bytes(bytes([number]))
            sidecar = replace(built.sidecar, plan_sha256=sha256_file(plan), plan_bytes=1)
            build._publish(plan, built.path, sidecar)

    publish(tiny_bundle, 0)
    moment, old = 0, 0
    while _killed(publish, tiny_bundle, old + 1, moment):
        found = read_plan(built.path)[0]
        assert found in (old, old + 1)
        old, moment = found, moment + 1
    assert moment > 20 and read_plan(built.path)[0] == old + 1
    publish(tiny_bundle, 99)
    left = {path.name for path in tiny_bundle.rglob(".*")} - {".lock"}
    assert read_plan(built.path)[0] == 99 and not left


def test_a_folder_of_engines_that_keeps_its_place_gets_engines_too(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "is_mount_point", lambda path: path.name == "engines")
    (tiny_bundle / "engines").mkdir()
    place = (tiny_bundle / "engines").stat().st_ino
    built = build_engine(tiny_bundle, precision="fp32", flavor="tensorrt-rtx", options=FOR_86)
    assert read_plan(built.path) and (tiny_bundle / "engines").stat().st_ino == place


@pytest.mark.parametrize("damage", ["truncated", "altered", "foreign", "text", "no sidecar"])
def test_a_plan_that_is_not_the_one_built_is_refused(tiny_bundle: Path, damage: str) -> None:
    engine = build_engine(tiny_bundle, precision="fp32", flavor="tensorrt-rtx", options=FOR_86).path
    plan = bytearray(engine.read_bytes())
    if damage == "truncated":
        del plan[len(plan) // 2 :]
    elif damage == "altered":
        plan[len(plan) // 2] ^= 1
    elif damage == "foreign":
        plan = bytearray(os.urandom(len(plan)))
    elif damage == "text":
        plan = bytearray(b"not an engine")
    else:
        engine.with_suffix(".json").unlink()
    engine.write_bytes(plan)
    with pytest.raises(EngineError, match=r"build it (again|with)"):
        read_plan(engine)


def test_an_engine_of_the_graph_before_is_not_found(tiny_bundle: Path) -> None:
    engine = build_engine(tiny_bundle, precision="fp32", flavor="tensorrt-rtx", options=FOR_86)
    model = open_model(tiny_bundle)
    here = replace(engine.sidecar.machine, compute_capability="8.6")
    assert find_engine(model, "fp32", here).path == engine.path

    manifest = model.manifest
    other = replace(manifest.variants["fp32"], sha256="1" * 64)
    write_manifest(tiny_bundle, manifest.with_variant("fp32", other))
    with pytest.raises(EngineError, match=r"another fp32 graph .*: run resdeploy build"):
        find_engine(open_model(tiny_bundle), "fp32", here)
    with pytest.raises(EngineError, match="no fp16 engine for tensorrt-rtx in it: run resdeploy"):
        find_engine(model, "fp16", here)


def test_a_lone_graph_keeps_its_engines_beside_it(tiny_bundle: Path) -> None:
    lone = tiny_bundle.with_name("alone.onnx")
    (tiny_bundle / "fp32.onnx").rename(lone)
    engine = build_engine(lone, precision="fp32", flavor="tensorrt-rtx", options=FOR_86)
    assert engine.path.parent == lone.with_name("alone.engines")


@pytest.mark.slow
def test_two_builds_at_once_leave_one_whole_engine(tiny_bundle: Path) -> None:
    def one(workspace_mib: int) -> None:
        build_engine(
            tiny_bundle,
            precision="fp32",
            flavor="tensorrt-rtx",
            options=replace(FOR_86, workspace_mib=workspace_mib),
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, (512, 513)))
    (engine,) = (tiny_bundle / "engines").glob("*.engine")
    read_plan(engine)
    assert _left_behind(tiny_bundle) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny_bundle: Path) -> None:
    with small_files(), pytest.raises(InputError, match="cannot be written"):
        build_engine(tiny_bundle, precision="fp32", flavor="tensorrt-rtx", options=FOR_86)
    assert list((tiny_bundle / "engines").glob("*")) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_building_process(
    family_bundle: Callable[[str], Path], copied: Callable[[Path], Path]
) -> None:
    bundle = copied(family_bundle("resnext50_32x4d"))
    command = "from resdeploy.deploy.cli.main import main; main()"
    arguments = ["build", str(bundle), "--flavor", "tensorrt-rtx", "--compute-capability", "8.6"]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not _left_behind(bundle) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert said.strip() == "interrupted: no half-written file is left"
    assert _left_behind(bundle) == []
    assert list((bundle / "engines").glob("*.engine")) == []


@without_gpu
def test_what_cannot_be_built_here_says_why(tiny_bundle: Path) -> None:
    with pytest.raises(BackendError, match=r"no GPU to build for: .* --compute-capability 8\.6"):
        build_engine(tiny_bundle, precision="fp32", flavor="tensorrt-rtx")
    if not is_installed("tensorrt"):
        with pytest.raises(MissingDependencyError, match=re.escape(install_command("tensorrt"))):
            build_engine(tiny_bundle, precision="fp32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_capabilities": ("8.7",)}, r"8\.7: TensorRT-RTX .* builds for 7\.5, 8\.0"),
        ({"compute_capabilities": ("sm_86",)}, r"'sm_86' is not like 8\.6"),
        ({"timing_cache": "x"}, "--timing-cache: TensorRT-RTX has no such option"),
        ({"version_compatible": True}, "--version-compatible: TensorRT-RTX has no such option"),
        ({"dla_core": 0}, "--dla-core: TensorRT-RTX has no such option"),
        ({"workspace_mib": 0}, "workspace of 0 MiB"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tiny_bundle: Path, options: dict[str, Any], message: str
) -> None:
    given = BuildOptions(**{"compute_capabilities": ("8.6",), **options})
    with pytest.raises(InputError, match=message):
        build_engine(tiny_bundle, precision="fp32", flavor="tensorrt-rtx", options=given)


@pytest.mark.slow
def test_a_workspace_of_1_mib_does_not_suffice(
    family_bundle: Callable[[str], Path], copied: Callable[[Path], Path]
) -> None:
    options = BuildOptions(compute_capabilities=("8.6",), workspace_mib=1)
    with pytest.raises(EngineError, match=r"OutOfMemory .* raise --workspace-mib"):
        build_engine(
            copied(family_bundle("mobilenet_v2")),
            precision="fp32",
            flavor="tensorrt-rtx",
            options=options,
        )


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process or its children can grow beyond 16 KiB: like a full disk.

    Not a fixture: pytest writes its progress before it tears fixtures down, and where its output
    goes to a longer file, the limit would end pytest itself.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _left_behind(bundle: Path) -> list[Path]:
    return list((bundle / "engines").glob(".*.new.*"))
