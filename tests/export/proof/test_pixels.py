"""Images are decoded once for several ways to resize, and normalized later."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.files import open_image
from resdeploy.deploy.images.preprocess import named
from resdeploy.export.proof.pixels import decode, geometry, inputs


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    found = [tmp_path / f"{number}.png" for number in range(10)]
    for path in found:
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    return found


@pytest.mark.parametrize("name", ["imagenet", "half", "cifar"])
def test_pixels_become_what_the_preprocessing_gives(name: str, paths: list[Path]) -> None:
    preprocess = named(name, 32)
    ways = [geometry(preprocess), geometry(named("half", 24))]
    found = decode(paths, ways)
    assert {way: pixels.shape for way, pixels in found.items()} == {
        ways[0]: (10, 3, 32, 32),
        ways[1]: (10, 3, 24, 24),
    }
    batches = [batch.numpy() for batch in inputs(found[ways[0]], preprocess)]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    expected = np.stack([preprocess.apply(open_image(path)) for path in paths])
    np.testing.assert_allclose(np.concatenate(batches), expected, atol=1e-5)


def test_mean_and_std_do_not_change_the_geometry() -> None:
    assert geometry(named("half", 32)) == geometry(named("cifar", 32))
    assert geometry(named("imagenet", 32)) != geometry(named("cifar", 32))


def test_an_image_that_cannot_be_read_is_left_out_and_many_are_refused(paths: list[Path]) -> None:
    way = geometry(named("half", 16))
    many = [*paths, *paths, *paths]
    broken = paths[0].parent / "broken.png"
    broken.write_text("no image")
    assert len(decode([*many, broken], [way])[way]) == 30
    with pytest.raises(InputError):
        decode([broken] * 9, [way])
