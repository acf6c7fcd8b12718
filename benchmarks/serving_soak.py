"""Whether the server stays right and small for as long as it runs, whatever is done to it.

    python benchmarks/serving_soak.py BUNDLE IMAGE [--seconds 600] [--reloads 200]
                                      [--connections 10000] [--json FILE]

Three trials, each of a server of its own:

    soak         clients send good tensors and images, and every kind of bad request: wrong names
                 and shapes, what is no image, lying lengths, half a body. Counted: answers that
                 differ from the network's own by more than 1e-5, statuses that do not belong to the
                 request, 5xx other than 503; and the server's memory after a minute and at the end
    reloads      the model is loaded again so many times while clients ask; none may see an error
    connections  so many connections that say nothing are opened and held for some seconds, while
                 clients ask; their answers and the server's memory are watched

Exits with 1 if anything was wrong.
"""

import argparse
import http.client
import json
import os
import random
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from server_process import free_port, is_ready, ours, server
from timing import show, write_json

from resdeploy.deploy import load

_CLIENTS = 4
_INPUTS = 8
_CLOSE = 1e-5
_HELD_S = 5.0


@dataclass(frozen=True)
class Kind:
    """A kind of request: what is sent, the statuses that belong to it, and what to look at."""

    path: str
    body: bytes
    headers: dict[str, str]
    statuses: tuple[int, ...]
    expected: Any = None


