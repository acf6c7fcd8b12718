"""Runs the building process and turns whatever becomes of it into a report or one clear line."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

from resdeploy.deploy import errors
from resdeploy.deploy.engine.error_hints import hint_for
from resdeploy.deploy.engine.request import BuildReport, BuildRequest
from resdeploy.deploy.errors import EngineError, MissingDependencyError, ResdeployError
from resdeploy.deploy.progress import Progress

# Timing one tactic of a large layer takes seconds, not minutes.
SILENCE_LIMIT_S = 900.0

# tells the building process whose child it is
PARENT = "RESDEPLOY_BUILD_PARENT"

_COMMAND = (sys.executable, "-m", "resdeploy.deploy.engine.worker")
_MEMORY_ADVICE = (
    "lower the largest --batch or --workspace-mib, or free memory (on a Jetson: stop the desktop, "
    "add swap; see docs/jetson.md)"
)


def run_build(
    request: BuildRequest,
    *,
    progress: Progress,
    silence_limit_s: float = SILENCE_LIMIT_S,
    command: Sequence[str] = _COMMAND,
) -> BuildReport:
    """Build in a process of its own; when this returns or raises, that process has ended.

    Raises:
        ResdeployError: what the process reported.
        EngineError: it crashed, was killed, or was silent for `silence_limit_s`.
    """
    environment = {"CUDA_MODULE_LOADING": "LAZY", **os.environ, PARENT: str(os.getpid())}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches us, and we end it
        )
        try:
            report = _follow(process, request, progress, silence_limit_s)
        except _SilenceError as error:
            raise EngineError(
                f"{request.graph}: {request.flavor} was silent for {silence_limit_s:.0f} s "
                "during the build and was stopped: try again with another --workspace-mib"
            ) from error
        finally:
            _end(process)
        if report is None:
            raise EngineError(_death(process.returncode, request, _tail(said)))
        return report


class _SilenceError(Exception):
    """The process is alive but silent."""


def _follow(
    process: "subprocess.Popen[bytes]",
    request: BuildRequest,
    progress: Progress,
    silence_limit_s: float,
) -> BuildReport | None:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(request.to_json().encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended at once; why is told by its exit status
    progress("building", 0, 0)
    report = None
    for event in _events(process.stdout, silence_limit_s):
        if event["kind"] == "progress":
            progress(event["step"], event["done"], event["total"])
        elif event["kind"] == "error":
            raise _error(event)
        elif event["kind"] == "done":
            report = BuildReport.from_json(event["report"])
    process.wait()
    return report


def _events(stream: IO[bytes], silence_limit_s: float) -> Iterator[dict[str, Any]]:
    buffer = b""
    while True:
        ready, _, _ = select.select([stream], [], [], silence_limit_s)
        if not ready:
            raise _SilenceError
        chunk = os.read(stream.fileno(), 1 << 16)
        if not chunk:
            return
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _error(event: dict[str, Any]) -> ResdeployError:
    """The error the process raised, as the same class."""
    if event["class"] == "MissingDependencyError":
        return MissingDependencyError(event["message"], exit_code=event["exit"])
    cls = getattr(errors, event["class"], EngineError)
    error: ResdeployError = cls(event["message"])
    return error


def _death(status: int, request: BuildRequest, said: str) -> str:
    what = f"{request.graph}: the building process"
    if status == -signal.SIGKILL:
        return f"{what} was killed, most likely because it used too much memory: {_MEMORY_ADVICE}"
    last = f" (its last output: {said})" if said else ""
    advice = hint_for(said) or (
        f"build again with another --workspace-mib or a smaller --batch; if it happens again, "
        f"report it to the makers of {request.flavor}"
    )
    if status < 0:
        name = signal.Signals(-status).name
        return f"{what} crashed in {request.flavor} with {name}{last}: {advice}"
    return f"{what} ended with status {status} and no result{last}: {advice}"


def _tail(said: IO[bytes], limit: int = 300) -> str:
    said.seek(0)
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines()]
    text = " | ".join([line for line in lines if line][-3:])
    return text[-limit:]


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None and not stream.closed:
            stream.close()
