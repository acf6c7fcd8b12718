"""Sizes after resizing and cropping; that pixels are torchvision's is tested in test_preprocess."""

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.geometry import FILTERS, cropped, fitted, resized


@pytest.mark.parametrize(
    ("size", "resize_px", "expected"),
    [
        ((500, 333), 256, (384, 256)),  # 384.38 is cut off, not rounded
        ((333, 500), 256, (256, 384)),
        ((500, 333), (100, 200), (200, 100)),  # (H, W)
        ((500, 333), None, (500, 333)),
    ],
)
def test_the_shorter_side_decides_the_size(
    size: tuple[int, int], resize_px: int | tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    assert resized(Image.new("RGB", size), resize_px, "bilinear").size == expected


def test_the_centre_is_kept_and_what_is_missing_is_black() -> None:
    image = Image.new("RGB", (5, 9), "white")
    found = cropped(image, (7, 7))
    assert found.size == (7, 7)
    columns = [found.getpixel((x, 3)) for x in range(7)]
    assert columns == [(0, 0, 0), *[(255, 255, 255)] * 5, (0, 0, 0)]


def test_an_image_too_large_to_be_opened_is_not_made() -> None:
    with pytest.raises(InputError, match="limit"):
        resized(Image.new("RGB", (9000, 1)), 256, "bilinear")


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    ("size", "resize_px", "crop_px"),
    [
        ((100, 67), 32, (28, 28)),
        ((67, 100), 32, (28, 28)),
        ((40, 31), 64, (57, 56)),  # enlarged
        ((48, 32), 32, (28, 28)),  # of the size already
        ((100, 67), (40, 30), (25, 21)),
        ((100, 20), 20, (31, 24)),  # padded above and below
        ((20, 100), 20, (24, 31)),
        ((50, 40), 32, None),
        ((50, 40), None, (20, 30)),
    ],
)
def test_resizing_only_what_the_crop_keeps_changes_no_pixel(
    interpolation: str,
    size: tuple[int, int],
    resize_px: int | tuple[int, int] | None,
    crop_px: tuple[int, int] | None,
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise)
    expected = cropped(resized(image, resize_px, interpolation), crop_px)
    found = fitted(image, resize_px, crop_px, interpolation)
    assert np.array_equal(np.asarray(found), np.asarray(expected))
