"""Finds the feature maps of a network, and makes a network that gives them instead of logits.

Ck is the last map of stride 2^k, as detectors and segmentation networks read it: of a ResNet the
outputs of layer1 to layer4 are C2 to C5. The network is run once and every module's call is looked
at, so the definition needs no names and holds for the user's own networks too:

    unit    a call that changes the resolution at most once, as large as possible: a stage, a block
            or a single layer; what changes it more often is taken apart into the calls inside
    Ck      the output of the last unit whose output has stride 2^k, before the head begins
    head    from the pooling of whole maps, the flattening or the first linear layer on

The maps inside a block that reduces the resolution (MobileNetV2's expansions, a bottleneck's first
convolution) thus never count.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.specs import FeatureSpec

_HEAD = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Linear)
# A layer that shrinks a map by more than 2^2 leaves nothing of its layout.
_LARGEST_STEP = 2


@dataclass
class _Call:
    """One call of a module; sizes are (C, H, W) of a tensor (N, C, H, W), None for others."""

    module: nn.Module
    name: str
    occurrence: int
    source: tuple[int, ...] | None
    result: tuple[int, ...] | None = None
    inside: list["_Call"] = field(default_factory=list)


@dataclass(frozen=True)
class FeaturePoint:
    """Where a feature map leaves the network: the output of a module's call of this number."""

    spec: FeatureSpec
    module: str
    occurrence: int


class Backbone(nn.Module):
    """A network that gives the maps at `points`, a tuple in their order, and no logits.

    Its parameters are the network's own under their own names: layers are called the same.
    """

    def __init__(self, network: nn.Module, points: Sequence[FeaturePoint]) -> None:
        super().__init__()
        for part in network.modules():
            if hasattr(part, "inplace"):  # or the next layer would overwrite a map
                setattr(part, "inplace", False)  # noqa: B010 - to mypy a Module has no such field
        self._modules.update(network._modules)
        self._parameters.update(network._parameters)
        self._buffers.update(network._buffers)
        self._network = (network,)  # in a tuple, which nn.Module does not look into
        self._points = tuple(points)
        self.train(network.training)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, 3, H, W) -> each point's (N, C, h, w)."""
        calls: Counter[str] = Counter()
        kept: dict[tuple[str, int], torch.Tensor] = {}

        def keep(name: str, output: torch.Tensor) -> None:
            kept[name, calls[name]] = output
            calls[name] += 1

        with ExitStack() as stack:
            for name in dict.fromkeys(point.module for point in self._points):

                def hook(_: nn.Module, __: Any, output: torch.Tensor, name: str = name) -> None:
                    keep(name, output)

                part = self.get_submodule(name)
                stack.callback(part.register_forward_hook(hook).remove)
            self._network[0].forward(x)
        return tuple(kept[point.module, point.occurrence] for point in self._points)

    def parameters_read(self, size_px: tuple[int, int]) -> int:
        """Weights and biases of the modules that run until the last map is there."""
        root = _record(self._network[0], size_px)
        wanted = {(point.module, point.occurrence) for point in self._points}
        seen: dict[int, int] = {}
        for call in _in_order(root):
            for parameter in call.module.parameters(recurse=False):
                seen[id(parameter)] = parameter.numel()
            wanted.discard((call.name, call.occurrence))
            if not wanted:
                # the last map's own module began here: what lies in it runs too
                for parameter in call.module.parameters():
                    seen[id(parameter)] = parameter.numel()
                break
        return sum(seen.values())


