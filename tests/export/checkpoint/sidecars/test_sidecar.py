"""What several sources say, put together."""

import pytest

from resdeploy.deploy.errors import InputError
from resdeploy.deploy.images.preprocess import named
from resdeploy.export.checkpoint.sidecars.sidecar import Sidecar, joined, shorter_side, triple


def test_the_first_that_knows_counts() -> None:
    first = Sidecar("config.json", None, {"bn_eps": "1e-3"}, labels=("a", "b"))
    second = Sidecar("meta", "resnet18", {"bn_eps": "1e-5", "channels": "bgr"}, named("half"))
    found = joined([first, second])
    assert found is not None and found.source == "config.json and meta"
    assert (found.architecture, found.labels) == ("resnet18", ("a", "b"))
    assert found.settings == {"bn_eps": "1e-3", "channels": "bgr"}
    assert found.preprocess == named("half") and found.normalization is None
    assert joined([first]) == first and joined([]) is None


def test_three_numbers_are_scaled_and_rounded() -> None:
    assert triple([123.675, 116.28, 103.53], 1 / 255) == (0.485, 0.456, 0.406)
    for wrong in ([1, 2], "abc", None):
        with pytest.raises(ValueError, match="not a list of three numbers"):
            triple(wrong)


def test_the_shorter_side_then_the_centre() -> None:
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    found = shorter_side("timm", 248, 224, mean, std, "bicubic")
    assert (found.resize_px, found.crop_px, found.interpolation) == (248, (224, 224), "bicubic")
    with pytest.raises(InputError):
        shorter_side("timm", 0, 224, mean, std)
