"""What a network does to its own input moves into the preprocessing, in files and proofs."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resdeploy.deploy.bundle.bundle import REFERENCE, read_bundle
from resdeploy.deploy.bundle.reference import read_reference
from resdeploy.deploy.images.preprocess import named
from resdeploy.export.pipeline import ExportOptions, export_checkpoint
from resdeploy.export.proof.live import open_checkpoint
from tests.builders import randomize_batch_norms

SIZE_PX = 16


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        total: torch.Tensor = self.conv2(F.relu(self.bn2(y))) + x
        return total


class NormedInput(nn.Module):
    """Pre-activation, with a batch norm in front of the first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(3)
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.layer1 = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer1(self.conv1(self.input_norm(x)))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, NormedInput]:
    folder = tmp_path_factory.mktemp("normed")
    module = randomize_batch_norms(NormedInput())
    torch.save(module.state_dict(), folder / "model.pth")
    report = export_checkpoint(
        folder / "model.pth",
        ExportOptions(output=folder / "model.bundle", input_size_px=SIZE_PX),
    )
    return folder / "model.pth", report.bundle, module


def test_mean_and_std_are_those_of_the_norm(
    exported: tuple[Path, Path, NormedInput],
) -> None:
    _, bundle, module = exported
    manifest = read_bundle(bundle).manifest
    usual = named("cifar", SIZE_PX)
    norm = module.input_norm
    assert norm.running_var is not None and norm.running_mean is not None
    s = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
    t = norm.bias.detach().numpy() - s * norm.running_mean.numpy()
    np.testing.assert_allclose(manifest.preprocess.std, np.array(usual.std) / s, rtol=1e-6)
    expected = np.array(usual.mean) - t * np.array(usual.std) / s
    np.testing.assert_allclose(manifest.preprocess.mean, expected, rtol=0, atol=1e-6)
    assert manifest.proofs["input_fold"]["mean"] == list(manifest.preprocess.mean)
    assert manifest.proofs["parity"]["max_abs"] < 1e-5
    fold = manifest.proofs["batchnorm_fold"]
    assert fold["left"] == 2
    assert set(fold["declined"]) == {"input_norm", "layer1.0.bn1", "layer1.1.bn1"}
    assert fold["passes"]["global_pool"] == {"rewritten": 0, "declined": {}}


def test_the_checkpoint_opened_again_answers_the_same_inputs(
    exported: tuple[Path, Path, NormedInput],
) -> None:
    checkpoint, bundle, _ = exported
    reference = read_reference(bundle / REFERENCE)
    live = open_checkpoint(checkpoint, read_bundle(bundle).manifest)
    got = live.session.run(reference.inputs)
    np.testing.assert_allclose(got, reference.logits, rtol=0, atol=1e-5)
