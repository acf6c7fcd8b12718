"""A network that was trained for its grids keeps them: in the bundle, and in the INT8 graphs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torchvision.models.resnet import BasicBlock

from resdeploy.calibration import quantize
from resdeploy.deploy.bundle.bundle import TRAINED_RANGES, read_bundle
from resdeploy.deploy.bundle.trained_ranges import read_trained_ranges
from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.export import ExportOptions, export_checkpoint
from tests.builders import randomize_batch_norms
from tests.networks import NarrowResNet


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = randomize_batch_norms(NarrowResNet(BasicBlock, [1, 1, 1, 1], classes=5))
    weights: dict[str, torch.Tensor] = network.state_dict()
    peak = weights["layer1.0.conv1.weight"].abs().amax(dim=(1, 2, 3), keepdim=True)
    return weights | {
        "conv1._input_quantizer._amax": torch.tensor(2.0),
        "layer1.0.conv1._input_quantizer._amax": torch.tensor(3.0),
        "layer1.0.conv1._weight_quantizer._amax": 0.5 * peak,
        "layer1.0.residual_quantizer._amax": torch.tensor(4.0),
        "nowhere._input_quantizer._amax": torch.tensor(1.0),
    }


@pytest.fixture(scope="module")
def trained(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    torch.save(state, folder / "qat.pth")
    options = ExportOptions(output=folder / "qat.bundle", input_size_px=32, precisions=("fp32",))
    return export_checkpoint(folder / "qat.pth", options).bundle


def test_ranges_are_named_by_the_tensors_of_the_graph(
    trained: Path, state: dict[str, torch.Tensor]
) -> None:
    ranges = read_trained_ranges(read_bundle(trained))
    assert ranges is not None
    # What the block's first convolution and its addition read is one tensor: the wider range.
    assert ranges.activations == {"input": (-2.0, 2.0), "max_pool_output": (-4.0, 4.0)}
    assert ranges.unplaced == ("nowhere.input",)
    # Folding scales a channel and its grid alike: half the peak before is half the peak after.
    graph = onnx.load(trained / "fp32.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    folded = stored["layer1.0.conv1.weight"]
    assert not np.allclose(folded, state["layer1.0.conv1.weight"].numpy())
    expected = 0.5 * np.abs(folded).max(axis=(1, 2, 3))
    np.testing.assert_allclose(ranges.weights["layer1.0.conv1.weight"], expected, rtol=1e-5)


@pytest.mark.slow
def test_quantize_takes_them_and_measures_the_rest(trained: Path, image_folder: Path) -> None:
    report = quantize(trained, image_folder, repair=False, force=True)
    assert any("2 of" in line and "--ranges calibrate" in line for line in report.notes)
    assert report.calibration["options"]["ranges"] == "checkpoint"
    graph = onnx.load(trained / "int8.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert stored["input_scale"] == pytest.approx(2 / 127)
    assert stored["max_pool_output_scale"] == pytest.approx(4 / 127)
    ranges = read_trained_ranges(read_bundle(trained))
    assert ranges is not None
    peaks = ranges.weights["layer1.0.conv1.weight"]
    np.testing.assert_allclose(stored["layer1.0.conv1.weight_scale"], peaks / 127, rtol=1e-6)
    # To nearest, as in training.
    floats = onnx.load(trained / "fp32.onnx").graph.initializer
    weight = next(numpy_helper.to_array(t) for t in floats if t.name == "layer1.0.conv1.weight")
    nearest = np.rint(weight / (peaks / 127).reshape(-1, 1, 1, 1)).clip(-127, 127)
    apart = np.abs(stored["layer1.0.conv1.weight_quantized"] - nearest)
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3  # ties
    again = quantize(trained, image_folder, ranges="calibrate", repair=False, force=True)
    assert any("other options" in line for line in again.notes)
    graph = onnx.load(trained / "int8.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert stored["input_scale"] != pytest.approx(2 / 127, rel=1e-3)


def test_no_trained_ranges_and_altered_ones_are_refused(
    trained: Path, flower_bundle: Path, image_folder: Path
) -> None:
    with pytest.raises(InputError, match="the checkpoint had no trained ranges"):
        quantize(flower_bundle, image_folder, ranges="checkpoint")
    file = trained / TRAINED_RANGES
    text = file.read_text()
    try:
        file.write_text(text.replace("-2.0", "-9.0"))
        with pytest.raises(BundleError, match="altered since it was written"):
            quantize(trained, image_folder)
    finally:
        file.write_text(text)
