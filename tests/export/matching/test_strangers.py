"""What many people have and nothing fits is told by its name, with the way on."""

from pathlib import Path

import pytest
import torch
import torchvision

from resdeploy.deploy.errors import CheckpointError
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from resdeploy.export.matching.strangers import stranger


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("visual.attnpool.positional_embedding", "CLIP ResNet"),
        ("visual.transformer.resblocks.0.ln_1.weight", "CLIP with a vision transformer"),
        ("module.layer1.0.prelu.weight", "iresnet"),
        ("conv2_x.0.residual.0.weight", "stochastic depth"),
        ("features.output.fc1.fc.weight", "pytorchcv's AlexNet"),
        ("inception_3a_1x1.weight", "BN-Inception"),
        ("cell_stem_0.conv_1x1.conv.weight", "NASNet"),
        ("stage_a.0.path1.conv.weight", "PolyNet"),
        ("model.22.dfl.conv.weight", "YOLO"),
        ("bbox_head.fc_cls.weight", "detector"),
        ("blocks.0.attn.qkv.weight", "vision transformer"),
    ],
)
def test_each_is_told_by_one_name(name: str, told: str) -> None:
    found = stranger(["conv1.weight", name, "fc.weight"])
    assert found is not None and told in found


def test_a_residual_network_is_no_stranger() -> None:
    with torch.device("meta"):
        names = torchvision.models.resnext50_32x4d().state_dict()
    assert stranger(names) is None


def test_the_message_begins_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.pth"
    state = {
        "visual.conv1.weight": torch.rand(32, 3, 3, 3),
        "visual.attnpool.positional_embedding": torch.rand(50, 64),
    }
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"clip\.pth is the image encoder of a CLIP ResNet"):
        identify(read_checkpoint(path))
