"""Names follow the parameters: the same for both exporters, unique, telling."""

from collections.abc import Callable

import onnx
import pytest
from torch import nn

from resdeploy.export.graph.fold_batchnorm import fold_batchnorm
from resdeploy.export.graph.simplify import simplify
from resdeploy.export.graph.trace import trace

Build = Callable[[str], nn.Module]


def canonical(module: nn.Module) -> onnx.ModelProto:
    return simplify(fold_batchnorm(trace(module, input_size_px=32)).model)


def test_a_residual_network(network: Build) -> None:
    names = [node.name for node in canonical(network("resnext")).graph.node]
    assert names[:3] == ["conv1", "conv1.relu", "max_pool"]
    assert {
        *("layer2.0.conv1", "layer2.0.conv1.relu", "layer2.0.conv2", "layer2.0.conv2.relu"),
        *("layer2.0.conv3", "layer2.0.downsample.0", "layer2.0.add", "layer2.0.relu"),
    } <= set(names)
    assert names[-3:] == ["global_average_pool", "flatten", "fc"]


def test_linear_bottlenecks_are_added_in_the_later_block(network: Build) -> None:
    names = [node.name for node in canonical(network("mobilenet_v2")).graph.node]
    assert [name for name in names if name.endswith("add")] == [
        "features.3.conv.add",
        "features.5.conv.add",
    ]
    assert names[:2] == ["features.0.0", "features.0.0.clip"]


def test_a_shortcut_without_weights_is_named_in_its_block(network: Build) -> None:
    model = canonical(network("cifar"))
    assert [node.name for node in model.graph.node if "shortcut" in node.name] == [
        "layer2.0.shortcut",
        "layer3.0.shortcut",
    ]
    assert "layer2.0.shortcut.weight" in {tensor.name for tensor in model.graph.initializer}


def test_batch_norms_that_stay_have_their_parameters_names(network: Build) -> None:
    """Also a head without bias, which the exporter writes as MatMul of a transposed weight."""
    model = canonical(network("preact"))
    names = [node.name for node in model.graph.node]
    assert [name for name in names if "bn" in name] == [
        *("layer1.0.bn1", "layer1.0.bn1.relu", "layer1.1.bn1", "layer1.1.bn1.relu"),
        *("bn", "bn.relu"),
    ]
    assert [name for name in names if "add" in name] == ["layer1.0.add", "layer1.1.add"]
    assert names[-1] == "fc" and model.graph.node[-1].op_type == "Gemm"


@pytest.mark.parametrize(
    "name", ["resnet", "resnext", "mobilenet_v2", "cifar", "headless", "preact"]
)
def test_names_are_unique_and_tensors_follow_their_node(network: Build, name: str) -> None:
    model = canonical(network(name))
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]
    for node in model.graph.node[:-1]:
        assert list(node.output) == [f"{node.name}_output"]
        if node.op_type == "Conv" and len(node.input) > 2:
            assert list(node.input[1:]) == [f"{node.name}.weight", f"{node.name}.bias"]
    constants = {tensor.name for tensor in model.graph.initializer}
    assert {name for name in constants if "clip" in name} <= {"clip_min_0", "clip_max_6"}
    described = {value.name for value in model.graph.value_info}
    assert described == {node.output[0] for node in model.graph.node[:-1]}
