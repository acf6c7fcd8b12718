"""The figures at /metrics are those that happened, under their labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.serving.answer import Service
from resdeploy.deploy.serving.batching import BatchRecord
from resdeploy.deploy.serving.decode import Decoded
from resdeploy.deploy.serving.metrics import Metrics

_LOGITS: Float32s = np.log(np.array([[2, 1, 1], [1, 8, 1]], np.float32))
_COLOURS = {"model": "colours", "version": "1"}


def _value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(f"resdeploy_{name}", labels)
    assert found is not None, name
    return found


def test_requests_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    metrics.ended("colours", "http", None, 0.2)
    metrics.ended("colours", "http", None, 0.3)
    metrics.ended("", "grpc", "unauthorized", 0.1)
    answered = {"model": "colours", "protocol": "http", "outcome": "answered", "reason": ""}
    refused = {"model": "", "protocol": "grpc", "outcome": "refused", "reason": "unauthorized"}
    assert _value(metrics, "requests_total", **answered) == 2
    assert _value(metrics, "requests_total", **refused) == 1
    assert _value(metrics, "request_seconds_sum") == pytest.approx(0.6)
    assert _value(metrics, "request_seconds_bucket", le="0.2") == 2


def test_an_inference_adds_its_rows_times_and_predictions(
    make_service: Callable[..., Service], colours_bundle: Path
) -> None:
    metrics = Metrics()
    with make_service([colours_bundle]).repository.lease("colours") as model:
        metrics.inferred(model, BatchRecord(2, 0.05, _LOGITS, (0.01, 0.03)))
        metrics.decoded(model, Decoded(np.zeros((3, 8, 8), np.float32), 0.25, 0.5))
    assert _value(metrics, "batch_size_sum", **_COLOURS) == 2
    assert _value(metrics, "inference_seconds_sum", **_COLOURS) == pytest.approx(0.05)
    assert _value(metrics, "queue_seconds_count", **_COLOURS) == 2
    assert _value(metrics, "decode_seconds_sum", **_COLOURS) == 0.25
    assert _value(metrics, "preprocess_seconds_sum", **_COLOURS) == 0.5
    assert _value(metrics, "predictions_total", model="colours", label="green") == 1
    # probabilities 2/4 and 8/10: the mean begins at the first and moves by a thousandth
    mean = _value(metrics, "top_probability_mean", model="colours")
    assert mean == pytest.approx(0.5 + 0.3 / 1000)


def test_answers_of_nan_are_no_predictions(
    make_service: Callable[..., Service], colours_bundle: Path
) -> None:
    metrics = Metrics()
    with make_service([colours_bundle]).repository.lease("colours") as model:
        metrics.inferred(model, BatchRecord(1, 0.05, np.full((1, 3), np.nan, np.float32), (0.0,)))
    assert _value(metrics, "batch_size_sum", **_COLOURS) == 1
    assert b"resdeploy_predictions_total{" not in metrics.text()


def test_the_repository_is_read_when_it_is_asked_for(
    make_service: Callable[..., Service], colours_bundle: Path
) -> None:
    service = make_service([colours_bundle])
    metrics = Metrics()
    metrics.watch(service.repository)
    assert _value(metrics, "model_ready", **_COLOURS) == 1
    assert _value(metrics, "pending_images", **_COLOURS) == 0
    facts = {"architecture": "tiny", "precision": "fp32", "backend": "ort-cpu"}
    assert _value(metrics, "model_info", **_COLOURS, **facts) == 1
    with service.repository.lease("colours") as model:
        model.failure = "ort-cuda: the device is gone"
    assert _value(metrics, "model_ready", **_COLOURS) == 0
    service.repository.refresh(watch=False)
    assert _value(metrics, "model_ready", **_COLOURS) == 1
    service.repository.unload("colours")
    assert _value(metrics, "model_ready", **_COLOURS) == 0
