"""What serving costs over the network alone, and what others take for the same.

    python benchmarks/serving.py BUNDLE IMAGE [--peers PYTHON…] [--seconds 8] [--json FILE]

The load comes from `hey` on loopback, whose own CPU time is taken off the cores that the network
could have had. For images and for tensors:

    offline      images a second of the same session: one thread a run, one run a core
    saturated    requests a second of 16 clients
    efficiency   saturated / (offline · cores left over)
    cpu          CPU time of an image offline / CPU time of a request in the server, which says the
                 same on a machine that others use too. By what a peer takes for a request,
                 divided by what an image takes offline, no server of the session can lead more
    single       p50 and p99 in ms of one client
    half load    p99 in ms at half the saturated rate, from 4 clients that ask at the same moments

"Cores left over" are the machine's cores less the CPU time of `hey` in each second: on two cores,
with a client that takes 0.1 of one, the server should answer 0.9 · 1.9 / 2 of the offline images.

Also the seconds from the start of the process to ready. Each PYTHON has onnxruntime (of the version
here), numpy, pillow, click, rich and one or more of these; then the same requests go to servers
written with them (`serving_fastapi.py` and so on), and one that does not start is left out:

    fastapi uvicorn[standard]
    litserve python-multipart
    bentoml
    mlserver uvloop<0.22  (MLServer 1.7 does not start with a newer one)
"""

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from http_load import Request, answers, as_form, as_json, hey
from server_process import cpu_seconds, free_port, is_ready, ours, server
from timing import show, write_json

from resdeploy.deploy import Classifier, load
from resdeploy.deploy.machine import cores
from resdeploy.deploy.serving.decode import decode
from resdeploy.deploy.serving.limits import Limits

_CLIENTS = 16
_PACED_CLIENTS = 4
_TENSORS = 32
_PEERS = ("fastapi", "litserve", "bentoml", "mlserver")

# what the server is meant to reach
_MOST_START_S = 1.4
_LEAST_EFFICIENCY = 0.9
_MOST_RATIO = 3.0
_LEAST_LEAD = 1.3


