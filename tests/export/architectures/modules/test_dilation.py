"""Dilated stages compute what torchvision's and timm's constructors do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from resdeploy.deploy.errors import InputError
from resdeploy.export.architectures.modules.dilation import stages_of
from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.builders import randomize_batch_norms
from tests.export.checkpoint.conftest import assert_gives_the_logits_of, saved
from tests.networks import NarrowResNet

OURS = {
    (False, True, True): "yes",
    (True, True, False): "layer2,layer3",  # layer4 strides with the dilation of layer3
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def logits(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module(
            torch.randn(2, 3, 49, 49, generator=torch.Generator().manual_seed(1))
        )
    return found


@pytest.mark.parametrize("dilated", OURS, ids=OURS.get)
def test_torchvisions(dilated: tuple[bool, bool, bool], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"replace_stride_with_dilation": list(dilated)}
    module = randomize_batch_norms(NarrowResNet(Bottleneck, [1, 1, 1, 2], 7, **settings)).eval()
    checkpoint = saved(module, tmp_path)
    found = identify(checkpoint, assume={"dilated": OURS[dilated]})
    torch.testing.assert_close(
        logits(build_module(checkpoint, found)), logits(module), rtol=0, atol=0
    )
    plain = build_module(checkpoint, identify(checkpoint))
    assert (logits(plain) - logits(module)).abs().max() > 1e-3
    assert any("dilated" in said for said in identify(checkpoint).assumptions)


@pytest.mark.parametrize(
    ("pooled", "output_stride"), [(False, 8), (True, 16)], ids=["plain", "pooled shortcuts"]
)
def test_timms(pooled: bool, output_stride: int, tmp_path: Path) -> None:
    """Both convolutions of a basic block dilate, and a shortcut's pool no longer strides."""
    timm: Any = pytest.importorskip("timm.models.resnet")
    deep = {"stem_type": "deep", "stem_width": 4, "avg_down": True} if pooled else {}
    module = timm.ResNet(
        timm.BasicBlock,
        (1, 1, 1, 2),
        7,
        channels=(8, 16, 32, 64),
        output_stride=output_stride,
        **deep,
    )
    randomize_batch_norms(module)
    checkpoint = saved(module.eval(), tmp_path)
    found = identify(checkpoint, assume={"dilated": {8: "yes", 16: "layer4"}[output_stride]})
    torch.testing.assert_close(
        logits(build_module(checkpoint, found)), logits(module), rtol=0, atol=0
    )


def test_a_stage_that_never_strides_or_is_not_there_cannot_be_dilated(tmp_path: Path) -> None:
    checkpoint = saved(NarrowResNet(Bottleneck, [1, 1, 1, 1], 3), tmp_path)
    for value in ("layer1", "layer5", "both"):
        with pytest.raises(InputError, match=f"dilated={value} is not understood"):
            identify(checkpoint, assume={"dilated": value})


def test_values() -> None:
    assert stages_of("no", 4) == () and stages_of("yes", 3) == (3,)
    assert stages_of("yes", 4) == (3, 4) and stages_of("layer2,layer4", 4) == (2, 4)


def test_the_training_arguments_say_so(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"replace_stride_with_dilation": [False, False, True]}
    module = randomize_batch_norms(NarrowResNet(Bottleneck, [1, 1, 1, 1], 3, **settings)).eval()
    content = {"model": module.state_dict(), "args": {"lr": 0.1, **settings}}
    torch.save(content, tmp_path / "model.pth")
    checkpoint = read_checkpoint(tmp_path / "model.pth")
    assert_gives_the_logits_of(module, checkpoint)
    found = identify(checkpoint)
    assert "args says dilated=layer4" in found.evidence
    assert not any("dilated" in said for said in found.assumptions)
