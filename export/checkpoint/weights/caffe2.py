"""Caffe2's names of a ResNet, from Detectron's first model zoo, as detectron2 calls them.

    conv1_w, res_conv1_bn_s         -> stem.conv1.weight, stem.conv1.norm.weight
    res2_0_branch2a_w               -> res2.0.conv1.weight
    res2_0_branch1_w                -> res2.0.shortcut.weight
    pred_w, fc1000_w                -> linear.weight

Its batch norms are folded to a scale and a shift: the statistics that change nothing are added.
Those networks stride in the 1x1 and were fed BGR values of 0 to 255 less their mean.
"""

import re

import numpy as np

from resdeploy.deploy.arrays import Float32s
from resdeploy.export.checkpoint.sidecars.sidecar import Sidecar

_PARTS = {
    "w": "weight",
    "b": "bias",
    "bn_s": "norm.weight",
    "bn_b": "norm.bias",
    "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var",
}
_NAME = re.compile(
    r"(?P<stem>(?:res_)?conv1)_(?P<a>w|b|bn_s|bn_b|bn_rm|bn_riv)"
    r"|res(?P<stage>\d)_(?P<block>\d+)_branch(?P<branch>1|2[abc])_(?P<c>w|b|bn_s|bn_b|bn_rm|bn_riv)"
    r"|(?P<head>pred|fc1000)_(?P<d>w|b)"
)
_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_EPS = 1e-5
# Detectron's cfg.PIXEL_MEANS, in RGB order.
_MEAN = (122.7717 / 255, 115.9465 / 255, 102.9801 / 255)
_STD = (1 / 255, 1 / 255, 1 / 255)


def from_caffe2(
    tensors: dict[str, Float32s], notes: list[str]
) -> tuple[dict[str, Float32s], Sidecar | None]:
    """`tensors` under detectron2's names and what such networks do, if they are Caffe2's."""
    if "conv1_w" not in tensors or "res2_0_branch2a_w" not in tensors:
        return tensors, None
    renamed: dict[str, Float32s] = {}
    for name, values in tensors.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            renamed[_canonical(match)] = values
    for name in [name for name in renamed if name.endswith("norm.weight")]:
        norm = name.removesuffix("weight")
        one = np.ones_like(renamed[name])
        renamed.setdefault(f"{norm}running_mean", 0 * one)
        renamed.setdefault(f"{norm}running_var", one * np.float32(1 - _EPS))
    others = sum(_NAME.fullmatch(name) is None for name in tensors)
    if others:
        notes.append(f"ignored: {others} blobs that are no part of the network")
    settings = {"stride": "1x1", "channels": "bgr"}
    return renamed, Sidecar("Caffe2's names", settings=settings, normalization=(_MEAN, _STD))


def _canonical(match: re.Match[str]) -> str:
    part = _PARTS[match["a"] or match["c"] or match["d"]]
    if match["stem"]:
        return f"stem.conv1.{part}"
    if match["head"]:
        return f"linear.{part}"
    return f"res{match['stage']}.{match['block']}.{_BRANCHES[match['branch']]}.{part}"
