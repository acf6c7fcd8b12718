"""What a TensorRT of any version says is sorted into errors, warnings and the layer table."""

import gc
import subprocess
import sys
from typing import Any

import pytest

from resdeploy.deploy.engine.flavor import is_installed
from resdeploy.deploy.engine.log import BuildLog, collection_paused
from tests.deploy.engine.conftest import LAYER_TABLE


def test_what_is_said_is_sorted(library: Any) -> None:
    heard: list[int] = []
    log = BuildLog(lambda: heard.append(1))
    logger = log.logger(library.module)
    severity = library.module.ILogger.Severity
    said = (
        (severity.INTERNAL_ERROR, "assertion failed"),
        (severity.ERROR, "no memory"),
        (severity.WARNING, "a kernel was skipped"),
        (severity.INFO, "Name: conv1, LayerType: not in a table"),
        (severity.VERBOSE, LAYER_TABLE),
    )
    for level, message in said:
        logger.log(level, message)
    assert log.errors == ["assertion failed", "no memory"]
    assert log.warnings == ["a kernel was skipped"]
    assert [layer.name for layer in log.layers] == ["conv1", "conv2"]
    assert len(heard) == len(said)  # a builder that talks is alive


# TensorRT calls the logger with a lock held that freeing a builder wants, too.
_A_BUILDER_IN_A_CYCLE = """
import gc, sys
import tensorrt_rtx as trt
from resdeploy.deploy.engine.log import BuildLog, collection_paused

def allocate():
    gc.set_threshold(1)
    [[] for _ in range(100)]

cycle = [trt.Builder(BuildLog().logger(trt))]
cycle.append(cycle)
logger = BuildLog(allocate).logger(trt)
del cycle
with collection_paused():
    trt.Builder(logger)
assert gc.isenabled()
"""


@pytest.mark.skipif(not is_installed("tensorrt-rtx"), reason="needs tensorrt-rtx")
def test_no_garbage_is_collected_while_tensorrt_talks() -> None:
    run = subprocess.run([sys.executable, "-c", _A_BUILDER_IN_A_CYCLE], timeout=60, check=False)
    assert run.returncode == 0


def test_a_collection_that_was_paused_stays_so() -> None:
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
