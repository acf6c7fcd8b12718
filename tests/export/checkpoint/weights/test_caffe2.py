"""Detectron's first model zoo: blobs of a ResNet whose norms are a scale and a shift."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models as models

from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.builders import randomize_batch_norms


def blob(name: str) -> str:
    """Caffe2's name of torchvision's convolution, norm or head."""
    if name in ("conv1", "bn1"):
        return {"conv1": "conv1", "bn1": "res_conv1_bn"}[name]
    if name == "fc":
        return "fc1000"
    layer, block, part, *rest = name.split(".")
    stage = int(layer.removeprefix("layer")) + 1
    if part == "downsample":
        return f"res{stage}_{block}_branch1" + ("_bn" if rest == ["1"] else "")
    kind, number = part[:-1], "abc"[int(part[-1]) - 1]
    return f"res{stage}_{block}_branch2{number}" + ("_bn" if kind == "bn" else "")


@pytest.mark.slow
def test_blobs_are_the_network_that_strides_in_its_1x1(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = randomize_batch_norms(models.resnet50(num_classes=3))
    blobs = {"lr": np.float32(0.1).reshape(1)}
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.zero_()
            part.running_var.fill_(1 - 1e-5)
            blobs[f"{blob(name)}_s"] = part.weight.detach().numpy()
            blobs[f"{blob(name)}_b"] = part.bias.detach().numpy()
        elif isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            blobs[f"{blob(name)}_w"] = part.weight.detach().numpy()
            if part.bias is not None:
                blobs[f"{blob(name)}_b"] = part.bias.detach().numpy()
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": dict(sorted(blobs.items()))}, 2))
    checkpoint = read_checkpoint(tmp_path / "R-50.pkl")
    assert "ignored: 1 blobs that are no part of the network" in checkpoint.notes
    architecture = identify(checkpoint)
    assert (architecture.name, architecture.classes) == ("resnet50", 3)
    assert (architecture.settings["stride"], architecture.settings["channels"]) == ("1x1", "bgr")
    assert checkpoint.sidecar is not None and checkpoint.sidecar.normalization is not None

    for stage in (module.layer2, module.layer3, module.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = module(x.flip(1))
        limit = 1e-5 * float(wanted.abs().max())
        other = build_module(checkpoint, architecture)
        torch.testing.assert_close(other(x), wanted, rtol=0, atol=limit)
