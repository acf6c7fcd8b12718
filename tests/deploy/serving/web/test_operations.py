"""Operators get the counters and the description, each in the form that its readers expect."""

import json
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from resdeploy.deploy.serving.answer import Service
from resdeploy.deploy.serving.protocol.openapi import openapi
from resdeploy.deploy.serving.web.operations import operations_routes
from tests.deploy.serving.web.asgi import ask


def test_prometheus_can_read_the_metrics(
    make_service: Callable[..., Service], colours_bundle: Path
) -> None:
    service = make_service([colours_bundle])
    service.metrics.ended("colours", "http", None, 0.2)
    reply = ask(operations_routes(service), "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(bytes(reply.body).decode())
        for sample in family.samples
    }
    assert found["resdeploy_requests_total"] == 1


def test_the_description_is_json(make_service: Callable[..., Service]) -> None:
    reply = ask(operations_routes(make_service([])), "/openapi.json")
    assert reply.headers["content-type"] == "application/json"
    assert json.loads(bytes(reply.body)) == openapi()
