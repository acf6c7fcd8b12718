"""Whatever form an image is handed over in, the same pixels; what is no image is named briefly."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.sources import as_rgb


@pytest.fixture
def png(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_every_form_gives_the_same_pixels(png: Path) -> None:
    expected = np.asarray(Image.open(png))
    data = png.read_bytes()
    for form in (png, str(png), data, bytearray(data), memoryview(data), expected,
                 Image.open(BytesIO(data))):  # fmt: skip
        np.testing.assert_array_equal(np.asarray(as_rgb(form)), expected)
    np.testing.assert_array_equal(
        np.asarray(as_rgb(expected[:, :, ::-1], channels="BGR")), expected
    )


@pytest.mark.parametrize(("image", "message"), [
    (np.zeros((3, 8, 8), np.float32), "an array of float32, 3 x 8 x 8, expected uint8"),
    (np.zeros((8, 8), np.uint8), "an array of uint8, 8 x 8, expected uint8, height x width x 3"),
    (np.zeros((0, 8, 3), np.uint8), "an array of uint8, 0 x 8 x 3"),
    (b"\xff\xd8" + bytes(100), "image of 102 bytes: not an image in any format Pillow reads"),
    (b"", "image of 0 bytes: the file is empty"),
    (7, "image is int, expected a path, the bytes"),
    ([1, 2], "image is list, expected"),
])  # fmt: skip
def test_what_is_no_image_is_refused_in_one_short_line(image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        as_rgb(image)
    assert len(str(caught.value)) < 160 and "\n" not in str(caught.value)


def test_blue_first_is_for_arrays(png: Path) -> None:
    with pytest.raises(InputError, match="channels BGR is for arrays, not for pathlib"):
        as_rgb(png, channels="BGR")
    with pytest.raises(InputError, match="channels 'GBR' is not RGB or BGR"):
        as_rgb(png, channels="GBR")  # type: ignore[arg-type]
