"""Every TensorRT version as it was recorded.

`api/*.json` hold the members and enumerations of the real Python bindings, read out of their
wheels. A library made of one has exactly those: touching a member, flag or enumeration that a
version lacks raises AttributeError, as it would there. The behaviour behind the members is ours;
that is why these tests prove which calls are made, and not that TensorRT does what it should.
"""

import ctypes
import enum
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.host_cuda import HostCuda

API = Path(__file__).parent / "api"
VERSIONS = ["8.6.1", "10.3.0", "10.7.0", "10.13.3.9", "10.16.1.11", "11.0.0.114", "11.4.0.106"]
VERSIONS_AND_RTX = [*VERSIONS, "rtx-1.7.1.116"]

LAYER_TABLE = """Layers:
Name: conv1, LayerType: CaskConvolution, Inputs: [ { Name: input, Location: Device, Dimensions: \
[-1,3,8,8], Format/Datatype: Row major linear FP32 }], Outputs: [ { Name: a, Location: Device, \
Dimensions: [-1,4,8,8], Format/Datatype: Thirty-two wide channel vectorized row major Int8 format }]
Name: conv2, LayerType: CaskConvolution, Inputs: [ { Name: a, Location: Device, Dimensions: \
[-1,4,8,8], Format/Datatype: Thirty-two wide channel vectorized row major Int8 }], Outputs: []
"""
PLAN = b"a plan of bytes"


class Recorded:
    """An object of one recorded class; `does` gives its methods bodies, `has` its properties."""

    def __init__(
        self,
        library: "Library",
        kind: str,
        does: dict[str, Callable[..., Any]],
        has: dict[str, Any],
    ) -> None:
        object.__setattr__(self, "_parts", (library, kind, does, dict(has)))

    def __getattr__(self, member: str) -> Any:
        library, kind, does, has = object.__getattribute__(self, "_parts")
        recorded = library.api["classes"][kind]
        if member in recorded["methods"]:

            def call(*arguments: Any) -> Any:
                library.calls.append((f"{kind}.{member}", tuple(map(_plain, arguments))))
                return does[member](*arguments)

            return call
        if member in recorded["properties"]:
            return has.get(member)
        raise AttributeError(f"{kind} of TensorRT {library.version} has no {member}")

    def __setattr__(self, member: str, value: Any) -> None:
        library, kind, _, has = object.__getattribute__(self, "_parts")
        if member not in library.api["classes"][kind]["properties"]:
            raise AttributeError(f"{kind} of TensorRT {library.version} has no {member} to set")
        library.calls.append((f"{kind}.{member}=", (_plain(value),)))
        has[member] = value


