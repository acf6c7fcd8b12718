"""The search for a better preprocessing: what it tries, what it believes, what it leaves alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy.deploy.images.dataset import Images, read_data
from resdeploy.deploy.images.preprocess import named
from resdeploy.deploy.verification.preprocess_search import (
    Alternative,
    PreprocessSearch,
    PreprocessTrial,
    named_alternatives,
    search_preprocessing,
    usual_mistakes,
)
from tests.fakes import FakeSession

_HALF = named("half", 8)
_LABELS = ("red", "green", "blue")


def _search(*trials: tuple[float, float]) -> PreprocessSearch:
    """(top-1, p) of alternatives to a preprocessing with top-1 80 %."""
    found = [PreprocessTrial(Alternative(f"{top1}", _HALF), top1, p) for top1, p in trials]
    return PreprocessSearch(1000, 80.0, tuple(found))


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([(82.0, 0.049)], "82.0"),
        ([(82.0, 0.051)], None),  # may be luck
        ([(81.9, 1e-9)], None),  # too little to be a mistake
        ([(60.0, 1e-9)], None),
        ([(83.0, 0.01), (90.0, 0.2), (85.0, 0.01)], "85.0"),
        ([], None),
    ],
)
def test_better_means_significant_and_by_two_points(
    trials: list[tuple[float, float]], best: str | None
) -> None:
    found = _search(*trials).better()
    assert (None if found is None else found.name) == best


@pytest.mark.slow
def test_p_values_are_corrected_for_the_number_of_trials(colours: Path) -> None:
    images = read_data(colours, _LABELS)
    # with ImageNet's mean and std faint red and green images are taken for blue
    own = named("imagenet", 8)
    one = search_preprocessing(images, own, [Alternative("half", _HALF)], FakeSession())
    same = [Alternative(name, own) for name in "abc"]
    four = search_preprocessing(images, own, [Alternative("half", _HALF), *same], FakeSession())
    assert one.trials[0].top1 == 100 and one.top1 < 95
    assert four.trials[0].p_holm == pytest.approx(4 * one.trials[0].p_holm)
    assert four.better() == four.trials[0] and all(t.p_holm == 1 for t in four.trials[1:])


def test_swapped_channels_are_tried_without_touching_the_session(colours: Path) -> None:
    images = read_data(colours, _LABELS).spread(60)
    on_bgr = FakeSession(lambda batch: batch[:, ::-1].mean(axis=(2, 3)))
    (bgr, *_) = usual_mistakes(_HALF)
    search = search_preprocessing(images, _HALF, [bgr], on_bgr)
    better = search.better()
    assert better is not None and better.name == "BGR instead of RGB" and better.top1 == 100
    assert not on_bgr.closed


def test_nothing_is_tried_twice_nor_the_own_one() -> None:
    for own in (_HALF, named("imagenet", 8), named("cifar", 8), replace(_HALF, name="mine")):
        mistakes = usual_mistakes(own)
        keys = [(found.preprocess, found.bgr) for found in mistakes]
        assert len(set(keys)) == len(keys) >= 5 and (own, False) not in keys
        assert all(found.preprocess.input_size_px == (8, 8) for found in mistakes)
    assert [found.name for found in named_alternatives(_HALF)] == ["imagenet", "cifar"]
    assert [found.name for found in named_alternatives(replace(_HALF, name="mine"))] == [
        "imagenet",
        "cifar",
    ]
    assert named_alternatives(replace(_HALF, resize_px=(8, 16))) == ()


def test_images_that_one_preprocessing_cannot_take_are_left_out_of_all(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    Image.new("RGB", (8000, 2), (0, 200, 0)).save(tmp_path / "narrow.png")
    folder = read_data(colours, _LABELS)
    assert folder.truth is not None
    images = Images((tmp_path / "narrow.png", *folder.paths), np.append(1, folder.truth))
    search = search_preprocessing(images, _HALF, named_alternatives(_HALF), FakeSession())
    assert search.images == 300 and search.top1 == 100
