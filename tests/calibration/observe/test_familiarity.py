"""Images unlike those of training are noticed by the statistics that batch norms stored."""

import numpy as np
import onnx
import pytest

from resdeploy.calibration.graph.layers import with_biases
from resdeploy.calibration.observe.familiarity import Familiarity, familiarity
from resdeploy.calibration.observe.gather import Observations, gather
from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.channel_statistics import ChannelStatistics
from tests.builders import TWO_LAYERS, graph_of

_TENSORS = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (8, 16, 3, 3), "b2": (8,)}


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    random = np.random.default_rng(3)
    model = graph_of(
        TWO_LAYERS, {name: random.normal(0, 0.3, shape) for name, shape in _TENSORS.items()}
    )
    return with_biases(model)


def _images(count: int, scale: float = 1.0) -> Float32s:
    noise = np.random.default_rng(count).standard_normal((count, 3, 16, 16), np.float32)
    return np.asarray(scale * noise, np.float32)


def _observed(model: onnx.ModelProto, images: Float32s) -> Observations:
    return gather(model, lambda: [images], len(images), threads=1)


def _statistics(model: onnx.ModelProto) -> dict[str, ChannelStatistics]:
    """Of every layer's output on many images, as a batch norm would have them."""
    from resdeploy.calibration.observe.collect import collect

    class Outputs:
        needs = "whole"

        def update(self, values: Float32s) -> None:
            self.values = np.moveaxis(values.astype(np.float64), 1, 0).reshape(values.shape[1], -1)

    first, second = Outputs(), Outputs()
    collect(model, [_images(200)], {"c1": [first], "c2": [second]})  # type: ignore[list-item]
    return {
        name: ChannelStatistics(seen.values.mean(axis=1), seen.values.std(axis=1))
        for name, seen in (("w1", first), ("w2", second))
    }


def test_images_like_those_of_training_are_familiar(model: onnx.ModelProto) -> None:
    found = familiarity(_observed(model, _images(16)), _statistics(model))
    assert found is not None and found.layers == 2
    assert found.distance < 0.1
    assert found.spread == pytest.approx(1.0, abs=0.1)
    assert not found.unfamiliar


def test_images_that_hardly_vary_are_not(model: onnx.ModelProto) -> None:
    found = familiarity(_observed(model, _images(16, scale=0.05)), _statistics(model))
    assert found is not None and found.unfamiliar
    assert found.spread < 0.1
    assert f"vary {found.spread:.2f} times" in found.remark()


def test_few_images_or_no_statistics_say_nothing(model: onnx.ModelProto) -> None:
    assert familiarity(_observed(model, _images(7)), _statistics(model)) is None
    assert familiarity(_observed(model, _images(16)), {}) is None


@pytest.mark.parametrize(
    ("distance", "spread", "unfamiliar"),
    [(0.26, 0.9, False), (1.3, 1.0, False), (0.34, 0.83, False), (0.35, 0.67, True)],
)
def test_both_must_be_beyond_what_is_usual(
    distance: float, spread: float, unfamiliar: bool
) -> None:
    assert Familiarity(52, distance, spread).unfamiliar == unfamiliar
