"""Workers that see shares of the images give what one process sees of all, bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from resdeploy.calibration.observe.gather import BATCH, Observations, gather
from resdeploy.calibration.observe.gather_spread import gather_spread
from resdeploy.calibration.observe.images import CalibrationImages, Reading, read_batches
from resdeploy.deploy.errors import CalibrationError
from resdeploy.deploy.images.preprocess import Preprocess, named
from resdeploy.deploy.targets import TARGETS
from tests.in_turn import InTurn

Graphs = Callable[[str], onnx.ModelProto]


@pytest.fixture
def preprocess() -> Preprocess:
    return named("imagenet", 64)


@pytest.fixture
def chosen(tmp_path: Path) -> CalibrationImages:
    """140 images, more than moments are taken of and two full shares; two bad, one plain."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(140)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (72, 72, 3), np.uint8)).save(path)
    paths[3].write_text("no image")
    paths[100].write_text("no image")
    Image.new("RGB", (72, 72), "red").save(paths[70])
    return CalibrationImages(tuple(paths), ("",) * len(paths), ())


def _same(one: Observations, other: Observations) -> None:
    assert one.images == other.images
    for target in TARGETS:
        assert one.ranges("mse", target) == other.ranges("mse", target)
    assert one.moments.keys() == other.moments.keys()
    for name, moments in one.moments.items():
        assert moments.count == other.moments[name].count
        np.testing.assert_array_equal(moments.mean, other.moments[name].mean)
        np.testing.assert_array_equal(moments.covariance, other.moments[name].covariance)
    assert one.sizes == other.sizes
    for name, peaks in one.peaks.items():
        np.testing.assert_array_equal(peaks, other.peaks[name])


@pytest.mark.slow
def test_shares_add_up_to_one_pass(
    float_graph: Graphs, preprocess: Preprocess, chosen: CalibrationImages
) -> None:
    model, here = float_graph("resnet18"), Reading()
    read = partial(read_batches, chosen.paths, preprocess, batch=BATCH, threads=2, reading=here)
    alone = gather(model, read, len(chosen.paths), threads=2, seed=5)
    spread, there = InTurn(Path(), chosen.paths), Reading()
    shared = gather_spread(
        model, replace(chosen, workers=spread), preprocess, reading=there, seed=5
    )
    assert alone.images == 138
    _same(alone, shared)
    assert there == here


def test_too_many_unreadable_images_are_refused(
    float_graph: Graphs, preprocess: Preprocess, chosen: CalibrationImages
) -> None:
    for path in chosen.paths[60:70]:
        path.write_text("no image")
    with pytest.raises(CalibrationError, match=r"8 of 140 calibration images cannot be read"):
        gather_spread(
            float_graph("resnet18"),
            replace(chosen, workers=InTurn(Path(), chosen.paths)),
            preprocess,
            reading=Reading(),
        )
