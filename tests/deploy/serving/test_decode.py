"""Images are decoded as `predict` does it, and bombs are refused before they go off."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.images.files import read_input
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.serving.decode import decode
from resdeploy.deploy.serving.refusal import Reason, Refusal

_PREPROCESS = named("imagenet", 32)


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def _png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK"])
def test_bytes_give_the_pixels_of_the_file(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    image = Image.fromarray(noise).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    content = _encoded(image, kind)
    (tmp_path / "image").write_bytes(content)
    decoded = decode(content, _PREPROCESS, max_pixels=10_000)
    np.testing.assert_array_equal(decoded.pixels, read_input(tmp_path / "image", _PREPROCESS))
    assert decoded.decode_s > 0 and decoded.preprocess_s > 0


@pytest.mark.parametrize(
    ("content", "reason", "text"),
    [
        (b"", "not_an_image", "0 bytes that are no JPEG, PNG or WebP image"),
        (b"\xff\xd8\xff", "not_an_image", "no JPEG"),
        (_png_header(50_000, 50_000), "too_large", "limit: 10000"),
        (_png_header(2**31 - 1, 2**31 - 1), "too_large", "limit: 10000"),
        (_png_header(5_000, 5_000), "too_large", "5000x5000 pixels, limit: 10000"),
        (_png_header(90, 90), "not_an_image", "cannot be decoded"),
        (_encoded(Image.new("RGB", (9, 9)), "BMP"), "not_an_image", "JPEG, PNG or WebP"),
        (_encoded(Image.new("RGB", (101, 100)), "PNG"), "too_large", "101x100 pixels"),
    ],
)
def test_what_is_refused(content: bytes, reason: Reason, text: str) -> None:
    with pytest.raises(Refusal, match=text) as refusal:
        decode(content, _PREPROCESS, max_pixels=10_000)
    assert refusal.value.reason == reason


@pytest.mark.slow
def test_a_sliver_is_not_blown_up() -> None:
    sliver = _encoded(Image.new("RGB", (1, 9_000_000)), "PNG")
    with pytest.raises(Refusal, match="over the limit") as refusal:
        decode(sliver, _PREPROCESS, max_pixels=10_000_000)
    assert refusal.value.reason == "too_large"
