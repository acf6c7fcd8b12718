"""The process: signals, ports, bundles that fail, and reloading under requests."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from resdeploy.deploy.arrays import Float32s
from resdeploy.deploy.bundle.bundle import read_bundle, write_manifest
from resdeploy.deploy.serving.rpc.messages import SERVICE
from tests.deploy.serving.running import WAIT_S, Running, running

WriteBundle = Callable[..., Path]

_BODY = json.dumps(
    {
        "inputs": [
            {
                "name": "input",
                "datatype": "FP32",
                "shape": [1, 3, 8, 8],
                "data": [1.0] * 64 + [0.0] * 128,
            }
        ]
    }
)


def _answer(server: Running) -> int:
    reply = server.ask("POST", "/v2/models/colours/infer", _BODY)
    assert reply.status == 200, reply.body
    logits = reply.json()["outputs"][0]["data"]
    return int(logits.index(max(logits)))


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "resdeploy", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


@pytest.mark.slow
def test_sigterm_finishes_what_was_accepted(colours_bundle: Path) -> None:
    statuses: list[int] = []
    with running([colours_bundle], rules={"max_wait_s": 0.5}) as server:

        def ask() -> None:
            statuses.append(server.ask("POST", "/v2/models/colours/infer", _BODY).status)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while "resdeploy_requests_in_flight 4.0" not in server.get("/metrics").body.decode():
            pass
        status, log = server.stop()
        for thread in threads:
            thread.join()
        assert (status, statuses) == (0, [200] * 3)
        assert sum(line["path"].endswith("infer") for line in log) == 3
        with pytest.raises(ConnectionRefusedError):
            server.get("/v2/health/live")


@pytest.mark.slow
def test_a_port_in_use_is_one_line(colours_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = _run(str(colours_bundle), "--port", str(port), "--no-grpc")
    assert result.returncode == 1
    assert result.stderr == (
        f"error: port {port} on 127.0.0.1 is in use: choose another with --port\n"
    )


@pytest.mark.slow
def test_a_bundle_that_fails_its_check_is_named_and_not_served(
    tmp_path: Path, colours_bundle: Path, write_bundle: WriteBundle, identity: Float32s
) -> None:
    bad = write_bundle(tmp_path / "bad.bundle", {"fp32": -identity})
    shutil.copy(colours_bundle / "reference.npz", bad)
    write_manifest(bad, read_bundle(bad).manifest)
    result = _run(str(colours_bundle), str(bad), "--port", "0", "--no-grpc")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {bad}: fp32 on ort-cpu gives other answers than recorded")
    with running([colours_bundle, bad], keep_going=True) as server:
        assert _answer(server) == 0
        assert server.get("/v2/health/ready").status == 200
        assert server.get("/v2/models/bad/ready").status == 503
        index = server.post("/v2/repository/index", {}).json()
        assert "other answers" in index[1]["reason"]


@pytest.mark.slow
def test_leaving_loopback_without_tokens_is_remarked(tmp_path: Path) -> None:
    result = _run(str(tmp_path / "no.bundle"), "--host", "0.0.0.0", "--port", "0", "--no-grpc")
    assert result.returncode == 1
    note, listening, error = result.stderr.splitlines()
    assert note == "note: whoever reaches 0.0.0.0 is answered: --token-file limits that"
    assert listening.startswith("listening on http://0.0.0.0:")
    assert error.startswith(f"error: {tmp_path}/no.bundle: no such bundle")
    local = _run(str(tmp_path / "no.bundle"), "--port", "0", "--no-grpc")
    assert "note:" not in local.stderr


@pytest.mark.slow
def test_tls_on_both_protocols(tmp_path: Path, colours_bundle: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    make = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    files = ("-nodes", "-days", "1", "-keyout", str(key), "-out", str(cert))
    subprocess.run([*make, *files, *names], check=True, capture_output=True)
    with running([colours_bundle], grpc_port=0, tls_cert=str(cert), tls_key=str(key)) as server:
        trusted = ssl.create_default_context(cafile=str(cert))
        address = f"https://127.0.0.1:{server.port}/v2/health/ready"
        with urllib.request.urlopen(address, context=trusted, timeout=WAIT_S) as reply:
            assert reply.status == 200
        credentials = grpc.ssl_channel_credentials(cert.read_bytes())
        with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
            live = channel.unary_unary(f"/{SERVICE}/ServerLive")
            assert live(b"", timeout=WAIT_S) == b"\x08\x01"
        with pytest.raises((ConnectionError, http.client.BadStatusLine)):
            server.get("/v2/health/ready")
    swapped = running([colours_bundle], tls_cert=str(key), tls_key=str(key))
    with pytest.raises(AssertionError, match="no certificate with its key"), swapped:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("how", ["request", "signal", "watch"])
def test_reloading_drops_no_request(
    how: str,
    colours_bundle: Path,
    write_bundle: WriteBundle,
    rotated: Float32s,
) -> None:
    with running([colours_bundle], watch=how == "watch") as server:
        answers: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answers.append(_answer(server))

        asking = threading.Thread(target=ask)
        asking.start()
        new = write_bundle(colours_bundle.with_name("new"), {"fp32": rotated})
        old = colours_bundle.rename(colours_bundle.with_name("old"))
        new.rename(colours_bundle)
        if how == "request":
            assert server.post("/v2/repository/models/colours/load", {}).status == 200
        elif how == "signal":
            os.kill(server.process.pid, signal.SIGHUP)
        deadline = time.monotonic() + WAIT_S
        while 1 not in answers and time.monotonic() < deadline:
            time.sleep(0.01)
        stop.set()
        asking.join()
        assert old.is_dir()
        changed = answers.index(1)
        assert {*answers[:changed]} <= {0} and {*answers[changed:]} == {1}
        assert server.stop()[0] == 0
