"""Mean and std are named by what they make of pixels."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.images.normalizations import NORMALIZATIONS, normalization_name
from resdeploy.deploy.images.preprocess import named


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_normalization_has_the_name_of_its_row(name: str) -> None:
    mean, std = NORMALIZATIONS[name]
    assert normalization_name(replace(named("half"), mean=mean, std=std)) == name


@pytest.mark.parametrize(
    ("name", "low", "high"), [("-1..1", -1, 1), ("0..1", 0, 1), ("0..255", 0, 255)]
)
def test_the_range_in_a_name_is_that_of_the_values(name: str, low: float, high: float) -> None:
    mean, std = NORMALIZATIONS[name]
    preprocess = replace(named("half", 8), mean=mean, std=std)
    for value, expected in ((0, low), (255, high)):
        image = Image.new("RGB", (8, 8), (value,) * 3)
        np.testing.assert_allclose(preprocess.apply(image), expected, rtol=1e-6, atol=1e-6)


def test_rounded_numbers_keep_the_name_and_others_are_spelt_out() -> None:
    rounded = replace(named("imagenet"), std=(0.2291, 0.2239, 0.2251))
    assert normalization_name(rounded) == "imagenet"
    own = replace(named("imagenet"), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    assert normalization_name(own) == "mean 0.1,0.2,0.3 std 1,1,1"
