"""The whole builder against every recorded TensorRT: which calls each version gets."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resdeploy.deploy.engine.builder import build_plan
from resdeploy.deploy.engine.flavor import typing_of
from resdeploy.deploy.engine.log import BuildLog
from resdeploy.deploy.engine.request import BuildOptions, BuildRequest
from resdeploy.deploy.errors import BackendError, EngineError, InputError
from resdeploy.deploy.specs import PRECISIONS, BatchRange, Precision

STRONG_ONLY = ["11.0.0.114", "11.4.0.106", "rtx-1.7.1.116"]
WEAK_TOO = ["10.3.0", "10.7.0", "10.13.3.9", "10.16.1.11"]


def _request(
    library: Any, folder: Path, precision: Precision = "fp16", **options: Any
) -> BuildRequest:
    chosen = BuildOptions(**options)
    return BuildRequest(
        graph="some.onnx",
        plan=str(folder / "plan"),
        flavor=library.flavor,
        precision=precision,
        typing=typing_of(library.module, strongly_typed=chosen.strongly_typed),
        input_name="input",
        input_sizes=(3, 8, 8),
        options=chosen,
    )


def _build(
    library: Any, request: BuildRequest, steps: list[tuple[str, int, int]] | None = None
) -> BuildLog:
    """Build with 256 MiB on a machine with a GPU; what the library said."""
    log = BuildLog()
    plan = build_plan(
        library.module,
        request,
        log,
        workspace_bytes=256 << 20,
        has_gpu=True,
        progress=lambda *step: None if steps is None else steps.append(step),
    )
    assert bytes(memoryview(plan)) == b"a plan of bytes"
    return log


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_version_builds_every_precision(
    library: Any, precision: Precision, tmp_path: Path
) -> None:
    log = _build(library, _request(library, tmp_path, precision))
    assert [layer.type for layer in log.layers] == ["float", "int8"] and log.errors == []
    assert library.arguments("IBuilderConfig.profiling_verbosity=") == [("DETAILED",)]
    assert library.arguments("IOptimizationProfile.set_shape") == [
        ("input", (1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8))
    ]
    limits = library.arguments("IBuilderConfig.set_memory_pool_limit")
    assert limits == [("WORKSPACE", 256 << 20)]


@pytest.mark.parametrize("library", ["8.6.1"], indirect=True)
def test_8_is_told_of_explicit_batches_and_gets_flags(library: Any, tmp_path: Path) -> None:
    _build(library, _request(library, tmp_path, "int8"))
    assert library.arguments("Builder.create_network") == [(1,)]
    assert library.arguments("IBuilderConfig.set_flag") == [("INT8",), ("FP16",)]


@pytest.mark.parametrize("library", WEAK_TOO, indirect=True)
def test_10_gets_flags_unless_asked_for_strong_typing(library: Any, tmp_path: Path) -> None:
    _build(library, _request(library, tmp_path, "int8"))
    assert library.arguments("Builder.create_network") == [(0,)]
    assert library.arguments("IBuilderConfig.set_flag") == [("INT8",), ("FP16",)]
    library.calls.clear()

    strong = _request(library, tmp_path, "int8", strongly_typed=True)
    _build(library, strong)
    assert strong.typing == "strong"
    assert library.arguments("Builder.create_network") == [(1 << 1,)]
    assert library.arguments("IBuilderConfig.set_flag") == []


@pytest.mark.parametrize("library", STRONG_ONLY, indirect=True)
@pytest.mark.parametrize("asked", [False, True])
def test_11_and_rtx_get_neither(library: Any, asked: bool, tmp_path: Path) -> None:
    request = _request(library, tmp_path, "int8", strongly_typed=asked)
    _build(library, request)
    assert request.typing == "strong"
    assert library.arguments("Builder.create_network") == [(0,)]
    assert library.arguments("IBuilderConfig.set_flag") == []


def test_options_reach_every_version(library: Any, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    rtx = library.flavor == "tensorrt-rtx"
    options: dict[str, Any] = {"optimization_level": 2}
    if rtx:
        options["compute_capabilities"] = ("8.6", "12.0")
    else:
        options |= {"timing_cache": str(cache), "version_compatible": True}
        options["hardware_compatible"] = True
    _build(library, _request(library, tmp_path, **options))

    assert library.arguments("IBuilderConfig.builder_optimization_level=") == [(2,)]
    if rtx:
        assert library.arguments("IBuilderConfig.num_compute_capabilities=") == [(2,)]
        assert library.arguments("IBuilderConfig.set_compute_capability") == [
            ("SM86", 0),
            ("SM120", 1),
        ]
        return
    assert ("VERSION_COMPATIBLE",) in library.arguments("IBuilderConfig.set_flag")
    assert library.arguments("IBuilderConfig.hardware_compatibility_level=") == [("AMPERE_PLUS",)]
    assert cache.read_bytes() == b"measured kernels"
    assert library.arguments("IBuilderConfig.create_timing_cache") == [(b"",)]
    library.calls.clear()
    _build(library, _request(library, tmp_path, timing_cache=str(cache)))
    assert library.arguments("IBuilderConfig.create_timing_cache") == [(b"measured kernels",)]


@pytest.mark.parametrize("library", ["10.3.0"], indirect=True)
@pytest.mark.parametrize("hashed", [True, False])
def test_timings_that_were_altered_are_not_used(library: Any, hashed: bool, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    request = _request(library, tmp_path, timing_cache=str(cache))
    _build(library, request)
    cache.write_bytes(b"other kernels")
    if not hashed:  # as trtexec writes one
        (tmp_path / "timing.cache.sha256").unlink()
    library.calls.clear()
    _build(library, request)
    expected = b"" if hashed else b"other kernels"
    assert library.arguments("IBuilderConfig.create_timing_cache") == [(expected,)]
    assert cache.read_bytes() == b"measured kernels"


@pytest.mark.parametrize("library", ["rtx-1.7.1.116"], indirect=True)
def test_rtx_builds_for_the_gpu_at_hand_and_names_what_it_offers(
    library: Any, tmp_path: Path
) -> None:
    _build(library, _request(library, tmp_path))
    assert library.arguments("IBuilderConfig.set_compute_capability") == [("CURRENT", 0)]
    with pytest.raises(InputError, match=r"8\.7: .* builds for 7\.5, 8\.0, 8\.6, 8\.9, 12\.0"):
        _build(library, _request(library, tmp_path, compute_capabilities=("8.7",)))


def test_dla_where_the_machine_offers_it(library: Any, tmp_path: Path) -> None:
    request = _request(library, tmp_path, dla_core=1, batch=BatchRange(4, 4, 4))
    with pytest.raises(BackendError, match=r"DLA core 1: TensorRT.* finds 0 DLA cores here"):
        _build(library, request)
    library.dla_cores = 2
    _build(library, request)
    assert library.arguments("IBuilderConfig.default_device_type=") == [("DLA",)]
    assert library.arguments("IBuilderConfig.DLA_core=") == [(1,)]
    assert ("GPU_FALLBACK",) in library.arguments("IBuilderConfig.set_flag")


def test_progress_where_the_version_tells_it(library: Any, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    _build(library, _request(library, tmp_path), steps)
    if library.version.startswith("8"):
        assert steps == []
    else:
        assert steps == [("Building engine", 0, 2), ("Building engine", 1, 2)]


def test_errors_carry_the_librarys_words_and_advice(library: Any, tmp_path: Path) -> None:
    request = _request(library, tmp_path)
    library.parse_errors = [
        "input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8"
    ]
    with pytest.raises(EngineError, match=r"some\.onnx: .*int32 bias.*quantize again") as caught:
        _build(library, request)
    # 8.x does not tell which node it was
    assert ("node conv1 (Conv)" in str(caught.value)) == (not library.version.startswith("8"))

    library.parse_errors = []
    library.build_errors = ["Error Code 2: OutOfMemory (Requested size was 47787424 bytes.)"]
    with pytest.raises(EngineError, match=r"OutOfMemory .* raise --workspace-mib"):
        _build(library, request)

    library.found_layers = 0
    with pytest.raises(EngineError, match="no ONNX graph in it"):
        _build(library, request)


def test_a_profile_refused_is_an_error(library: Any, tmp_path: Path) -> None:
    request = _request(library, tmp_path, batch=BatchRange(8, 4, 1))
    with pytest.raises(EngineError, match=r"batch range 8:4:1 .* was refused"):
        _build(library, request)


@pytest.mark.parametrize("library", ["8.6.1"], indirect=True)
def test_8_5_builds_though_it_lacks_what_came_with_8_6(library: Any, tmp_path: Path) -> None:
    """JetPack 5's TensorRT has no wheel to record: 8.6 without what 8.6 brought stands for it."""
    properties = library.api["classes"]["IBuilderConfig"]["properties"]
    for name in ("hardware_compatibility_level", "builder_optimization_level"):
        properties.remove(name)
    flags = set(library.api["enums"]["BuilderFlag"]) - {"VERSION_COMPATIBLE"}
    library.module.BuilderFlag = SimpleNamespace(
        **{name: getattr(library.module.BuilderFlag, name) for name in flags}
    )

    _build(library, _request(library, tmp_path, "int8"))
    options: list[dict[str, Any]] = [{"version_compatible": True}, {"hardware_compatible": True}]
    for option in options:
        with pytest.raises(InputError, match=r"does not have it \(it needs 8\.6\)"):
            _build(library, _request(library, tmp_path, **option))
    with pytest.raises(InputError, match="has no builder_optimization_level"):
        _build(library, _request(library, tmp_path, optimization_level=1))