class Library:
    """A TensorRT of one recorded version; `module` stands for the imported package."""

    def __init__(self, name: str, cuda: HostCuda) -> None:
        self.api = json.loads((API / f"{name}.json").read_text())
        self.version: str = self.api["version"]
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.cuda = cuda
        self.dla_cores = 0
        self.parse_errors: list[str] = []
        self.build_errors: list[str] = []
        self.found_layers = 3
        self.refuses_plan = False
        self.fails_execution = 0
        self.doubled = False  # a second output, twice the first
        self.flavor = "tensorrt-rtx" if name.startswith("rtx") else "tensorrt"
        self.module = SimpleNamespace(
            __version__=self.version,
            Builder=self._builder,
            OnnxParser=self._parser,
            Runtime=self._runtime,
            ILogger=_subclassable("ILogger"),
            **{
                name: _enum(name, members)
                for name, members in self.api["enums"].items()
                if "." not in name
            },
        )
        self.module.ILogger.Severity = _enum("Severity", self.api["enums"]["ILogger.Severity"])
        if "IProgressMonitor" in self.api["classes"]:
            self.module.IProgressMonitor = _subclassable("IProgressMonitor")

    def arguments(self, call: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of `Class.member` (or `Class.member=`), in order."""
        return [arguments for name, arguments in self.calls if name == call]

    def _builder(self, logger: Any) -> Recorded:
        found = {"num_layers": self.found_layers, "num_outputs": 1}
        return Recorded(
            self,
            "Builder",
            {
                "create_network": lambda flags=0: Recorded(
                    self,
                    "INetworkDefinition",
                    {},
                    found,
                ),
                "create_builder_config": self._config,
                "create_optimization_profile": self._profile,
                "build_serialized_network": lambda network, config: self._build(logger, config),
            },
            {"num_DLA_cores": self.dla_cores},
        )

    def _parser(self, network: Recorded, logger: Any) -> Recorded:
        def error(index: int) -> Recorded:
            text = self.parse_errors[index]
            answers: dict[str, Any] = {"desc": lambda: text, "node_name": lambda: "conv1"}
            return Recorded(self, "ParserError", {**answers, "node_operator": lambda: "Conv"}, {})

        return Recorded(
            self,
            "OnnxParser",
            {"parse_from_file": lambda path: not self.parse_errors, "get_error": error},
            {"num_errors": len(self.parse_errors)},
        )

    def _config(self) -> Recorded:
        cache = {"serialize": lambda: b"measured kernels"}
        return Recorded(
            self,
            "IBuilderConfig",
            {
                "set_flag": lambda flag: None,
                "set_memory_pool_limit": lambda pool, size: None,
                "add_optimization_profile": lambda profile: 0 if profile.get_shape("input") else -1,
                "create_timing_cache": lambda stored: Recorded(self, "ITimingCache", cache, {}),
                "set_timing_cache": lambda cache, ignore_mismatch: True,
                "get_timing_cache": lambda: Recorded(self, "ITimingCache", cache, {}),
                "set_compute_capability": lambda value, index: None,
            },
            {},
        )

    def _profile(self) -> Recorded:
        shapes: dict[str, list[tuple[int, ...]]] = {}

        def set_shape(name: str, *three: tuple[int, ...]) -> None:
            shapes[name] = [] if sorted(three) != list(three) else list(three)

        does: dict[str, Any] = {"set_shape": set_shape, "get_shape": lambda name: shapes[name]}
        return Recorded(self, "IOptimizationProfile", does, {})

    def _build(self, logger: Any, config: Recorded) -> bytes | None:
        severity = self.module.ILogger.Severity
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 2)
            assert monitor.step_complete("Building engine", 0) is True
            monitor.phase_finish("Building engine")
        for error in self.build_errors:
            logger.log(severity.ERROR, error)
        logger.log(severity.VERBOSE, LAYER_TABLE)
        return None if self.build_errors else PLAN

    def _runtime(self, logger: Any) -> Recorded:
        def deserialize(plan: bytes) -> Recorded | None:
            if self.refuses_plan:
                logger.log(self.module.ILogger.Severity.ERROR, "Serialization assertion failed")
                return None
            return self._engine()

        return Recorded(self, "Runtime", {"deserialize_cuda_engine": deserialize}, {})

    def _engine(self) -> Recorded:
        shapes = {"input": (-1, 3, 2, 2), "logits": (-1, 3)}
        shapes |= {"doubled": (-1, 3, 1, 1)} if self.doubled else {}
        modes = self.module.TensorIOMode
        return Recorded(
            self,
            "ICudaEngine",
            {
                "get_tensor_name": lambda index: list(shapes)[index],
                "get_tensor_mode": lambda name: modes.INPUT if name == "input" else modes.OUTPUT,
                "get_tensor_dtype": lambda name: self.module.DataType.FLOAT,
                "get_tensor_shape": lambda name: shapes[name],
                "get_tensor_profile_shape": lambda name, profile: [
                    (size, 3, 2, 2) for size in (2, 4, 4)
                ],
                "create_execution_context": self._context,
            },
            {"num_io_tensors": len(shapes)},
        )

    def _context(self) -> Recorded:
        addresses: dict[str, int] = {}
        batch = [0]

        def set_input_shape(name: str, shape: tuple[int, ...]) -> bool:
            batch[0] = shape[0]
            return 2 <= shape[0] <= 4

        def execute(stream: int) -> bool:
            if self.fails_execution:
                self.fails_execution -= 1
                return False
            size = batch[0]
            self.cuda.do(lambda: _classify(addresses["input"], addresses["logits"], size))
            if "doubled" in addresses:
                self.cuda.do(lambda: _classify(addresses["input"], addresses["doubled"], size, 2))
            return True

        return Recorded(
            self,
            "IExecutionContext",
            {
                "set_input_shape": set_input_shape,
                "set_tensor_address": lambda name, address: bool(
                    addresses.update({name: address}) or True
                ),
                "execute_async_v3": execute,
            },
            {},
        )


def _classify(input: int, logits: int, size: int, factor: float = 1) -> None:
    """The network of these tests: three sums over the channels of each image, times a factor."""
    images = np.ctypeslib.as_array((ctypes.c_float * (size * 12)).from_address(input))
    answers = np.ctypeslib.as_array((ctypes.c_float * (size * 3)).from_address(logits))
    answers[:] = factor * images.reshape(size, 3, 4).sum(axis=2).ravel()


def _enum(name: str, members: dict[str, int]) -> Any:
    def as_integer(self: Any) -> int:
        return int(self.value)

    made: Any = enum.Enum(name, members)  # type: ignore[misc]
    # pybind's enumerations are no integers, but turn into them
    setattr(made, "__int__", as_integer)  # noqa: B010
    return made


def _subclassable(name: str) -> Any:
    return type(name, (), {})


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, enum.Enum) else value


@pytest.fixture
def host_cuda() -> HostCuda:
    """A fresh CUDA over host memory."""
    return HostCuda()


@pytest.fixture
def library(request: pytest.FixtureRequest, host_cuda: HostCuda) -> Library:
    """The recorded TensorRT the test is parametrized with (`indirect=True`)."""
    return Library(request.param, host_cuda)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take `library` run for every version, unless they name theirs."""
    marked = any(
        "library" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")
    )
    if "library" in metafunc.fixturenames and not marked:
        metafunc.parametrize("library", VERSIONS_AND_RTX, indirect=True)
