"""An encoder that was cut off has only feature maps to give; everything else has more."""

from dataclasses import replace

import torch
from torchvision.models import mobilenet_v3_small

from resdeploy.export.checkpoint.architecture import Architecture
from resdeploy.export.matching.fitting import Fit, fit


def _architecture(found: Fit | None) -> Architecture:
    return Architecture("x", "own", "names", None, 8, 100, 224, "imagenet", (), (), (), fit=found)


def test_only_a_network_cut_off_before_its_last_layers_has_nothing_but_maps() -> None:
    with torch.device("meta"):
        module = mobilenet_v3_small()
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    whole = fit(shapes)
    assert whole is not None and not _architecture(whole).maps_only
    cut = replace(whole, network=replace(whole.network, maps_only=True))
    assert _architecture(cut).maps_only
    assert not _architecture(None).maps_only  # the user's own network
