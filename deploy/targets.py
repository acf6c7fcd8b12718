"""What INT8 graphs are made for: the two targets, and which backend runs which of a bundle's files.

    tensorrt   symmetric int8 activations, zero points 0; one operand of an Add is quantized;
               biases float. Two files: int8 (the remainder in float32) and int8-fp16 (in half).
    cpu        uint8 activations with zero points; every Conv and Add reads and writes quantized
               tensors; biases int32. One file, int8-cpu, for ONNX Runtime's integer kernels.

ONNX Runtime's CPU kernels would fuse the Q/DQ pairs of the `tensorrt` files and saturate in
16 bits. There these files are computed as the graph says, which is what TensorRT computes up to
rounding.
"""

from dataclasses import dataclass
from typing import Literal

from resdeploy.deploy.specs import PLUGIN_BACKENDS, Backend, Precision, Variant

# The grids of activations: int8 is symmetric around zero, uint8 has a zero point.
Grid = Literal["int8", "uint8"]


@dataclass(frozen=True)
class Target:
    """What an INT8 graph is made for.

    Attributes:
        name: as users and reports know it.
        bits: of weights and activations.
        grid: integers that activations are stored on.
        variant: the file in a bundle; `half_variant` the one with the remainder in half.
        quantizes_outputs: every Conv and Add writes a quantized tensor, and both operands of an
            Add are quantized; else inputs alone are, and one operand of an Add.
        integer_bias: biases are int32 of scale s_x·s_w; else float.
        saturates: the kernels add two products in 16 bits (see `calibration.weights.saturation`).
    """

    name: Literal["tensorrt", "cpu"]
    bits: int
    grid: Grid
    variant: Variant
    half_variant: Variant | None
    quantizes_outputs: bool
    integer_bias: bool
    saturates: bool

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All files made for this target."""
        return (self.variant, self.half_variant) if self.half_variant else (self.variant,)


TENSORRT = Target(
    name="tensorrt",
    bits=8,
    grid="int8",
    variant="int8",
    half_variant="int8-fp16",
    quantizes_outputs=False,
    integer_bias=False,
    saturates=False,
)
CPU = Target(
    name="cpu",
    bits=8,
    grid="uint8",
    variant="int8-cpu",
    half_variant=None,
    quantizes_outputs=True,
    integer_bias=True,
    saturates=True,
)
TARGETS = (TENSORRT, CPU)

# One file of each target: together they hold all integers of a bundle, since int8-fp16 has
# those of int8.
INT8_VARIANTS: tuple[Variant, ...] = tuple(target.variant for target in TARGETS)


def variants_for(precision: Precision, backend: Backend) -> tuple[Variant, ...]:
    """The files of a precision that a backend can run, best first."""
    if precision == "fp32":
        return ("fp32",)
    if precision == "fp16":
        return ("fp16",)
    if backend == "ort-cpu":
        return (CPU.variant, TENSORRT.variant)
    if backend in PLUGIN_BACKENDS:  # which of them a plugin computes rightly, trying shows
        return (TENSORRT.variant, CPU.variant)
    return (TENSORRT.variant,)


def computed_as_written(variant: Variant) -> bool:
    """Whether the CPU must compute the Q/DQ pairs of this file one by one, without fusing them."""
    return variant in TENSORRT.variants


def is_int8(variant: Variant) -> bool:
    """Whether calibration makes this file."""
    return any(variant in target.variants for target in TARGETS)
