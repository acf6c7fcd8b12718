"""Inception v3 computes what torchvision's does, and may be made for small images."""

from pathlib import Path

import pytest
import torch
from torchvision.models.inception import Inception3

from resdeploy.export.architectures.family import Linear
from resdeploy.export.architectures.inception.inception_v3 import FAMILY
from resdeploy.export.architectures.modules.inception_v3 import build_inception_v3
from tests.export.architectures.rebuilding import fit_of, same_before_and_after_the_fold


@pytest.mark.slow
@pytest.mark.parametrize("transform", ["yes", "no"])
def test_torchvisions_function(transform: str, tmp_path: Path) -> None:
    module = Inception3(7, aux_logits=False, transform_input=transform == "yes", init_weights=False)
    assume = {"transform_input": transform}
    _, fold = same_before_and_after_the_fold(module, tmp_path, 75, assume)
    assert (len(fold.folded), fold.left) == (94, 0)


def test_weiaicunzai_s_for_small_images(tmp_path: Path) -> None:
    """Without its names: what it changed shows in the kernels."""
    with torch.device("meta"):
        network = FAMILY.named("inception_v3", (Linear("", 2048, 7, True),))
        assert network is not None
        settings = {choice.key: choice.default for choice in network.assumptions}
        module = build_inception_v3(network.head, settings, small=True)
    found = fit_of(module, keep=False)
    assert (found.network.name, found.network.input_size_px) == ("inception_v3_32px", 32)
    assert found.network.preprocess == "cifar"
    assert module(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 7)
