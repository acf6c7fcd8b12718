"""Widths of a GoogLeNet's modules are those that torchvision's branches have."""

import torch
from torchvision.models import GoogLeNet

from resdeploy.export.architectures.inception.googlenet_layout import (
    MODULES,
    Conv,
    GoogLeNetLayout,
    module_width,
)


def torchvisions() -> GoogLeNetLayout:
    with torch.device("meta"):
        state = GoogLeNet(7, aux_logits=False, init_weights=False).state_dict()

    def convs(start: str) -> tuple[Conv, ...]:
        kept = [name for name in state if name.startswith(start) and name.endswith("conv.weight")]
        return tuple(
            Conv(name.removesuffix(".conv.weight"), *state[name].shape[:3]) for name in kept
        )

    return GoogLeNetLayout(
        convs("conv"), tuple(convs(f"inception{name}") for name in MODULES), True
    )


def test_a_module_is_as_wide_as_the_next_one_takes_in() -> None:
    layout = torchvisions()
    widths = [module_width(module) for module in layout.modules]
    assert widths == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert [module[0].inputs for module in layout.modules[1:]] == widths[:-1]
    assert layout.features == 1024


def test_a_stem_of_7x7_is_for_large_images() -> None:
    layout = torchvisions()
    assert not layout.small
    stem = (Conv("conv1", 64, 3, 3),)
    assert GoogLeNetLayout(stem, layout.modules, normed=True).small
