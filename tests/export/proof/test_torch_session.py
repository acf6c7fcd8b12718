"""PyTorch as a session: the module's own logits, in evaluation mode, from any number of threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from resdeploy.deploy.bundle.manifest import input_spec, output_spec
from resdeploy.deploy.errors import InputError
from resdeploy.deploy.specs import TensorSpec
from resdeploy.export.proof.torch_session import TorchSession


@pytest.fixture
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 5),
    )  # fmt: skip


def test_it_gives_the_modules_logits_in_evaluation_mode(module: torch.nn.Module) -> None:
    inputs = np.random.default_rng(0).standard_normal((70, 3, 8, 8)).astype(np.float32)
    with TorchSession(module, input_spec(8, 8), (output_spec(5),)) as session:
        logits = session.run(inputs)
        assert session.input.shape == ("batch", 3, 8, 8) and session.output.shape == ("batch", 5)
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_threads_share_one_session(module: torch.nn.Module) -> None:
    random = np.random.default_rng(1)
    batches = [random.standard_normal((8, 3, 8, 8)).astype(np.float32) for _ in range(12)]
    session = TorchSession(module, input_spec(8, 8), (output_spec(5),))
    with ThreadPoolExecutor(4) as pool:
        for batch, logits in zip(batches, pool.map(session.run, batches), strict=True):
            np.testing.assert_allclose(logits, session.run(batch), atol=1e-6)


class _TwoMaps(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, 8, 8) to maps of 4 and of 2 pixels."""
        return images[:, :, ::2, ::2], images[:, :2, ::4, ::4]


def test_a_backbones_maps_come_by_name_however_many_images_there_are() -> None:
    outputs = tuple(
        TensorSpec(name, ("batch", *sizes), "float32")
        for name, sizes in (("C2", (3, 4, 4)), ("C3", (2, 2, 2)))
    )
    inputs = np.random.default_rng(2).standard_normal((70, 3, 8, 8)).astype(np.float32)
    session = TorchSession(_TwoMaps(), input_spec(8, 8), outputs)
    maps = session.run_all(inputs)
    assert list(maps) == ["C2", "C3"]
    np.testing.assert_array_equal(maps["C2"], inputs[:, :, ::2, ::2])
    np.testing.assert_array_equal(maps["C3"], inputs[:, :2, ::4, ::4])
    np.testing.assert_array_equal(session.run(inputs), maps["C3"])


def test_a_wrong_batch_is_refused(module: torch.nn.Module) -> None:
    session = TorchSession(module, input_spec(8, 8), (output_spec(5),))
    with pytest.raises(InputError, match=r"expected float32 of shape \(N, 3, 8, 8\)"):
        session.run(np.zeros((1, 3, 9, 8), np.float32))
