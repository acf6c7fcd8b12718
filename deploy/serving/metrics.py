"""What Prometheus reads at /metrics: base units, `_total` counters, histograms in seconds."""

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from resdeploy.deploy.arrays import Float64s
from resdeploy.deploy.serving.batching import BatchRecord
from resdeploy.deploy.serving.decode import Decoded
from resdeploy.deploy.serving.refusal import Reason
from resdeploy.deploy.serving.repository import Repository
from resdeploy.deploy.serving.served_model import ServedModel

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
# the mean of the top probability forgets: each prediction moves it by one part in so many
_MEMORY_PREDICTIONS = 1000
_CHILDREN = 10_000

Child = TypeVar("Child", Counter, Gauge, Histogram)


class Metrics:
    """The counters of one server; its methods may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        model = ("model", "version")
        self._requests = Counter(
            "resdeploy_requests",
            "Requests by how they ended; the reason is empty for an answer.",
            ("model", "protocol", "outcome", "reason"),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "resdeploy_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self._duration = self._seconds("request", "From the request's headers to its answer", ())
        self._queue = self._seconds("queue", "Waiting for an inference to begin", model)
        self._decode = self._seconds("decode", "Decoding one image", model)
        self._preprocess = self._seconds("preprocess", "Resizing and normalising one image", model)
        self._inference = self._seconds("inference", "One inference of a batch", model)
        self._rows = Histogram(
            "resdeploy_batch_size",
            "Images of one inference.",
            model,
            buckets=_ROWS,
            registry=self.registry,
        )
        self._predictions = Counter(
            "resdeploy_predictions",
            "Images by their most probable class.",
            ("model", "label"),
            registry=self.registry,
        )
        self._top = Gauge(
            "resdeploy_top_probability_mean",
            f"Mean probability of the best class, over about {_MEMORY_PREDICTIONS} images.",
            ("model",),
            registry=self.registry,
        )
        self._means: dict[str, float] = {}
        # prometheus_client looks at each label anew
        self._child = lru_cache(_CHILDREN)(_labelled)

    def watch(self, repository: Repository) -> None:
        """Also report what the repository holds, read when it is asked for."""
        self.registry.register(_ModelCollector(repository))

    def text(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self.registry)

    def ended(self, model: str, protocol: str, reason: Reason | None, seconds: float) -> None:
        """Count a request; `reason` None is an answer, `model` empty where none was found."""
        outcome = "answered" if reason is None else "refused"
        self._child(self._requests, model, protocol, outcome, reason or "").inc()
        self._duration.observe(seconds)

    def decoded(self, model: ServedModel, image: Decoded) -> None:
        """Count the work on one image."""
        self._child(self._decode, model.name, model.version).observe(image.decode_s)
        self._child(self._preprocess, model.name, model.version).observe(image.preprocess_s)

    def inferred(self, model: ServedModel, record: BatchRecord) -> None:
        """Count an inference and what it predicted."""
        labels = (model.name, model.version)
        self._child(self._inference, *labels).observe(record.inference_s)
        self._child(self._rows, *labels).observe(record.rows)
        queue = self._child(self._queue, *labels)
        for waited_s in record.queue_s:
            queue.observe(waited_s)
        names = model.manifest.labels
        if not names or not np.isfinite(record.logits).all():
            return
        for index, probability in zip(*_best(record.logits.astype(np.float64)), strict=True):
            self._child(self._predictions, model.name, names[int(index)]).inc()
            before = self._means.get(model.name, float(probability))
            mean = before + (float(probability) - before) / _MEMORY_PREDICTIONS
            self._means[model.name] = mean
        self._child(self._top, model.name).set(self._means[model.name])

    def _seconds(self, name: str, text: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(
            f"resdeploy_{name}_seconds",
            f"{text}, in seconds.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )


class _ModelCollector(Collector):
    """Gauges that are read from the repository at the moment of asking."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "version"]
        ready = GaugeMetricFamily("resdeploy_model_ready", "1 if a version answers.", labels=labels)
        for state in self._repository.index():
            ready.add_metric([state.name, state.version], float(state.state == "READY"))
        pending = GaugeMetricFamily(
            "resdeploy_pending_images", "Images that wait for an inference.", labels=labels
        )
        names = [*labels, "architecture", "precision", "backend"]
        info = GaugeMetricFamily("resdeploy_model_info", "What a version is.", labels=names)
        for model in self._repository.ready_models():
            pending.add_metric([model.name, model.version], model.batcher.pending)
            facts = model.facts()
            info.add_metric([model.name, model.version, *(facts[key] for key in names[2:])], 1)
        yield from (ready, pending, info)


def _labelled(metric: Child, *labels: str) -> Child:
    return metric.labels(*labels)


def _best(logits: Float64s) -> tuple[Float64s, Float64s]:
    """The best class of every row of (N, classes) and its softmax probability."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits.argmax(axis=1), shifted.max(axis=1) / shifted.sum(axis=1)
