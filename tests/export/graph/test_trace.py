"""Both exporters give a quiet, dynamic graph with its batch norms; the module is only read."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from resdeploy.deploy.errors import GraphError, InputError
from resdeploy.export.graph import trace as tracing
from resdeploy.export.graph.fold_batchnorm import fold_batchnorm
from resdeploy.export.graph.onnx_file import operators, opset
from resdeploy.export.graph.simplify import simplify
from resdeploy.export.graph.trace import trace

Build = Callable[[str], nn.Module]
Run = Callable[[onnx.ModelProto, np.ndarray], np.ndarray]


class Tiny(nn.Module):
    def __init__(self, finish: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.finish = finish

    def forward(self, x: torch.Tensor) -> object:
        return self.finish(self.conv(x))


def pooled(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3))


@pytest.fixture
def no_torchscript(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a future torch that has dropped the TorchScript exporter."""

    def gone(*_: object) -> onnx.ModelProto:
        raise RuntimeError("dynamo=False is no longer supported")

    monkeypatch.setattr(tracing, "torchscript_graph", gone)


def test_batch_norms_are_still_there_under_their_parameters_names(network: Build) -> None:
    model = trace(network("resnet"), input_size_px=32)
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == operators(model)["Conv"] == 12
    assert norms[0].input[1:] == ["bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"]


def test_parameters_of_equal_value_stay_apart() -> None:
    module = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)) for _ in range(3)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    result = fold_batchnorm(trace(module, input_size_px=8))
    assert len(result.folded) == 3 and result.left == 0


@pytest.mark.parametrize("name", ["resnet", "resnext", "mobilenet_v2", "cifar", "headless"])
@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_logits_are_pytorchs_at_any_batch(
    network: Build, run: Run, name: str, batch: int, cache: dict[str, onnx.ModelProto]
) -> None:
    module = network(name)
    size_px = (32, 32 if name == "cifar" else 64)  # that one pools with a square window
    if name not in cache:
        cache[name] = simplify(fold_batchnorm(trace(module, input_size_px=size_px)).model)
    images = np.random.default_rng(batch).standard_normal((batch, 3, *size_px), np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    assert np.abs(run(cache[name], images) - expected).max() <= 1e-5 * max(1, abs(expected).max())


@pytest.fixture(scope="module")
def cache() -> dict[str, onnx.ModelProto]:
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "cifar"])
def test_the_second_exporter_leads_to_the_same_graph(
    network: Build, run: Run, name: str, request: pytest.FixtureRequest
) -> None:
    module = network(name)
    first = simplify(fold_batchnorm(trace(module, input_size_px=32)).model)
    request.getfixturevalue("no_torchscript")
    second = simplify(fold_batchnorm(trace(module, input_size_px=32)).model)
    assert operators(first) == operators(second)
    assert opset(second) == 17 and second.ir_version == 8
    for one, other in zip(first.graph.node, second.graph.node, strict=True):
        assert (one.name, one.input, one.output) == (other.name, other.input, other.output)
    images = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
    np.testing.assert_allclose(run(first, images), run(second, images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", range(13, 21))
def test_every_opset_gives_the_same_operators(network: Build, version: int) -> None:
    traced = trace(network("cifar"), input_size_px=16, opset=version)
    model = simplify(fold_batchnorm(traced).model)
    assert opset(model) == version
    assert set(operators(model)) <= {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_torchscript")
@pytest.mark.parametrize("version", [13, 20])
def test_the_second_exporter_reaches_the_ends_of_the_opset_range(version: int) -> None:
    model = simplify(trace(Tiny(pooled).eval(), input_size_px=8, opset=version))
    assert opset(model) == version
    assert operators(model) == {"Conv": 1, "Flatten": 1, "GlobalAveragePool": 1}


@pytest.mark.parametrize("version", [12, 21])
def test_opsets_outside_the_range_are_refused(version: int) -> None:
    with pytest.raises(InputError, match=f"opset {version} is not supported: expected 13 to 20"):
        trace(Tiny(pooled).eval(), input_size_px=8, opset=version)


def test_nothing_is_printed_and_nothing_warns(
    network: Build, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    simplify(trace(network("cifar"), input_size_px=16, opset=13))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_the_module_is_left_as_it_was(network: Build) -> None:
    module = network("resnet")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    trace(module, input_size_px=32)
    assert not any(part.training for part in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


_EXPORT = """
import hashlib, torch
from torch import nn
from resdeploy.export.graph.fold_batchnorm import fold_batchnorm
from resdeploy.export.graph.simplify import simplify
from resdeploy.export.graph.trace import trace

def fingerprint():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()
    model = simplify(fold_batchnorm(trace(module, input_size_px=16)).model)
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
"""


@pytest.mark.slow
def test_two_exports_are_equal_byte_for_byte_also_in_two_processes() -> None:
    here: dict[str, Callable[[], str]] = {}
    exec(_EXPORT, here)
    first, second = here["fingerprint"](), here["fingerprint"]()
    elsewhere = subprocess.run(
        [sys.executable, "-c", f"{_EXPORT}\nprint(fingerprint())"],
        env={"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert first == second == elsewhere


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(network: Build) -> None:
    data = simplify(trace(network("cifar"), input_size_px=16)).SerializeToString()
    for trace_of in (b".py", b"torch", b"/home", b"/usr", b"site-packages"):
        assert trace_of not in data


def test_training_mode_is_the_callers_mistake(network: Build) -> None:
    module = network("resnet")
    module.get_submodule("layer1.0.bn1").train()
    with pytest.raises(ValueError, match="training mode"):
        trace(module, input_size_px=32)


def test_half_weights_are_refused(network: Build) -> None:
    with pytest.raises(GraphError, match=r"weight conv1\.weight is float16, expected float32"):
        trace(network("resnet").half(), input_size_px=32)


@pytest.mark.slow
def test_a_module_that_does_not_run_is_refused_in_one_line() -> None:
    with pytest.raises(GraphError, match="torch cannot trace Linear at input size 8x8") as caught:
        trace(nn.Linear(3, 2).eval(), input_size_px=8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("finish", "got"),
    [
        (lambda x: (pooled(x), pooled(x)), "2 outputs"),
        (lambda x: x, r"an output of shape \['batch', 4, 6, 6\]"),
    ],
)
def test_other_outputs_than_logits_are_refused(
    finish: Callable[[torch.Tensor], object], got: str
) -> None:
    with pytest.raises(GraphError, match=f"Tiny gives {got}, expected one float32 tensor"):
        trace(Tiny(finish).eval(), input_size_px=8)


@pytest.mark.parametrize(
    "finish",
    [
        lambda x: pooled(x).view(2, -1),
        lambda x: pooled(x) + torch.arange(float(int(x.shape[0]))).reshape(-1, 1),
        lambda x: pooled(x) - pooled(x).mean(0, keepdim=True),
    ],
    ids=["view", "baked-constant", "mixes-the-batch"],
)
def test_a_batch_that_is_not_dynamic_is_found(
    finish: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    with pytest.raises(GraphError, match="batch"):
        simplify(trace(Tiny(finish).eval(), input_size_px=8))
