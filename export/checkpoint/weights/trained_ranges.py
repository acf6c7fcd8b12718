"""Ranges that quantization-aware training or calibration left in a checkpoint, set aside.

    pytorch-quantization, ModelOpt   LAYER._input_quantizer._amax, LAYER.weight_quantizer._amax
    torch.ao                         LAYER.activation_post_process.min_val, .max_val or .scale,
                                     .zero_point; LAYER.weight_fake_quant…

amax is the largest magnitude that stays: the scale of a signed 8-bit grid is amax / 127. Of
torch.ao's activations the ends are kept, as its grid has a zero point; of its weights the scale,
since its signed grid may begin at −128.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from resdeploy.deploy.arrays import Float32s

_QUANTIZER = re.compile(
    r"(?:(.*?)\.)?_?(input|weight|output|residual)_quantizer\.(\w+)$"
    r"|(?:(.*?)\.)??(activation_post_process(?:_\d+)?|weight_fake_quant)"
    r"\.(?:activation_post_process\.)?(\w+)$"
)
_LARGEST_INT8, _LARGEST_UINT8 = 127, 255


@dataclass(frozen=True)
class TrainedRange:
    """The smallest and largest value that training kept: one each, or one for each channel."""

    low: Float32s
    high: Float32s

    @property
    def amax(self) -> Float32s:
        """The largest magnitude, of the same shape."""
        return np.asarray(np.maximum(np.abs(self.low), np.abs(self.high)))


def set_aside_ranges(
    tensors: dict[str, Float32s], notes: list[str]
) -> tuple[dict[str, Float32s], dict[str, TrainedRange]]:
    """The tensors of the network, and {"LAYER.input", ".weight", ".output" or ".residual": range}.

    What torch.ao's graph mode numbers instead of naming it becomes "activation_post_process_3".
    """
    rest: dict[str, Float32s] = {}
    parts: dict[str, dict[str, Float32s]] = defaultdict(dict)
    for name, values in tensors.items():
        match = _QUANTIZER.fullmatch(name)
        if match is None:
            rest[name] = values
        else:
            parts[_key(match)][match[3] or match[6]] = values
    found = {key: _range_of(key, stored) for key, stored in parts.items()}
    ranges = {key: kept for key, kept in found.items() if kept is not None}
    if ranges:
        notes.append(
            f"{len(ranges)} ranges of quantization-aware training or calibration are set aside"
        )
    return rest, ranges


def _key(match: re.Match[str]) -> str:
    if match[2]:
        kind = match[2]
    elif match[5] == "weight_fake_quant":
        kind = "weight"
    else:
        kind = "output" if match[5] == "activation_post_process" else match[5]
    return f"{match[1] or match[4] or ''}.{kind}".lstrip(".")


def _range_of(key: str, stored: Mapping[str, Float32s]) -> TrainedRange | None:
    """The range that one quantizer's numbers mean; None for an observer that has seen nothing."""
    ends = [stored[name] for name in ("min_val", "max_val") if name in stored]
    if not all(end.size and np.isfinite(end).all() for end in ends):
        return None
    amax = stored.get("_amax", stored.get("amax"))
    if amax is not None:
        return _usable(-np.abs(amax), np.abs(amax))
    scale = stored.get("scale")
    if key.endswith("weight") and scale is not None:
        return _usable(-scale * _LARGEST_INT8, scale * _LARGEST_INT8)
    if len(ends) == 2:
        return _usable(*ends)
    if scale is None or "zero_point" not in stored:
        return None
    zero = stored["zero_point"]
    first = 0 if (zero >= 0).all() else -_LARGEST_INT8 - 1
    return _usable((first - zero) * scale, (first + _LARGEST_UINT8 - zero) * scale)


def _usable(low: Float32s, high: Float32s) -> TrainedRange | None:
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    finite = low.size and np.isfinite(low).all() and np.isfinite(high).all()
    return TrainedRange(low, high) if finite and (low <= high).all() else None
