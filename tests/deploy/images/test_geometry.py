"""Sizes after resizing and cropping; that pixels are torchvision's is tested in test_preprocess."""

import pytest
from PIL import Image

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.geometry import cropped, resized


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
