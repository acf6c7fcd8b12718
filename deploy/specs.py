"""The small vocabulary every module shares: precisions, backends, tensors, batch ranges."""

from dataclasses import dataclass
from typing import Literal, get_args

from resdeploy.deploy.errors import InputError

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# what spreads many images over workers; an engine by itself is TensorRT's
ScoringEngine = Literal["local", "ray"]
SCORING_ENGINES: tuple[ScoringEngine, ...] = get_args(ScoringEngine)

# Those with a colon are plugins of ONNX Runtime (`ort_plugins`), which auto leaves alone.
PluginBackend = Literal["ort:openvino", "ort:tensorrt-rtx", "ort:webgpu", "ort:qnn"]
PLUGIN_BACKENDS: tuple[PluginBackend, ...] = get_args(PluginBackend)
Backend = Literal["ort-cpu", "ort-cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"] | PluginBackend
GPU_BACKENDS: tuple[Backend, ...] = ("ort-cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx")
BACKENDS: tuple[Backend, ...] = ("ort-cpu", *GPU_BACKENDS, *PLUGIN_BACKENDS)

# Files of one precision inside a bundle; the session picks the one its backend runs best.
Variant = Literal["fp32", "fp16", "int8", "int8-fp16", "int8-cpu"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

# How activation ranges are chosen from what calibration saw; auto lets the images decide.
RangeMethod = Literal["auto", "minmax", "moving", "percentile", "entropy", "mse"]
RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)

# Where the ranges come from: measured, or those that quantization-aware training left in the
# checkpoint; auto takes the latter where there are any.
RangeSource = Literal["auto", "calibrate", "checkpoint"]
RANGE_SOURCES: tuple[RangeSource, ...] = get_args(RangeSource)

INPUT_NAME = "input"
OUTPUT_NAME = "logits"

# what a rung of the ladder of repairs does
REPAIRS_IN_WORDS = {
    "centre": "moving the middle of activations to zero",
    "pad": "centring what padded layers read",
    "ranges": "other ranges",
    "sequential_fit": "fitting layer after layer to what it reads",
    "equalize": "bringing channels to like size",
    "float": "leaving layers in float",
}


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output: shape as (N, C, H, W), "batch" for the dynamic axis."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class FeatureSpec:
    """A feature map of a backbone, C5 of stride 32 and so on; sizes are those at its input size."""

    name: str
    stride: int
    channels: int
    height: int
    width: int

    @property
    def tensor(self) -> TensorSpec:
        """The graph's output, (batch, channels, height, width) float32."""
        return TensorSpec(self.name, ("batch", self.channels, self.height, self.width), "float32")


@dataclass(frozen=True)
class BatchRange:
    """Smallest, most usual and largest batch of an engine."""

    min: int
    opt: int
    max: int

    def __str__(self) -> str:
        """What `parse` reads, e.g. 1:8:32."""
        return f"{self.min}:{self.opt}:{self.max}"

    @classmethod
    def parse(cls, text: str) -> "BatchRange":
        """Read `min:opt:max` (or one number for all three).

        Raises:
            InputError: not whole numbers with 1 <= min <= opt <= max.
        """
        parts = text.split(":")
        try:
            numbers = [int(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) == 1:
            numbers *= 3
        if len(numbers) != 3 or not 1 <= numbers[0] <= numbers[1] <= numbers[2]:
            raise InputError(
                f"batch range {text!r} is not min:opt:max with 1 <= min <= opt <= max, e.g. 1:8:32"
            )
        return cls(*numbers)
