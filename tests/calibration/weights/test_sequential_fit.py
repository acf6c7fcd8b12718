"""The sequential fit takes out errors that follow from what a layer reads."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from resdeploy.calibration.graph.layers import constants, with_biases
from resdeploy.calibration.observe.gather import gather
from resdeploy.calibration.ranges.ranges import Range
from resdeploy.calibration.repair.run import logits
from resdeploy.calibration.weights.draft import Draft, rounded
from resdeploy.calibration.weights.sequential_fit import _highest, sequential_fit
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.metrics.logits import sqnr_db
from resdeploy.deploy.targets import TARGETS, TENSORRT, Target

Graphs = Callable[[str], onnx.ModelProto]


def _batches(model: onnx.ModelProto, images: int, seed: int = 5) -> list[Float32s]:
    """Smooth random images, whose errors correlate as those of photographs do."""
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    random = np.random.default_rng(seed)
    coarse = random.standard_normal((images, 3, size // 8, size // 8)).astype(np.float32)
    smooth = coarse.repeat(8, axis=2).repeat(8, axis=3)
    return np.split(smooth, max(1, images // 8))


@pytest.fixture
def model(float_graph: Graphs) -> onnx.ModelProto:
    return with_biases(float_graph("cifar_resnet8"))


def _draft(model: onnx.ModelProto, target: Target = TENSORRT) -> Draft:
    batches = _batches(model, 32)
    observed = gather(model, lambda: batches, 32, threads=1)
    draft = Draft(model, target, observed.ranges("minmax", target))
    return rounded(draft, observed.moments)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_the_fit_helps_on_other_images(model: onnx.ModelProto, target: Target) -> None:
    draft = _draft(model, target)
    # Ranges that saturate: an error that depends on the signal, which the fit can take out.
    tight = {t: Range(r.low * 0.5, r.high * 0.5) for t, r in draft.ranges.items()}
    draft = replace(draft, ranges=tight)
    better = sequential_fit(draft, _batches(model, 32), threads=1)
    held = _batches(model, 16, seed=9)
    expected = logits(model.SerializeToString(), "fp32", held, 1)
    before, after = (
        sqnr_db(expected, logits(d.graph().SerializeToString(), target.variant, held, 1))
        for d in (draft, better)
    )
    assert after > before + 1


@pytest.mark.parametrize("target", TARGETS)
def test_the_logits_of_the_fitted_images_have_the_float_mean(
    model: onnx.ModelProto, target: Target
) -> None:
    batches = _batches(model, 32)
    draft = _draft(model, target)
    expected = logits(model.SerializeToString(), "fp32", batches, 1)
    off = [
        float(np.abs((_answers(d, batches) - expected).mean(axis=0)).max() / expected.std())
        for d in (draft, sequential_fit(draft, batches, threads=1))
    ]
    assert off[1] < 2e-3 < off[0]


@pytest.mark.parametrize("target", TARGETS)
def test_the_logits_of_the_fitted_images_have_the_float_size(
    model: onnx.ModelProto, target: Target
) -> None:
    batches = _batches(model, 32)
    draft = _draft(model, target)
    coarse = {t: Range(r.low * 8, r.high * 8) for t, r in draft.ranges.items()}
    draft = sequential_fit(replace(draft, ranges=coarse), batches, threads=1)
    expected, got = logits(model.SerializeToString(), "fp32", batches, 1), _answers(draft, batches)
    (head,) = draft.floats
    assert draft.floats[head].std() != pytest.approx(constants(model)[head].std(), rel=5e-3)
    ours, theirs = (part - part.mean(axis=0) for part in (expected, got))
    assert (ours * theirs).sum() / (theirs * theirs).sum() == pytest.approx(1, abs=2e-3)


def _answers(draft: Draft, batches: list[Float32s]) -> Float32s:
    return logits(draft.graph().SerializeToString(), draft.target.variant, batches, 1)


@pytest.mark.parametrize("peak", range(6))
def test_the_best_ridge_is_found_on_either_side_of_the_middle(peak: int) -> None:
    asked: list[float] = []

    def gain(ridge: float) -> float:
        asked.append(ridge)
        return -abs(ridge - peak)

    assert _highest(tuple(range(6)), gain) == (peak, 0)
    assert len(asked) == len(set(asked)) <= 5  # a solve each
