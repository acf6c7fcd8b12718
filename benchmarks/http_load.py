"""Requests to a server on loopback, many at once, by `hey`."""

import base64
import csv
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Load:
    """What `hey` saw: requests a second, sorted latencies in ms, its own CPU seconds a second."""

    per_second: float
    latencies_ms: tuple[float, ...]
    client_cores: float

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies_ms, percent))


@dataclass(frozen=True)
class Request:
    """One kind of request: where it goes, its body's file, its headers."""

    path: str
    body: Path
    headers: tuple[str, ...] = ()
    content_type: str = "application/octet-stream"


def hey(port: int, request: Request, *, clients: int, seconds: float, rate: float = 0.0) -> Load:
    """Ask for so long; a rate of 0 is as fast as the answers come."""
    words = ["hey", "-m", "POST", "-z", f"{seconds}s", "-c", str(clients), "-o", "csv"]
    words += ["-t", "30", "-T", request.content_type, "-D", str(request.body)]
    words += [word for header in request.headers for word in ("-H", header)]
    words += ["-q", str(rate / clients)] if rate else []
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            [*words, f"http://127.0.0.1:{port}{request.path}"], stdout=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        took = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        rows = list(csv.DictReader(output))
    codes = {row["status-code"] for row in rows}
    if process.returncode or codes != {"200"}:
        raise RuntimeError(f"hey {request.path}: exit {process.returncode}, statuses {codes}")
    latencies = sorted(1000 * float(row["response-time"]) for row in rows)
    return Load(len(rows) / took, tuple(latencies), (usage.ru_utime + usage.ru_stime) / took)


def answers(port: int, request: Request) -> bool:
    body = request.body.read_bytes()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{request.path}", body)
    asked.add_header("content-type", request.content_type)
    try:
        with urllib.request.urlopen(asked, timeout=30):
            return True
    except (OSError, urllib.error.URLError):
        return False


def as_json(request: Request, path: str, shape: tuple[int, ...] | None) -> Request:
    """The same content as JSON of the Open Inference Protocol: base64 text, or numbers."""
    content = request.body.read_bytes()
    tensor: dict[str, object] = {"name": "input", "datatype": "BYTES", "shape": [1]}
    if shape is None:
        tensor |= {"data": [base64.b64encode(content).decode()]}
        tensor |= {"parameters": {"content_type": "base64"}}
    else:
        numbers = np.frombuffer(content, np.float32).tolist()
        tensor |= {"datatype": "FP32", "shape": list(shape), "data": numbers}
    body = Path(f"{request.body}.json")
    body.write_text(json.dumps({"inputs": [tensor]}))
    return Request(path, body, content_type="application/json")


def as_form(request: Request) -> Request:
    """The same content as the file of a form, which LitServe wants."""
    head = 'content-disposition: form-data; name="content"; filename="content"'
    body = Path(f"{request.body}.form")
    content = request.body.read_bytes()
    body.write_bytes(f"--limit\r\n{head}\r\n\r\n".encode() + content + b"\r\n--limit--\r\n")
    return Request("/predict", body, content_type="multipart/form-data; boundary=limit")