@dataclass
class Findings:
    """What the clients saw; of several threads."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, kind: Kind, status: int, body: bytes) -> None:
        self.statuses[status] += 1
        if status not in (*kind.statuses, 503):
            self.wrong.append(f"{kind.path}: {status} {body[:100]!r}")
        elif status == 200 and kind.expected is not None and not _right(kind, body):
            self.wrong.append(f"{kind.path}: a wrong answer {body[:100]!r}")


def _right(kind: Kind, body: bytes) -> bool:
    content = json.loads(body)
    if "outputs" in content:
        found = np.array(content["outputs"][0]["data"])
        return bool(np.abs(found - kind.expected).max() <= _CLOSE)
    return bool(content["results"][0]["predictions"][0]["label"] == kind.expected)


def kinds(bundle: Path, image: Path) -> list[Kind]:
    """Good requests with their answers, and bad ones."""
    name = bundle.resolve().name.removesuffix(".bundle")
    infer = f"/v2/models/{name}/infer"
    data = image.read_bytes()
    found: list[Kind] = []
    with load(bundle, threads=1) as classifier:
        height, width = classifier.manifest.preprocess.input_size_px
        top = classifier.predict(image, top=1)[0].label
        for seed in range(_INPUTS):
            shape = (1, 3, height, width)
            pixels = np.random.default_rng(seed).standard_normal(shape, np.float32)
            expected = classifier.logits(pixels).ravel()
            found.append(_tensor(infer, pixels.tobytes(), list(shape), (200,), expected))
    raw = pixels.tobytes()
    found += [Kind("/v1/classify", data, {}, (200,), top)] * _INPUTS
    found += [
        _tensor(infer, raw, [1, 3, height, width + 1], (400,)),
        _tensor(infer, raw, [3, height, width], (400,)),
        _tensor(infer, raw[:-4], [1, 3, height, width], (400,)),
        _tensor(infer, raw, [1, 3, height, width], (400,), tensor="no_such_input"),
        _tensor("/v2/models/no_such_model/infer", raw, [1, 3, height, width], (404,)),
        Kind("/v1/classify", data[: len(data) // 2], {}, (400,)),
        Kind("/v1/classify", b"no image", {}, (400,)),
        Kind("/v1/classify?top=0", data, {}, (400,)),
        Kind("/no/such/path", b"", {}, (404,)),
        Kind(infer, b"{", {}, (400,)),
        Kind(infer, b"", {"content-length": str(1 << 40)}, (413,)),
    ]
    return found


def _tensor(
    path: str,
    raw: bytes,
    shape: list[int],
    statuses: tuple[int, ...],
    expected: Any = None,
    tensor: str = "input",
) -> Kind:
    parameters = {"binary_data_size": len(raw)}
    one = {"name": tensor, "datatype": "FP32", "shape": shape, "parameters": parameters}
    head = json.dumps({"inputs": [one]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Kind(path, head + raw, headers, statuses, expected)


def ask(port: int, kind: Kind) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", kind.path, kind.body, kind.headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def leave(port: int, kind: Kind) -> None:
    """Send half a body, then leave."""
    head = f"POST {kind.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(kind.body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + kind.body[: len(kind.body) // 2])


def client(port: int, mix: list[Kind], seed: int, stop: threading.Event, seen: Findings) -> None:
    """Ask one after the other, in a random order, until told to stop."""
    choose = random.Random(seed)
    while not stop.is_set():
        kind = choose.choice(mix)
        if choose.random() < 0.02:
            leave(port, kind)
            continue
        try:
            seen.note(kind, *ask(port, kind))
        except OSError as error:
            seen.wrong.append(f"{kind.path}: {error!r}")


def under_load(port: int, mix: list[Kind], work: Callable[[], None]) -> Findings:
    """Do something while clients ask."""
    seen, stop = Findings(), threading.Event()
    asking = [
        threading.Thread(target=client, args=(port, mix, seed, stop, seen))
        for seed in range(_CLIENTS)
    ]
    for thread in asking:
        thread.start()
    try:
        work()
    finally:
        stop.set()
        for thread in asking:
            thread.join()
    return seen


def memory_mib(group: int) -> float:
    for line in Path(f"/proc/{group}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def soak(bundle: Path, image: Path, seconds: float) -> dict[str, Any]:
    port = free_port()
    with server(ours(bundle, port), port, partial(is_ready, port)) as (group, _):
        sizes: list[float] = []

        def watch() -> None:
            settled = min(60.0, seconds / 2)
            time.sleep(settled)
            sizes.append(memory_mib(group))
            time.sleep(seconds - settled)
            sizes.append(memory_mib(group))

        seen = under_load(port, kinds(bundle, image), watch)
    return _figures(seen, memory_settled_mib=sizes[0], memory_mib=sizes[1])


def reloads(bundle: Path, image: Path, count: int) -> dict[str, Any]:
    port = free_port()
    name = bundle.resolve().name.removesuffix(".bundle")
    again = Kind(f"/v2/repository/models/{name}/load", b"", {}, (200,))
    good = [kind for kind in kinds(bundle, image) if kind.statuses == (200,)]
    with server(ours(bundle, port), port, partial(is_ready, port)) as (group, _):
        loads = Findings()

        def load_again() -> None:
            for _ in range(count):
                loads.note(again, *ask(port, again))

        seen = under_load(port, good, load_again)
        used = memory_mib(group)
    seen.wrong += loads.wrong
    # 503 is deliberate elsewhere; a reload is no reason for one
    seen.wrong += [f"503, {seen.statuses[503]} times"] * bool(seen.statuses[503])
    return _figures(seen, loaded=loads.statuses[200], memory_mib=used)


def connections(bundle: Path, image: Path, count: int) -> dict[str, Any]:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < count + 100:
        raise SystemExit(f"error: at most {most} files may be open here: {count} are too many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, most))
    port = free_port()
    good = [kind for kind in kinds(bundle, image) if kind.statuses == (200,)]
    with server(ours(bundle, port), port, partial(is_ready, port)) as (group, _):
        silent: list[socket.socket] = []

        def open_all() -> None:
            for _ in range(count):
                silent.append(socket.create_connection(("127.0.0.1", port), 60))
            time.sleep(_HELD_S)

        try:
            seen = under_load(port, good, open_all)
            used, files = memory_mib(group), len(os.listdir(f"/proc/{group}/fd"))
        finally:
            for connection in silent:
                connection.close()
    return _figures(seen, opened=len(silent), memory_mib=used, files_of_the_server=files)


def _figures(seen: Findings, **figures: float) -> dict[str, Any]:
    return {
        "requests": sum(seen.statuses.values()),
        "statuses": {str(status): seen.statuses[status] for status in sorted(seen.statuses)},
        "wrong": len(seen.wrong),
        "first_wrong": seen.wrong[:3],
        **{name: round(value, 1) for name, value in figures.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0, help="0 leaves the trial out")
    parser.add_argument("--reloads", type=int, default=200, help="0 leaves the trial out")
    parser.add_argument("--connections", type=int, default=10_000, help="0 leaves the trial out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for name, trial, size in (
        ("soak", soak, options.seconds),
        ("reloads", reloads, options.reloads),
        ("connections", connections, options.connections),
    ):
        if size:
            result[name] = trial(options.bundle, options.image, size)
    for name, found in result.items():
        show(name, ("", ""), [(key.replace("_", " "), str(value)) for key, value in found.items()])
    write_json(options.json, result)
    sys.exit(any(found["wrong"] for found in result.values()))


if __name__ == "__main__":
    main()
