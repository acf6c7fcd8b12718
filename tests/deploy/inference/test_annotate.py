"""Pages for people to look through: the image as it was, and the answer below it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.inference.annotate import annotated, make_folder, unique_name
from resdeploy.deploy.inference.prediction import Prediction

_ANSWER = [Prediction("tulips", 4, 0.9), Prediction("roses", 2, 0.1)]


def test_the_image_stays_and_the_answer_stands_below() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    page = annotated(image, _ANSWER)
    assert page.width == 400 and page.height > 300 + 2 * 14
    np.testing.assert_array_equal(np.asarray(page)[:300], np.asarray(image))
    strip = np.asarray(page)[300:]
    assert (strip == 255).mean() > 0.5 and (strip < 64).any()  # black letters on white
    assert annotated(image, _ANSWER[:1]).height < page.height


@pytest.mark.parametrize(("size", "width"), [((4000, 2000), 1600), ((10, 10), 240)])
def test_large_images_shrink_and_tiny_ones_grow(size: tuple[int, int], width: int) -> None:
    assert annotated(Image.new("RGB", size), []).width == width


def test_names_do_not_collide_whatever_their_case() -> None:
    taken: set[str] = set()
    names = [unique_name(stem, taken) for stem in ("a", "A", "a", "b")]
    assert names == ["a.jpg", "A-2.jpg", "a-3.jpg", "b.jpg"]


def test_a_folder_in_a_files_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made: "):
        make_folder(tmp_path / "file" / "x")
