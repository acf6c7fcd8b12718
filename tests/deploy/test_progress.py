"""Nothing is shown unless a caller asks for it: every long step is silent by default."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from resdeploy.calibration import quantize
from resdeploy.deploy import build_engine, verify
from resdeploy.deploy.benchmark.bench import bench
from resdeploy.deploy.progress import silent
from resdeploy.export import export_checkpoint


@pytest.mark.parametrize("step", [bench, build_engine, verify, quantize, export_checkpoint])
def test_long_steps_are_silent_unless_told_otherwise(step: Callable[..., Any]) -> None:
    assert inspect.signature(step).parameters["progress"].default is silent


def test_silence_takes_any_step(capfd: pytest.CaptureFixture[str]) -> None:
    for done, total in ((0, 0), (1, 10), (10, 10)):
        silent("a step", done, total)
    assert capfd.readouterr() == ("", "")
