"""The module of a checkpoint: in evaluation mode, without a copy of the weights."""

from pathlib import Path

import torch
from torch import nn

from resdeploy.export.checkpoint.build import build_module
from resdeploy.export.checkpoint.identify import identify
from resdeploy.export.checkpoint.read import read_checkpoint
from tests.builders import randomize_batch_norms
from tests.export.checkpoint.conftest import saved, untrained


def test_checkpoints_from_before_batch_norm_counted(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    module = untrained()
    state = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    torch.save(state, path)
    checkpoint = read_checkpoint(path)
    other = build_module(checkpoint, identify(checkpoint))
    x = torch.ones(1, 3, 32, 32)
    torch.testing.assert_close(other(x), module(x), rtol=0, atol=0)


def test_weights_are_shared_and_nothing_is_trained(tmp_path: Path) -> None:
    checkpoint = saved(untrained(), tmp_path)
    module = build_module(checkpoint, identify(checkpoint))
    weight = module.get_parameter("layer1.0.conv1.weight")
    values = checkpoint.tensors["layer1.0.conv1.weight"]
    assert weight.data_ptr() == values.ctypes.data
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert {p.device.type for p in module.parameters()} == {"cpu"}


def test_a_linear_layer_saved_as_a_convolution_is_reshaped(tmp_path: Path) -> None:
    module = randomize_batch_norms(untrained())
    state = module.state_dict()
    state["fc.weight"] = state["fc.weight"][:, :, None, None]
    torch.save(state, tmp_path / "model.pth")
    checkpoint = read_checkpoint(tmp_path / "model.pth")
    other = build_module(checkpoint, identify(checkpoint))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(other(x), module(x), rtol=0, atol=0)


def test_settings_reach_the_module(tmp_path: Path) -> None:
    checkpoint = saved(untrained(), tmp_path)
    module = build_module(checkpoint, identify(checkpoint, assume={"bn_eps": "1e-3"}))
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == 12 and {norm.eps for norm in norms} == {1e-3}
