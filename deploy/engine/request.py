"""What is asked of a build, as one value that travels to the building process as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from resdeploy.deploy.defaults import ENGINE_BATCH
from resdeploy.deploy.engine.flavor import Flavor, Typing
from resdeploy.deploy.engine.layer_table import LayerCounts
from resdeploy.deploy.specs import BatchRange, Precision


@dataclass(frozen=True)
class BuildOptions:
    """What a user may choose of a build; the defaults suit a first try.

    Attributes:
        batch: smallest, most usual and largest batch the engine takes.
        compute_capabilities: targets such as "8.6" (TensorRT-RTX only, which builds for GPUs that
            are not here); empty means the GPU at hand.
        workspace_mib: scratch memory the builder may use; None takes a share of what is free.
        timing_cache: file of measured kernels, read and written; None keeps one beside the
            engines. TensorRT-RTX has none.
        strongly_typed: TensorRT 10 only: let the types in the graph decide, as 11 does.
        version_compatible: an engine that later versions run too (8.6 and later).
        hardware_compatible: an engine for every GPU from Ampere on (8.6 and later, no Jetson).
        dla_core: build for this deep-learning accelerator of a Jetson.
        optimization_level: 0 (quick build) to 5; None is TensorRT's own default.
    """

    batch: BatchRange = ENGINE_BATCH
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    timing_cache: str | None = None
    strongly_typed: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla_core: int | None = None
    optimization_level: int | None = None


def options_from_json(fields: dict[str, Any]) -> BuildOptions:
    """Read what `dataclasses.asdict` gives."""
    lists = {
        "batch": BatchRange(**fields["batch"]),
        "compute_capabilities": tuple(fields["compute_capabilities"]),
    }
    return BuildOptions(**{**fields, **lists})


@dataclass(frozen=True)
class BuildRequest:
    """Everything the building process needs: which graph, how, and where the plan goes."""

    graph: str
    plan: str
    flavor: Flavor
    precision: Precision
    typing: Typing
    input_name: str
    input_sizes: tuple[int, ...]
    options: BuildOptions

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "BuildRequest":
        """Read what `to_json` writes."""
        fields = json.loads(text)
        fields["options"] = options_from_json(fields["options"])
        fields["input_sizes"] = tuple(fields["input_sizes"])
        return cls(**fields)


@dataclass(frozen=True)
class BuildReport:
    """What the building process found out, beside the plan it wrote.

    `warnings` are TensorRT's own, such as kernels it skipped because they did not fit the memory.
    """

    version: str
    seconds: float
    workspace_mib: int
    free_memory_mib: int
    peak_memory_mib: int
    warnings: tuple[str, ...]
    layers: LayerCounts | None
    convolutions: LayerCounts | None

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "BuildReport":
        """Read what `dataclasses.asdict` gives."""
        counts = {
            key: None if fields[key] is None else LayerCounts(**fields[key])
            for key in ("layers", "convolutions")
        }
        return cls(**{**fields, "warnings": tuple(fields["warnings"]), **counts})
