"""What is said beside the tensors of stages that dilate instead of striding.

torchvision       replace_stride_with_dilation=[False, False, True]: layer2, layer3, layer4
timm              output_stride=16, as an argument or in model_kwargs, model_args
OpenMMLab         dilations=(1, 1, 2, 4) of the four stages
torchvision's     deeplabv3_resnet50 and its like, whose encoders dilate layer3 and layer4
segmentation
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

_OUTPUT_STRIDES = {32: (), 16: (4,), 8: (3, 4), 4: (2, 3, 4)}
_SEGMENTATION = re.compile(r"(fcn|deeplabv3|lraspp)_(resnet|mobilenet)")
_STAGES = 3  # that can: layer2, layer3 and layer4


def dilated_by_arguments(fields: Mapping[str, Any]) -> dict[str, str]:
    """{"dilated": VALUE} of a constructor's or a training script's arguments; {} for nothing."""
    for nested in ("model_kwargs", "model_args"):
        inner = fields.get(nested)
        if isinstance(inner, Mapping) and (found := dilated_by_arguments(inner)):
            return found
    stages = fields.get("replace_stride_with_dilation")
    if isinstance(stages, Sequence) and [type(one) for one in stages] == [bool] * _STAGES:
        return _dilated([number for number, one in enumerate(stages, start=2) if one])
    output_stride = fields.get("output_stride")
    if isinstance(output_stride, int) and output_stride in _OUTPUT_STRIDES:
        return _dilated(_OUTPUT_STRIDES[output_stride])
    name = fields.get("model") or fields.get("arch")
    if isinstance(name, str) and _SEGMENTATION.match(name):
        return _dilated((3, 4))
    return {}


def dilated_by_mmlab(text: str) -> dict[str, str]:
    """The same of a configuration's text."""
    found = re.search(r"\bdilations\s*=\s*[\[(]([\d,\s]+)[\])]", text)
    if not found:
        return {}
    dilations = [int(one) for one in re.findall(r"\d+", found[1])]
    return _dilated([at for at, (one, two) in enumerate(pairwise(dilations), 2) if two > one])


def _dilated(stages: Sequence[int]) -> dict[str, str]:
    if tuple(stages) == (3, 4):
        return {"dilated": "yes"}
    return {"dilated": ",".join(f"layer{stage}" for stage in stages) or "no"}