def backbone(
    network: nn.Module, names: Sequence[str], size_px: tuple[int, int]
) -> tuple[Backbone, tuple[FeatureSpec, ...]]:
    """The network that gives the maps `names` at input (height, width), from fine to coarse.

    Raises:
        InputError: the network has no such map; says which it has.
    """
    found = {point.spec.name: point for point in find_features(network, size_px)}
    missing = [name for name in names if name not in found]
    if missing or not names:
        have = ", ".join(f"{name} (stride {point.spec.stride})" for name, point in found.items())
        lacks = f"there is no {missing[0]}" if missing else "nothing named"
        raise InputError(
            f"--features {','.join(names)}: {lacks}; at "
            f"{size_px[1]}x{size_px[0]} pixels the network has {have or 'no feature map'}: "
            "choose among these"
        )
    points = [point for name, point in found.items() if name in names]
    return Backbone(network, points), tuple(point.spec for point in points)


def find_features(network: nn.Module, size_px: tuple[int, int]) -> tuple[FeaturePoint, ...]:
    """Every feature map of the network at an input of (height, width), from fine to coarse."""
    last: dict[int, _Call] = {}
    for call in _units(_record(network, size_px)):
        if _begins_head(call) or call.result is None:
            break
        level = _level(size_px, call.result)
        if last and level < max(last):  # a decoder begins
            break
        last[level] = call
    return tuple(
        FeaturePoint(
            FeatureSpec(f"C{level}", 2**level, *(call.result or (0, 0, 0))),
            call.name,
            call.occurrence,
        )
        for level, call in sorted(last.items())
    )


def _record(network: nn.Module, size_px: tuple[int, int]) -> _Call:
    """All calls of one run on zeros, as a tree."""
    names = {part: name for name, part in network.named_modules()}
    counts: Counter[str] = Counter()
    root = _Call(network, "", 0, (3, *size_px))
    open_calls: list[_Call] = []

    def begin(part: nn.Module, arguments: tuple[Any, ...]) -> None:
        name = names[part]
        source = _sizes(arguments[0]) if arguments else None
        call = _Call(part, name, counts[name], source) if open_calls else root
        if open_calls:
            open_calls[-1].inside.append(call)
        counts[name] += 1
        open_calls.append(call)

    def end(_: nn.Module, __: Any, output: Any) -> None:
        open_calls.pop().result = _sizes(output)

    with ExitStack() as stack, torch.no_grad():
        for part in names:
            stack.callback(part.register_forward_pre_hook(begin).remove)
            stack.callback(part.register_forward_hook(end).remove)
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        network(torch.zeros(1, 3, *size_px, device=device))
    return root


def _sizes(value: Any) -> tuple[int, ...] | None:
    is_map = isinstance(value, torch.Tensor) and value.ndim == 4
    return tuple(map(int, value.shape[1:])) if is_map else None


def _in_order(call: _Call) -> Iterator[_Call]:
    yield call
    for inner in call.inside:
        yield from _in_order(inner)


def _units(call: _Call) -> Iterator[_Call]:
    for inner in call.inside:
        if inner.inside and _changes(inner) > 1:
            yield from _units(inner)
        else:
            yield inner


def _changes(call: _Call) -> int:
    """How often the resolution changes on the way through a call.

    What is coarser than the result lies beside that way, such as a squeeze-and-excitation's pool.
    """
    if call.source is None or call.result is None:
        return 0
    heights = {inner.result[1] for inner in _in_order(call) if inner.result is not None}
    between = {h for h in heights if call.result[1] <= h <= call.source[1]}
    return len(between | {call.source[1]}) - 1


def _begins_head(call: _Call) -> bool:
    parts = [call.module, *(inner.module for inner in call.inside)]
    pools = any(isinstance(part, _HEAD) for part in parts)
    if call.result is None:
        return True
    if call.source is None or isinstance(call.module, _HEAD):
        return isinstance(call.module, _HEAD)
    single = call.result[1:] == (1, 1) != call.source[1:]
    pools = pools or isinstance(call.module, nn.AvgPool2d)
    step = round(math.log2(call.source[1] / call.result[1]))
    return (single and pools) or step > _LARGEST_STEP


def _level(size_px: tuple[int, int], result: tuple[int, ...]) -> int:
    """k of the stride 2^k, whatever borders without padding have cut off."""
    return max(0, round(math.log2(size_px[0] / result[1])))
