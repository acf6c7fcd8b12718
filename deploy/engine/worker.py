"""The building process: a request on stdin, events on stdout, the plan into a file.

    python -m resdeploy.deploy.engine.worker < request.json

TensorRT is native code that may crash, hang or be killed for its memory; that must end this
process only. Each event is a line of JSON with its kind: "alive", "progress", "done" or "error".
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resdeploy.deploy.cuda import cuda_problem, device, load_cuda
from resdeploy.deploy.engine.builder import build_plan
from resdeploy.deploy.engine.flavor import import_tensorrt
from resdeploy.deploy.engine.layer_table import LayerCounts
from resdeploy.deploy.engine.log import BuildLog
from resdeploy.deploy.engine.request import BuildReport, BuildRequest
from resdeploy.deploy.engine.supervisor import PARENT
from resdeploy.deploy.errors import BackendError, InputError, ResdeployError
from resdeploy.deploy.machine import free_memory_bytes, peak_memory_bytes
from resdeploy.deploy.system.processes import end_with_parent

_MIB = 1 << 20
_ALIVE_EVERY_S = 1.0
_MOST_WARNINGS = 20

Send = Callable[[dict[str, Any]], None]


def build(request: BuildRequest, send: Send, trt: Any = None) -> BuildReport:
    """Build the plan and write it; `trt` is the library, by default the flavour's own.

    Raises:
        ResdeployError: see `engine_builder.build_plan`; InputError when the disk is full.
    """
    trt = trt or import_tensorrt(request.flavor)
    has_gpu = cuda_problem() is None
    free = _free_bytes(has_gpu)
    workspace = _workspace_bytes(request.options.workspace_mib, free, has_gpu)
    log = BuildLog(_throttled(lambda: send({"kind": "alive"})))
    start = time.monotonic()
    plan = build_plan(
        trt,
        request,
        log,
        workspace_bytes=workspace,
        has_gpu=has_gpu,
        progress=lambda step, done, total: send(
            {"kind": "progress", "step": step, "done": done, "total": total}
        ),
    )
    seconds = time.monotonic() - start
    _write(Path(request.plan), plan)
    return BuildReport(
        version=trt.__version__,
        seconds=round(seconds, 3),
        workspace_mib=workspace // _MIB,
        free_memory_mib=free // _MIB,
        peak_memory_mib=peak_memory_bytes() // _MIB,
        warnings=tuple(dict.fromkeys(log.warnings))[:_MOST_WARNINGS],
        layers=LayerCounts.of(log.layers) if log.layers else None,
        convolutions=(
            LayerCounts.of(layer for layer in log.layers if layer.is_convolution)
            if log.layers
            else None
        ),
    )


def main() -> int:
    """Run as the building process."""
    _end_with_parent()
    # what native code prints must not get between the events
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(event: dict[str, Any]) -> None:
        try:
            events.write(json.dumps(event) + "\n")
            events.flush()
        except BrokenPipeError:
            os._exit(1)  # nobody waits for the result any more

    try:
        report = build(BuildRequest.from_json(sys.stdin.read()), send)
    except ResdeployError as error:
        what = {"class": type(error).__name__, "message": str(error), "exit": error.exit_code}
        send({"kind": "error", **what})
        return 1
    send({"kind": "done", "report": asdict(report)})
    return 0


def _workspace_bytes(asked_mib: int | None, free: int, has_gpu: bool) -> int:
    """A share of the memory: TensorRT's own default is all of it, which ends small machines."""
    if asked_mib is not None:
        return asked_mib * _MIB
    gpu = device()
    if gpu is not None and gpu.integrated:
        # the CPU, the desktop and the builder itself live in the same memory
        return max(256 * _MIB, min(1024 * _MIB, free // 4))
    return max(256 * _MIB, min(8192 * _MIB if has_gpu else 4096 * _MIB, free // 2))


def _free_bytes(has_gpu: bool) -> int:
    gpu = device()
    if not has_gpu or gpu is None or gpu.integrated:
        return free_memory_bytes()
    try:
        return load_cuda().free_memory_bytes()
    except BackendError:
        return free_memory_bytes()


def _write(path: Path, plan: Any) -> None:
    try:
        with path.open("wb") as file:
            file.write(memoryview(plan))
            file.flush()
            os.fsync(file.fileno())  # a Jetson may lose its power at any time
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written: {error.strerror}") from error


def _throttled(action: Callable[[], None]) -> Callable[[], None]:
    last = time.monotonic()

    def call() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _ALIVE_EVERY_S:
            last = now
            action()

    return call


def _end_with_parent() -> None:
    """A parent that was killed cannot end us: let the kernel do it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and says so
    parent = os.environ.get(PARENT)
    end_with_parent(None if parent is None else int(parent))


if __name__ == "__main__":
    sys.exit(main())