def offline(
    classifier: Classifier, image: bytes | None, seconds: float, batch: int
) -> tuple[float, float]:
    """Images a second with one run of one thread on each core, decoded first when given; and the
    CPU time of one in ms."""
    preprocess = classifier.manifest.preprocess
    shape = (batch, 3, *preprocess.input_size_px)

    def work(end: float) -> int:
        done = 0
        # a tensor comes from memory, as in a server, and not always the same from a cache
        held = np.random.default_rng(0).standard_normal((_TENSORS // batch, *shape), np.float32)
        turns = itertools.cycle(held)
        while time.perf_counter() < end:
            rows = next(turns)
            if image is not None:
                for row in rows:
                    row[:] = decode(image, preprocess, max_pixels=Limits().pixels).pixels
            classifier.logits(rows)
            done += batch
        return done

    with ThreadPoolExecutor(cores()) as pool:
        work(time.perf_counter() + 0.3)
        began, cpu = time.perf_counter(), time.process_time()
        done = sum(pool.map(work, [began + seconds] * cores()))
        per_second = done / (time.perf_counter() - began)
        return per_second, 1000 * (time.process_time() - cpu) / done


def best_offline(
    classifier: Classifier, image: bytes | None, seconds: float
) -> tuple[float, float]:
    """The best of several batches, since a server may choose its batches too."""
    return max(offline(classifier, image, seconds / 3, batch) for batch in (1, 4, 8))


def requests(bundle: Path, image: Path, folder: Path) -> dict[str, Request]:
    """An image as it is, and a tensor in the protocol's binary form; both get five classes."""
    with load(bundle, threads=1) as classifier:
        height, width = classifier.manifest.preprocess.input_size_px
    pixels = np.random.default_rng(0).standard_normal((1, 3, height, width), np.float32)
    shape = list(pixels.shape)
    parameters = {"binary_data_size": pixels.nbytes}
    tensor = {"name": "input", "datatype": "FP32", "shape": shape, "parameters": parameters}
    output = {"name": "logits", "parameters": {"classification": 5}}  # what the peers answer
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    (folder / "tensor").write_bytes(head + pixels.tobytes())
    (folder / "raw").write_bytes(pixels.tobytes())
    name = bundle.resolve().name.removesuffix(".bundle")
    return {
        "image": Request("/v1/classify", image),
        "tensor": Request(
            f"/v2/models/{name}/infer",
            folder / "tensor",
            (f"Inference-Header-Content-Length: {len(head)}",),
        ),
        "raw": Request("/tensor", folder / "raw"),
    }


def measure(port: int, group: int, request: Request, seconds: float) -> dict[str, float]:
    """Saturate, ask alone, and ask at half the load."""
    hey(port, request, clients=4, seconds=1)  # warms
    before = cpu_seconds(group)
    full = hey(port, request, clients=_CLIENTS, seconds=seconds)
    cpu_ms = 1000 * (cpu_seconds(group) - before) / len(full.latencies_ms)
    single = hey(port, request, clients=1, seconds=seconds / 2)
    rate = full.per_second / 2
    half = hey(port, request, clients=_PACED_CLIENTS, seconds=seconds, rate=rate)
    return {
        "per_second": full.per_second,
        "cpu_ms": cpu_ms,
        "client_cores": full.client_cores,
        "p99_saturated_ms": full.percentile_ms(99),
        "single_p50_ms": single.percentile_ms(50),
        "single_p99_ms": single.percentile_ms(99),
        "half_load_per_second": half.per_second,
        "half_load_p99_ms": half.percentile_ms(99),
    }


def measured(
    options: argparse.Namespace, asked: dict[str, Request], kinds: Sequence[str]
) -> dict[str, Any]:
    """Ours, with the network alone right before and after, so that both see the same machine."""
    result: dict[str, Any] = {}
    content = {"image": options.image.read_bytes(), "tensor": None}
    with load(options.bundle, threads=1) as classifier:
        for kind in kinds:
            before = best_offline(classifier, content[kind], options.seconds)
            port = free_port()
            words = ours(options.bundle, port, *options.serve)
            with server(words, port, partial(is_ready, port)) as (group, _):
                found = measure(port, group, asked[kind], options.seconds)
            after = best_offline(classifier, content[kind], options.seconds)
            alone, cpu_ms = (
                (first + second) / 2 for first, second in zip(before, after, strict=True)
            )
            left = 1 - found["client_cores"] / cores()
            found |= {
                "offline_per_second": alone,
                "offline_cpu_ms": cpu_ms,
                "efficiency": found["per_second"] / (alone * left),
                "cpu_efficiency": cpu_ms / found["cpu_ms"],
            }
            result[f"resdeploy, {kind}"] = found
    return result


def peers(options: argparse.Namespace, asked: dict[str, Request]) -> dict[str, Any]:
    """The same requests to servers that others wrote, or that one would write oneself."""
    result: dict[str, Any] = {}
    with load(options.bundle, threads=1) as classifier:
        shape = (1, 3, *classifier.manifest.preprocess.input_size_px)
    image, tensor = Request("/predict", options.image), asked["raw"]
    infer = "/v2/models/network/infer"
    for name, python in _hosts(options.peers).items():
        for kind, request in (("image", image), ("tensor", tensor)):
            if name == "mlserver":
                one = as_json(request, infer, shape if kind == "tensor" else None)
            else:
                one = request if name == "fastapi" else as_form(request)
            port = free_port()
            program = Path(__file__).with_name(f"serving_{name}.py")
            words = [python, str(program), str(options.bundle), str(port)]
            try:
                with server(words, port, partial(answers, port, one)) as (group, _):
                    result[f"{name}, {kind}"] = measure(port, group, one, options.seconds)
            except RuntimeError as error:  # the others are measured all the same
                print(f"left out: {name}, {kind}: {error}", file=sys.stderr)
    return result


def _hosts(pythons: Sequence[str]) -> dict[str, str]:
    """Which of them runs which peer: the first that has it."""
    hosts = {}
    for name in _PEERS:
        for python in pythons:
            asking = [python, "-c", f"import onnxruntime, {name}"]
            if name not in hosts and not subprocess.run(asking, capture_output=True).returncode:
                hosts[name] = python
    return hosts


def cold_starts(bundle: Path, rounds: int) -> list[float]:
    """Seconds from the start of the process to the first 200 of the readiness probe."""
    taken = []
    for _ in range(rounds):
        port = free_port()
        with server(ours(bundle, port), port, partial(is_ready, port)) as (_, took):
            taken.append(took)
    return taken


def _row(name: str, found: dict[str, float]) -> tuple[str, ...]:
    efficiency = f"{found['efficiency']:.2f}" if "efficiency" in found else ""
    cpu = f" ({found['cpu_efficiency']:.2f})" if "cpu_efficiency" in found else ""
    return (
        name,
        f"{found['per_second']:.1f}",
        efficiency,
        f"{found['cpu_ms']:.2f}{cpu}",
        f"{found['single_p50_ms']:.1f}",
        f"{found['single_p99_ms']:.1f}",
        f"{found['half_load_p99_ms']:.1f}",
        f"{found['half_load_p99_ms'] / found['single_p99_ms']:.1f}",
    )


def targets(loads: dict[str, Any], start_s: float) -> list[tuple[str, str, str, str]]:
    """What the server is meant to reach: its name, the target, what was found, and whether met."""
    rows = [_target("cold start to ready, s", "≤", _MOST_START_S, start_s)]
    for kind in ("image", "tensor"):
        found = loads[f"resdeploy, {kind}"]
        ratio = found["half_load_p99_ms"] / found["single_p99_ms"]
        rows.append(_target(f"{kind}: efficiency", "≥", _LEAST_EFFICIENCY, found["efficiency"]))
        rows.append(_target(f"{kind}: p99 at half load / single", "≤", _MOST_RATIO, ratio))
        for name in _PEERS:
            if peer := loads.get(f"{name}, {kind}"):
                faster = found["per_second"] / peer["per_second"]
                cheaper = peer["cpu_ms"] / found["cpu_ms"]
                rows.append(_target(f"{kind}: requests/s / {name}'s", "≥", _LEAST_LEAD, faster))
                rows.append(_target(f"{kind}: {name}'s CPU time / ours", "≥", _LEAST_LEAD, cheaper))
                most = peer["cpu_ms"] / found["offline_cpu_ms"]
                rows.append((f"{kind}: {name}'s CPU time / offline", "", f"{most:.2f}", ""))
    return rows


def _target(name: str, sign: str, target: float, found: float) -> tuple[str, str, str, str]:
    met = found >= target if sign == "≥" else found <= target
    return name, f"{sign} {target:g}", f"{found:.2f}", "yes" if met else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--peers", nargs="*", default=[], metavar="PYTHON")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--serve", nargs="*", default=[], metavar="OPTION", help="for the server")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # beside it goes what is made of it
        options.image = Path(shutil.copy(options.image, folder))
        asked = requests(options.bundle, options.image, Path(folder))
        starts = cold_starts(options.bundle, options.starts)
        result = measured(options, asked, ("image", "tensor"))
        if options.peers:
            result |= peers(options, asked)
    columns = ("", "requests/s", "efficiency", "cpu ms", "p50 ms", "p99 ms", "half p99", "ratio")
    show("serving", columns, [_row(name, found) for name, found in result.items()])
    start = statistics.median(starts)
    print(f"cold start to ready: {start:.2f} s (median of {len(starts)}, best {min(starts):.2f} s)")
    show("targets", ("", "target", "found", "met"), targets(result, start))
    write_json(options.json, {"loads": result, "cold_start_s": starts})


if __name__ == "__main__":
    main()
