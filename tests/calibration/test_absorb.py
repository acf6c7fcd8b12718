"""A graph run in pieces gives the whole graph's tensors; absorbing takes out systematic errors."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from resdeploy.calibration.absorb import absorb
from resdeploy.calibration.draft import Draft, rounded
from resdeploy.calibration.layers import layers
from resdeploy.calibration.plan import PlanTarget
from resdeploy.calibration.prefix import Prefix
from resdeploy.calibration.ranges import Range
from resdeploy.calibration.sensitivity import logits, quantized_nodes, shares
from resdeploy.calibration.statistics import gather
from resdeploy.deploy.compare import sqnr_db
from resdeploy.deploy.ort import OrtSession
from resdeploy.deploy.specs import Variant

Graphs = Callable[[str], onnx.ModelProto]
Floats = npt.NDArray[np.float32]


def _batches(model: onnx.ModelProto, pictures: int, seed: int = 5) -> list[Floats]:
    """Smooth random pictures, whose errors correlate as those of photographs do."""
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    random = np.random.default_rng(seed)
    coarse = random.standard_normal((pictures, 3, size // 8, size // 8)).astype(np.float32)
    smooth = coarse.repeat(8, axis=2).repeat(8, axis=3)
    return np.split(smooth, max(1, pictures // 8))


def _draft(model: onnx.ModelProto, target: PlanTarget = "tensorrt") -> Draft:
    batches = _batches(model, 32)
    statistics = gather(model, lambda: batches, 32, threads=1)
    draft = Draft(model, target, statistics.ranges("minmax", target))
    return rounded(draft, statistics.moments)


def test_pieces_give_the_tensors_of_the_whole(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    batches = _batches(model, 8)
    prefix = Prefix(model, batches, 1)
    for layer in layers(model):
        prefix.at(layer.input)
    (got,) = prefix.at(model.graph.output[0].name)
    with OrtSession(model.SerializeToString(), threads=1) as session:
        np.testing.assert_allclose(got, session.run(batches[0]), atol=1e-5)


def test_a_change_holds_from_the_layer_it_is_made_for(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    first, second = layers(model)[:2]
    prefix = Prefix(model, _batches(model, 8), 1)
    prefix.at(first.input)
    silence: dict[str, Floats] = {
        first.weight: np.zeros(first.shape, np.float32),
        first.bias: np.full(first.shape[0], 0.5, np.float32),
    }
    (read,) = prefix.at(second.input, silence)
    np.testing.assert_array_equal(read, 0.5)


@pytest.mark.parametrize("target", ["tensorrt", "cpu"])
def test_absorbing_helps_on_other_pictures(float_graph: Graphs, target: PlanTarget) -> None:
    model = float_graph("cifar_resnet8")
    draft = _draft(model, target)
    # Ranges that saturate: an error that depends on the signal, and so can be absorbed.
    tight = {t: Range(r.low * 0.5, r.high * 0.5) for t, r in draft.ranges.items()}
    draft = replace(draft, ranges=tight)
    better = absorb(draft, _batches(model, 32), threads=1)
    held = _batches(model, 16, seed=9)
    expected = logits(model.SerializeToString(), "fp32", held, 1)
    variant: Variant = "int8" if target == "tensorrt" else "int8-cpu"
    before, after = (
        sqnr_db(expected, logits(d.graph().SerializeToString(), variant, held, 1))
        for d in (draft, better)
    )
    assert after > before + 1


def test_shares_find_the_broken_layer(float_graph: Graphs) -> None:
    model = float_graph("cifar_resnet8")
    draft = _draft(model)
    broken = draft.layers[3]
    weights = dict(draft.weights)
    good = weights[broken.weight]
    weights[broken.weight] = replace(good, values=(good.values // 16) * 16)
    measured = shares(replace(draft, weights=weights), _batches(model, 8), threads=1)
    assert next(iter(measured)) == broken.name
    assert sum(measured.values()) == pytest.approx(1, abs=0.4)
    assert set(measured) == set(quantized_nodes(draft))
