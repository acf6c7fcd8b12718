"""The canonical form, and a simplification that would change the function being found out."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser
from torch import nn

from resdeploy.deploy.defaults import OPSET
from resdeploy.deploy.errors import GraphError
from resdeploy.export.graph.edits import Rewrites
from resdeploy.export.graph.fold_batchnorm import fold_batchnorm
from resdeploy.export.graph.global_pool import use_global_pool
from resdeploy.export.graph.onnx_file import operators
from resdeploy.export.graph.simplify import simplify, simplify_and_report
from resdeploy.export.graph.trace import trace

Build = Callable[[str], nn.Module]
CANONICAL = {"Conv", "Relu", "Clip", "MaxPool", "Add", "GlobalAveragePool", "Flatten", "Gemm"}


@pytest.mark.parametrize("name", ["resnet", "resnext", "mobilenet_v2", "cifar", "headless"])
def test_only_canonical_operators_are_left(network: Build, name: str) -> None:
    model = simplify(fold_batchnorm(trace(network(name), input_size_px=32)).model)
    assert set(operators(model)) <= CANONICAL
    assert model.opset_import[0].version == OPSET and model.ir_version == 8
    assert not model.metadata_props and not any(node.doc_string for node in model.graph.node)
    assert all(tensor.HasField("raw_data") for tensor in model.graph.initializer)
    shape = model.graph.output[0].type.tensor_type.shape
    assert shape.dim[0].dim_param == "batch" and shape.dim[1].dim_value > 0


def test_a_batch_norm_that_was_declined_is_not_folded_behind_our_back(network: Build) -> None:
    model = simplify(trace(network("resnet"), input_size_px=32))
    assert operators(model)["BatchNormalization"] == 12


def test_what_the_passes_did_is_reported(network: Build) -> None:
    rewrites = simplify_and_report(trace(network("cifar"), input_size_px=16)).rewrites
    assert rewrites["pad_shortcut"] == Rewrites(2)
    # older torch traces this network with its second exporter, after which nothing is left to pool
    assert rewrites["global_pool"] in (Rewrites(2), Rewrites(0)) and len(rewrites) == 2


def test_equal_weights_of_two_layers_are_not_merged() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(3, 3, 1) for _ in range(2)), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    for parameter in module.parameters():
        nn.init.ones_(parameter)
    model = simplify(trace(module, input_size_px=8))
    assert {tensor.name for tensor in model.graph.initializer} == {
        *("0.weight", "0.bias", "1.weight", "1.bias")
    }


def test_the_given_graph_and_its_metadata_survive(network: Build) -> None:
    model = trace(network("cifar"), input_size_px=16)
    model.metadata_props.add(key="note", value="kept")
    before = model.SerializeToString()
    assert [entry.value for entry in simplify(model).metadata_props] == ["kept"]
    assert model.SerializeToString() == before


def test_a_rewrite_that_changes_the_function_is_refused(
    network: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(graph: ir.Graph) -> Rewrites:
        bias = graph.initializers["linear.bias"]
        assert bias.const_value is not None
        bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(1e-3))
        return use_global_pool(graph)

    monkeypatch.setattr("resdeploy.export.graph.simplify.use_global_pool", faulty)
    with pytest.raises(GraphError, match="the simplified graph differs from the traced one by"):
        simplify(trace(network("cifar"), input_size_px=16))


def test_a_graph_onnxsim_cannot_take_is_refused_in_one_line() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "agraph (float[batch, 3, 4, 4] input) => (float[batch, 3] logits)"
        "{ logits = Gemm(nowhere, weight) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 3), np.float32), "weight"))
    with pytest.raises(GraphError) as caught:
        simplify(model)
    assert "\n" not in str(caught.value)
