"""Paths, folders and standard input become files in the order given (URLs: test_predict.py)."""

from io import BytesIO
from pathlib import Path

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.gather import MOST_BYTES, NamedImage, NamedImages, gather


def test_the_order_is_that_of_the_line(image_folder: Path, tmp_path: Path) -> None:
    one = str(image_folder / "cut_03.jpg")
    found = gather([one, "-", str(image_folder)], tmp_path, BytesIO(b"data"))
    names = [image.name for image in found.images]
    assert names[:2] == [one, "(standard input)"] and len(names) == 26 and not found.remarks
    assert found.images[1].path.read_bytes() == b"data"
    assert all(image.problem is None for image in found.images)


def test_images_are_a_sequence_and_those_without_a_problem_have_files(tmp_path: Path) -> None:
    bad = NamedImage("x", tmp_path / "x", InputError("x: bad"))
    images = NamedImages(["a/b.jpg", bad, NamedImage("-", tmp_path / "0")])
    assert images[0] == NamedImage("a/b.jpg", Path("a/b.jpg")) and images[-1].name == "-"
    assert images[1:][0] is bad and len(images) == 3
    assert images.files == ["a/b.jpg", str(tmp_path / "0")]


def test_more_than_any_image_needs_is_not_kept(tmp_path: Path) -> None:
    class Endless(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size == MOST_BYTES + 1
            return bytes(size)

    (image,) = gather(["-"], tmp_path, Endless()).images
    assert "too large for an image, limit: 64 MB" in str(image.problem)
    assert not image.path.exists()


def test_standard_input_is_read_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="read once only"):
        gather(["-", "-"], tmp_path, BytesIO())
