"""The figures of a row follow from logits that are known."""

import numpy as np
import onnx
import pytest
from int8_setting import Setting


@pytest.fixture
def setting() -> Setting:
    """A hundred images of four classes, eighty of which float32 gets right."""
    random = np.random.default_rng(0)
    expected = random.normal(0, 1, (100, 4)).astype(np.float32)
    truth = expected.argmax(axis=1)
    truth[:20] = (truth[:20] + 1) % 4
    return Setting("net.bundle", onnx.ModelProto(), [], [], truth, expected, 1)


def test_float_loses_nothing(setting: Setting) -> None:
    row = setting.judged("float", "float", setting.expected, 0)
    assert row["top1"] == 80
    assert row["drop"] == row["sharpest"] == "0.00 (0.00 to 0.00)"
    assert row["agreement"].startswith("100.00 (")


def test_ten_lost_answers_are_ten_points_of_a_hundred_images(setting: Setting) -> None:
    got = setting.expected.copy()
    got[-10:] = -got[-10:]  # the largest logit becomes the smallest
    row = setting.judged("worse", "as the graph says", got, 1.26)
    assert row["top1"] == 70 and row["seconds"] == 1.3
    assert row["drop"].startswith("10.00 (")
    assert row["agreement"].startswith("90.00 (")
    low, high = map(float, row["drop"].partition("(")[2].strip(")").split(" to "))
    # √(0.1 · 0.9 / 100) is 3 points, and an imagined answer is lost and one gained
    assert (low, high) == pytest.approx((4.1, 15.9), abs=1.5)


def test_the_ratio_of_signal_to_noise_is_that_of_the_logits(setting: Setting) -> None:
    row = setting.judged("louder", "OpenVINO", np.float32(1.1) * setting.expected, 0)
    assert row["sqnr_db"] == "20.00 (20.00 to 20.00)"
    assert row["agreement"].startswith("100.00")
