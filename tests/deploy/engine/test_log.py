"""What a TensorRT of any version says is sorted into errors, warnings and the layer table."""

from typing import Any

from resdeploy.deploy.engine.log import BuildLog
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
