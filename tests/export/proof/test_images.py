"""The images of a proof: the user's, evenly spaced, or four that are always the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.dataset import Images
from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import named
from resdeploy.export.proof.images import builtin_images, builtin_inputs, sample_inputs

_HALF = named("half", 16)


def test_the_builtin_images_are_fixed_rgb_and_full_of_contrast() -> None:
    first, second = builtin_images(), builtin_images()
    assert [image.size for image in first] == [(256, 256)] * 4
    for one, again in zip(first, second, strict=True):
        pixels = np.asarray(one)
        assert np.array_equal(pixels, np.asarray(again))
        assert pixels.min() < 10 and pixels.max() > 245 and pixels.std() > 20


def test_builtin_inputs_go_through_the_networks_preprocessing() -> None:
    inputs = builtin_inputs(_HALF)
    assert inputs.shape == (4, 3, 16, 16) and inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs[2], _HALF.apply(builtin_images()[2]))


def test_samples_are_evenly_spaced(image_folder: Path) -> None:
    paths = tuple(sorted(image_folder.iterdir()))
    samples = sample_inputs(Images(paths, None), _HALF, 4)
    expected = np.stack([read_input(paths[i], _HALF) for i in (0, 8, 15, 23)])
    np.testing.assert_array_equal(samples, expected)
    np.testing.assert_array_equal(sample_inputs(None, _HALF, 2), builtin_inputs(_HALF)[:2])


def test_a_sample_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    images = Images((tmp_path / "a.png", tmp_path / "gone.png"), None)
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        sample_inputs(images, _HALF, 4)
