"""The small vocabulary every module shares: precisions, backends, tensors, batch ranges."""

from dataclasses import dataclass
from typing import Literal, get_args

from resdeploy.deploy.errors import InputError

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Backend = Literal["ort-cpu", "ort-cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

# Files of one precision inside a bundle; the session picks the one its backend runs best.
Variant = Literal["fp32", "fp16", "int8", "int8-fp16", "int8-cpu"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

INPUT_NAME = "input"
OUTPUT_NAME = "logits"


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output: shape as (N, C, H, W), "batch" for the dynamic axis."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class BatchRange:
    """Smallest, most usual and largest batch of an engine."""

    min: int
    opt: int
    max: int

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
