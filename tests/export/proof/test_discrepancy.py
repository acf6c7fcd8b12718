"""Distances are without bias at any number of images; where an alternative lies."""

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.export.proof.batchnorm_statistics import Layer
from resdeploy.export.proof.discrepancy import compare, products, score

_CHANNELS = 64


def _layer(images: int, *, shift: float = 0.0, scale: float = 1.0, seed: int) -> Layer:
    """Images whose own means vary by 0.3, 49 positions each; the stored statistics are true ones.

    Values are N(mean + shift, (0.3² + 1) scale²) where N(mean, 0.3² + 1) is stored.
    """
    random = np.random.default_rng(seed)
    true_mean = np.linspace(-1, 1, _CHANNELS)
    centres = random.normal(0, 0.3, (images, _CHANNELS, 1))
    values = true_mean[:, None] + scale * (centres + random.normal(0, 1, (images, _CHANNELS, 49)))
    values += shift
    return Layer(
        name="bn",
        stored_mean=true_mean,
        stored_variance=np.full(_CHANNELS, 1.09),
        eps=1e-5,
        means=values.mean(axis=2).astype(np.float32),
        variances=values.var(axis=2).astype(np.float32),
    )


def _distance(vectors: Float32s) -> float:
    return score(products([vectors], [vectors])).value


def _mean_product(vectors: Float32s) -> float:
    """D of the module's docstring; `score` cuts it at zero."""
    gram = vectors.astype(np.float64) @ vectors.T
    count = len(vectors)
    return float((gram.sum() - np.trace(gram)) / (count * (count - 1)))


@pytest.mark.parametrize("images", [8, 24, 96])
def test_the_right_statistics_are_at_distance_zero_at_any_number_of_images(images: int) -> None:
    found, plain = [], []
    for seed in range(40):
        vectors = _layer(images, seed=seed).vectors()
        found.append(_mean_product(vectors))
        plain.append(float((vectors.mean(axis=0) ** 2).sum()))
    # within four standard errors, and far below what sampling adds to the plain square
    assert abs(np.mean(found)) < max(4 * np.std(found) / np.sqrt(40), 2e-4)
    assert np.mean(plain) > 0.03 / images
    assert abs(np.mean(found)) < 0.15 * np.mean(plain)


@pytest.mark.parametrize(("shift", "scale"), [(0.3, 1.0), (0.0, 1.2), (-0.2, 0.9)])
def test_a_wrong_mean_or_variance_is_as_far_as_its_divergence(shift: float, scale: float) -> None:
    found = np.mean(
        [_mean_product(_layer(24, shift=shift, scale=scale, seed=s).vectors()) for s in range(20)]
    )
    expected = shift**2 / (2 * 1.09) + np.log(scale**2) ** 2 / 4
    assert found == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("images", [16, 64])
def test_the_position_is_zero_at_the_right_contract_and_one_at_the_other(images: int) -> None:
    """The alternative shifts every channel; both see the same images, as with real ones."""
    right = _layer(images, seed=1).vectors()
    wrong = _layer(images, shift=0.25, seed=1).vectors()
    own, other = products([right], [right]), products([wrong], [wrong])
    forth = compare(own, other, products([right], [wrong]))
    back = compare(other, own, products([wrong], [right]))
    assert forth.position == pytest.approx(0, abs=0.25)
    assert forth.high < 0.5
    assert back.position == pytest.approx(1 - forth.position, abs=1e-6)
    assert back.low > 0.5
    assert forth.strength == pytest.approx(back.strength, rel=1e-6)


def test_an_alternative_that_changes_nothing_has_no_effect() -> None:
    vectors = _layer(16, seed=2).vectors()
    own = products([vectors], [vectors])
    found = compare(own, own, own)
    assert (found.effect, found.strength) == (0, 0)


def test_a_layer_without_a_finite_value_is_far_and_not_an_error() -> None:
    layer = _layer(8, seed=3)
    broken = Layer(
        layer.name,
        layer.stored_mean,
        layer.stored_variance,
        layer.eps,
        np.full_like(layer.means, np.nan),
        layer.variances,
    )
    assert _distance(broken.vectors()) > 10
