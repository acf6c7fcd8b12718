"""Moves the mean of a layer's rounding error into its bias, where it costs nothing.

With D = W − s·Q the rounding error of the weights and μ the mean of the layer's unfolded input,
the output's mean is off by D·μ: the corrected bias is

    b' = b + D·μ

(Nagel et al. 2019, section 4.2, with the mean measured on images instead of derived from batch
normalization). Where the layer reads quantized activations û, whose mean is μ̂, the exact form is

    b' = b + W·μ − s·Q·μ̂

which also takes out the shift that the layers before it left. That form is only right when the
layers before are final: correcting all layers at once against the same μ̂ diverges.
"""

import numpy as np

from resdeploy.deploy.arrays import Float32s, Float64s, Floats


def corrected_bias(
    bias: Float64s,
    weight: Floats,
    rounded: Floats,
    mean: Float64s,
    seen: Float64s | None = None,
) -> Float32s:
    """The corrected bias b', (C_out,).

    Args:
        bias: b, (C_out,).
        weight: W, (group, C_out / group, K).
        rounded: s·Q, of the same shape.
        mean: μ, (group, K). seen: μ̂, μ when not given.
    """
    seen = mean if seen is None else seen
    shift = np.einsum("gok,gk->go", weight, mean) - np.einsum("gok,gk->go", rounded, seen)
    return np.asarray(bias + shift.ravel(), np.float32)
