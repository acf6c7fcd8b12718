"""Checkpoints of torch.ao's quantization-aware training, named (eager) and numbered (FX)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from torch import nn
from torchvision.models.quantization.resnet import QuantizableBasicBlock, QuantizableResNet
from torchvision.models.resnet import BasicBlock, ResNet

from resdeploy.deploy.bundle.bundle import read_bundle
from resdeploy.deploy.bundle.trained_ranges import read_trained_ranges
from resdeploy.deploy.cli.main import cli
from tests.builders import randomize_batch_norms

pytestmark = [
    # PyTorch has announced the end of torch.ao; its checkpoints stay.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.ao"),
]


def _eager() -> nn.Module:
    from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

    network = randomize_batch_norms(QuantizableResNet(QuantizableBasicBlock, [1, 1, 1, 1]))
    network.train()
    network.fuse_model(is_qat=True)
    network.qconfig = get_default_qat_qconfig("fbgemm")
    prepared: nn.Module = prepare_qat(network)
    return prepared


def _graph_mode() -> nn.Module:
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    network = randomize_batch_norms(ResNet(BasicBlock, [1, 1, 1, 1])).train()
    example = (torch.rand(1, 3, 32, 32),)
    prepared: nn.Module = prepare_qat_fx(
        network, get_default_qat_qconfig_mapping("fbgemm"), example
    )
    return prepared


@pytest.fixture(scope="module", params=["eager", "graph mode"])
def bundle(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, torch.Tensor]]]:
    """An export of a network whose observers have seen two batches, and its state_dict."""
    folder = tmp_path_factory.mktemp("ao")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = _eager() if request.param == "eager" else _graph_mode()
        for _ in range(2):
            module(torch.rand(4, 3, 32, 32))
    torch.save(module.state_dict(), folder / "qat.pth")
    words = ["export", folder / "qat.pth", "-o", folder / "qat.bundle", "--input-size", "32"]
    result = CliRunner().invoke(cli, [*map(str, words), "--precision", "fp32"])
    assert result.exit_code == 0, result.output
    yield folder / "qat.bundle", module.state_dict()


@pytest.mark.slow
def test_every_observer_is_placed(bundle: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, state = bundle
    ranges = read_trained_ranges(read_bundle(path))
    assert ranges is not None and ranges.unplaced == ()
    assert len(ranges.weights) == 13  # 9 convolutions, 3 in shortcuts, the linear layer
    eager = "conv1.activation_post_process.activation_post_process.max_val" in state
    name = "conv1.activation_post_process" if eager else "activation_post_process_1"
    peak = float(state[f"{name}.activation_post_process.max_val"])
    assert ranges.activations["conv1.relu_output"] == pytest.approx((0.0, peak))
    sums = [f"layer{stage}.0.relu_output" for stage in (1, 2, 3, 4)]
    assert all(ranges.activations[name][0] == 0 for name in sums)


@pytest.mark.slow
def test_quantize_takes_them_and_says_so(
    bundle: tuple[Path, dict[str, torch.Tensor]], image_folder: Path
) -> None:
    path, _ = bundle
    ranges = read_trained_ranges(read_bundle(path))
    assert ranges is not None
    words = ["quantize", path, "--calib", image_folder, "--ranges", "checkpoint"]
    result = CliRunner().invoke(
        cli, [*map(str, words), "--force", "--no-repair", "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["calibration"]["options"]["ranges"] == "checkpoint"
    graph = onnx.load(path / "int8.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for tensor in ("conv1.relu_output", "layer2.0.conv1.relu_output"):
        low, high = ranges.activations[tensor]
        assert stored[f"{tensor}_scale"] == pytest.approx(max(-low, high) / 127)
