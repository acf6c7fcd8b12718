"""Connections that are slow, silent, too many or lie about lengths cost little and end."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc
import pytest

from resdeploy.deploy.serving.rpc.messages import SERVICE, message_class
from resdeploy.deploy.serving.web.connections import LimitedProtocol, _OneWrite
from tests.deploy.serving.running import WAIT_S, Running, running

_BODY = json.dumps(
    {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": [0.5] * 192}]}
).encode()


@pytest.fixture
def impatient(colours_bundle: Path) -> Iterator[Running]:
    """A server that waits a tenth of a second, for 1000 bytes of headers, on 4 connections."""
    limits = {"arrival_s": 0.1, "idle_s": 1.0, "header_bytes": 1000, "connections": 4}
    with running([colours_bundle], limits=limits) as server:
        yield server


def _talk(server: Running, *sent: bytes) -> bytes:
    """Send and read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection:
        for data in sent:
            connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def _head(length: int, *headers: str) -> bytes:
    lines = (
        "POST /v2/models/colours/infer HTTP/1.1",
        "host: x",
        f"content-length: {length}",
        *headers,
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.slow
def test_silence_ends_a_connection(impatient: Running) -> None:
    assert _talk(impatient).startswith(b"HTTP/1.1 408")
    assert _talk(impatient, b"GET / HTT").startswith(b"HTTP/1.1 408")
    assert _talk(impatient, b"\r\n").startswith(b"HTTP/1.1 408")


def test_a_body_that_stops_is_told_so(impatient: Running) -> None:
    answer = _talk(impatient, _head(len(_BODY)), _BODY[:40])
    assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive within 0.1 s" in answer


@pytest.mark.slow
def test_a_long_body_comes_whole(colours_bundle: Path) -> None:
    body = _BODY + 5_000_000 * b" "
    with running([colours_bundle]) as server:
        answer = _talk(server, _head(len(body), "connection: close"), body)
    assert answer.startswith(b"HTTP/1.1 200") and b'"model_name": "colours"' in answer


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(colours_bundle: Path) -> None:
    with (
        running([colours_bundle]) as server,
        socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection,
    ):
        connection.sendall(_head(len(_BODY), "expect: 100-continue", "connection: close"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(_BODY)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_head_is_sent_with_its_body_and_alone_if_none_comes() -> None:
    sent: list[bytes] = []
    turns: list[Callable[[], None]] = []
    transport = SimpleNamespace(write=sent.append, close=lambda: None, is_closing=lambda: False)
    joined = _OneWrite(
        cast(asyncio.Transport, transport),
        cast(asyncio.AbstractEventLoop, SimpleNamespace(call_soon=turns.append)),
    )
    for data in (b"HTTP/1.1 200 OK\r\n\r\n", b"body", b"more"):
        joined.write(data)
    assert sent == [b"HTTP/1.1 200 OK\r\n\r\nbody", b"more"]
    joined.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert len(sent) == 2
    for turn in turns:
        turn()
    assert sent[2:] == [b"HTTP/1.1 204 No Content\r\n\r\n"]
    joined.write(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    joined.close()
    assert sent[3:] == [b"HTTP/1.1 304 Not Modified\r\n\r\n"]


def test_who_asks_after_the_client_left_is_told_at_once() -> None:
    told: list[str] = []
    connection = LimitedProtocol.__new__(LimitedProtocol)
    connection.when_left(lambda: told.append("early"))
    assert not told
    connection._left = True
    connection.when_left(lambda: told.append("late"))
    assert told == ["late"]


def test_a_length_that_is_too_small_never_mixes_requests(impatient: Running) -> None:
    answer = _talk(impatient, _head(len(_BODY) - 5), _BODY)
    assert answer.count(b"HTTP/1.1 400") >= 1 and b"HTTP/1.1 200" not in answer


def test_what_is_no_http_is_refused_like_everything_else(impatient: Running) -> None:
    twice = _head(len(_BODY), "content-length: 3")
    for sent in (b"hello there\r\n\r\n", _head(-5), b"\0" * 100, twice):
        head, _, body = _talk(impatient, sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n"), sent
        assert json.loads(body) == {"error": "not a valid HTTP request"}


@pytest.mark.slow
def test_long_headers_are_refused(impatient: Running) -> None:
    assert _talk(impatient, _head(0, "x: " + "y" * 2000)).startswith(b"HTTP/1.1 431")
    endless = [b"GET / HTTP/1.1\r\nx: "] + [b"y" * 100] * 20
    with socket.create_connection(("127.0.0.1", impatient.port), WAIT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for data in endless:
                connection.sendall(data)
            received = connection.recv(65536)
        except ConnectionError:
            return  # closed while it was still being sent to
    assert received.startswith((b"HTTP/1.1 431", b"HTTP/1.1 408"))


@pytest.mark.slow
def test_of_too_many_connections_the_oldest_idle_ones_are_closed(colours_bundle: Path) -> None:
    with running([colours_bundle], limits={"connections": 4, "arrival_s": 3.0}) as server:
        address = ("127.0.0.1", server.port)
        silent = [socket.create_connection(address, WAIT_S) for _ in range(12)]
        answers = [connection.recv(65536) for connection in silent]
        for connection in silent:
            connection.close()
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 503"] * 8 + [b"HTTP/1.1 408"] * 4
        assert b"\r\nretry-after: 1\r\n" in answers[0] and b"try again later" in answers[0]
        assert server.get("/v2/health/ready").status == 200


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_client_that_leaves_is_not_inferred(protocol: str, colours_bundle: Path) -> None:
    rules = {"max_wait_s": 2.0, "max_batch": 8}
    with running([colours_bundle], rules=rules, grpc_port=0) as server:
        for _ in range(3):
            _ask_and_leave(server, protocol)
        _until(lambda: _figure(server, "requests_in_flight") == 1)  # this one itself
        assert _figure(server, 'pending_images{model="colours",version="1"}') == 0
        left = f'requests_total{{model="colours",outcome="refused",protocol="{protocol}"'
        assert _figure(server, left + ',reason="client_left"}') == 3
        assert server.ask("POST", "/v2/models/colours/infer", _BODY).status == 200
        # whoever had stayed would have shared this inference
        assert _figure(server, 'batch_size_sum{model="colours",version="1"}') == 1


@pytest.mark.slow
def test_a_client_that_leaves_two_requests_behind_is_no_fault_of_the_server(
    colours_bundle: Path,
) -> None:
    with running([colours_bundle], rules={"max_wait_s": 2.0, "max_batch": 8}) as server:
        with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection:
            connection.sendall(2 * (_head(len(_BODY)) + _BODY))
            _until(lambda: _figure(server, "requests_in_flight") == 2)  # one waits for the other
        _until(lambda: _figure(server, "requests_in_flight") == 1)
        assert server.stop()[0] == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""


def _ask_and_leave(server: Running, protocol: str) -> None:
    """Send one image, and leave while it waits for company."""
    pending = 'pending_images{model="colours",version="1"}'
    with (
        socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        if protocol == "http":
            connection.sendall(_head(len(_BODY)) + _BODY)
        else:
            tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3, 8, 8]}
            message = message_class("ModelInferRequest")(
                model_name="colours", inputs=[tensor], raw_input_contents=[bytes(768)]
            )
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer").future(message.SerializeToString())
        _until(lambda: _figure(server, pending) == 1)
        if protocol == "grpc":
            call.cancel()
    _until(lambda: _figure(server, pending) == 0)


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _figure(server: Running, name: str) -> float:
    """A figure of /metrics, 0 before it was first counted."""
    found = dict(line.rsplit(" ", 1) for line in server.get("/metrics").body.decode().splitlines())
    return float(found.get(f"resdeploy_{name}", "0"))


@pytest.mark.slow
def test_silent_connections_keep_nobody_out(colours_bundle: Path) -> None:
    with running([colours_bundle], limits={"connections": 4}) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port), WAIT_S) for _ in range(50)]
        for _ in range(10):
            assert server.ask("POST", "/v2/models/colours/infer", _BODY).status == 200
        for connection in silent:
            connection.close()


@pytest.mark.slow
def test_a_connection_is_kept_for_the_next_request(impatient: Running) -> None:
    last = _head(len(_BODY), "connection: close")
    answer = _talk(impatient, _head(len(_BODY)) + _BODY, last + _BODY)
    assert answer.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.slow
def test_many_clients_that_leave_do_no_harm(colours_bundle: Path) -> None:
    with running([colours_bundle], rules={"max_wait_s": 0.2, "max_batch": 64}) as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection:
                connection.sendall(_head(len(_BODY)) + _BODY)
        assert server.ask("POST", "/v2/models/colours/infer", _BODY).status == 200
        status, log = server.stop()
    assert status == 0
    statuses = [line["status"] for line in log]
    assert {*statuses} <= {200, 499} and 499 in statuses
