"""Tokens, foreign pages, overload, request ids, the log and the metrics."""

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.serving.running import Running, running

Encode = Callable[..., bytes]

_ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.slow
def test_only_bearers_of_a_token_are_answered(
    tmp_path: Path, colours_bundle: Path, encoded: Encode
) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("# two clients\nfirst-secret\n\nsecond-secret\n")
    with running([colours_bundle], token_file=str(tokens)) as server:
        for token, status in (
            ("Bearer first-secret", 200),
            ("bearer second-secret", 200),
            ("Bearer wrong", 401),
            ("Bearer ", 401),
            ("Basic first-secret", 401),
            ("Bearer # two clients", 401),
        ):
            reply = server.ask("POST", "/v1/classify", encoded("red"), {"authorization": token})
            assert reply.status == status, token
        for path in ("/v2", "/metrics", "/v1/models", "/openapi.json"):
            reply = server.get(path)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert server.get("/v2/health/ready").status == 200  # a probe has no token


def test_pages_of_other_sites_are_not_answered(server: Running, encoded: Encode) -> None:
    own = {"origin": f"http://127.0.0.1:{server.port}"}
    assert server.ask("POST", "/v1/classify", encoded("red"), own).status == 200
    for origin in ("https://elsewhere.example", "null", f"http://127.0.0.1:{server.port + 1}"):
        reply = server.ask("POST", "/v1/classify", encoded("red"), {"origin": origin})
        assert reply.status == 403
    reply = server.ask("POST", "/v2/repository/models/colours/unload", b"{}", {"origin": "null"})
    assert reply.status == 403


@pytest.mark.slow
def test_more_requests_than_the_limit_are_refused(colours_bundle: Path) -> None:
    batch = {"name": "input", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": [0.5] * 192}
    body = json.dumps({"inputs": [batch]})
    rules = {"max_wait_s": 0.3}  # so that the first is there when the second comes
    statuses: list[int] = []
    with running([colours_bundle], rules=rules, limits={"requests": 1}) as server:

        def ask() -> None:
            reply = server.ask("POST", "/v2/models/colours/infer", body)
            statuses.append(reply.status)
            if reply.status == 503:
                assert reply.headers["retry-after"] == "1"

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.get("/v2/health/live").status == 200
    assert 200 in statuses and 503 in statuses and {*statuses} == {200, 503}


def test_ids_and_traces_go_through(server: Running) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = {"x-request-id": "mine-1", "traceparent": trace, "tracestate": "vendor=1,other=2"}
    reply = server.ask("GET", "/v2", None, sent)
    assert {name: reply.headers[name] for name in sent} == sent
    bad = {"x-request-id": "no spaces", "traceparent": "00-x", "tracestate": "vendor=1"}
    reply = server.ask("GET", "/v2", None, bad)
    assert len(reply.headers["x-request-id"]) == 32
    assert "traceparent" not in reply.headers and "tracestate" not in reply.headers


@pytest.mark.slow
def test_the_log_and_the_metrics_tell_what_happened(colours_bundle: Path, encoded: Encode) -> None:
    with running([colours_bundle]) as server:
        for colour in ("red", "red", "blue"):
            server.ask("POST", "/v1/classify?token=secret", encoded(colour))
        server.ask("POST", "/v1/classify", b"no image")
        server.get("/v2/models/nothing")
        lines = server.get("/metrics").body.decode().splitlines()
        figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        status, log = server.stop()
    version = 'model="colours",version="1"'
    request = 'resdeploy_requests_total{model="%s",outcome="%s",protocol="http",reason="%s"}'
    expected = {
        request % ("colours", "answered", ""): 3,
        request % ("colours", "refused", "not_an_image"): 1,
        request % ("", "refused", "unknown_model"): 1,
        'resdeploy_predictions_total{label="red",model="colours"}': 2,
        'resdeploy_predictions_total{label="blue",model="colours"}': 1,
        f"resdeploy_model_ready{{{version}}}": 1,
        f"resdeploy_pending_images{{{version}}}": 0,
        "resdeploy_requests_in_flight": 1,
    }
    for stage in ("queue", "decode", "preprocess", "inference"):
        expected[f"resdeploy_{stage}_seconds_count{{{version}}}"] = 3
    expected[f"resdeploy_batch_size_sum{{{version}}}"] = 3
    assert {key: float(figures[key]) for key in expected} == expected
    mean = float(figures['resdeploy_top_probability_mean{model="colours"}'])
    assert 1 / 3 < mean < 1
    info = next(line for line in figures if line.startswith("resdeploy_model_info"))
    assert 'architecture="tiny",backend="ort-cpu"' in info

    assert status == 0
    assert [(line["path"], line["status"], line["reason"]) for line in log[3:]] == [
        ("/v1/classify", 400, "not_an_image"),
        ("/v2/models/nothing", 404, "unknown_model"),
        ("/metrics", 200, None),
    ]
    assert "secret" not in json.dumps(log)


def test_openapi_describes_every_path(server: Running) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    assert {"/v2/models/{model}/infer", "/v1/classify", "/metrics"} <= paths.keys()
    for path, operations in paths.items():
        filled = path.replace("{model}", "colours").replace("{version}", "1")
        for method in operations:
            body = b"{}" if method == "post" else None
            if not filled.endswith(("load", "unload")):
                assert server.ask(method.upper(), filled, body).status not in (404, 405, 500)


@pytest.mark.slow
def test_the_dashboard_asks_for_metrics_that_exist(server: Running, encoded: Encode) -> None:
    server.ask("POST", "/v1/classify", encoded("red"))
    there = set(re.findall(r"^(resdeploy_\w+)", server.get("/metrics").body.decode(), re.MULTILINE))
    dashboard = (_ROOT / "docs" / "grafana-dashboard.json").read_text()
    asked = set(re.findall(r"resdeploy_\w+", dashboard))
    assert asked and asked <= there
