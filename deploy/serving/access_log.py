"""Writes the access log in a thread, so that a reader that stops reading stops no request."""

import json
import random
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TextIO

from resdeploy.deploy.serving.refusal import Reason

# a reader that is this far behind misses lines
_LINES = 10_000
_END_S = 2.0
# lines are written together, not each in a turn of the thread's own
_PAUSE_S = 0.1
_PATH_CHARACTERS = 200

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
# W3C Trace Context: version, trace, parent, flags; then what vendors add to it
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_STATE = re.compile(r"[\x20-\x7e]{1,512}")


@dataclass(frozen=True)
class Marks:
    """What ties a request to others: its id and, where the client traces, its trace."""

    request_id: str
    trace_parent: str
    trace_state: str
    trace_id: str | None

    def headers(self) -> dict[str, str]:
        """What goes back to the client."""
        found = {"x-request-id": self.request_id}
        if self.trace_id:
            found["traceparent"] = self.trace_parent
            if self.trace_state:
                found["tracestate"] = self.trace_state
        return found


def marks_of(headers: Mapping[str, str]) -> Marks:
    """The marks of a request, from headers or metadata; an id is made where none is usable."""
    given = headers.get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
    parent = headers.get("traceparent", "")
    trace = _TRACE_PARENT.fullmatch(parent)
    state = headers.get("tracestate", "")
    state = state if _TRACE_STATE.fullmatch(state) else ""
    return Marks(request_id, parent, state, trace[1] if trace else None)


@dataclass(frozen=True)
class Line:
    """One request in the log: no payload, no query; a status is HTTP's or the name of gRPC's."""

    marks: Marks
    client: str | None
    method: str
    path: str
    model: str
    status: int | str
    reason: Reason | None
    received_bytes: int | None
    sent_bytes: int
    seconds: float

    def to_json(self, ended_s: float) -> dict[str, Any]:
        """Plain values, the time of the end first, which is given in seconds since 1970."""
        ended = datetime.fromtimestamp(ended_s, timezone.utc)
        return {
            "time": ended.isoformat(timespec="milliseconds"),
            "request_id": self.marks.request_id,
            "trace_id": self.marks.trace_id,
            "client": self.client,
            "method": self.method,
            "path": self.path[:_PATH_CHARACTERS],
            "model": self.model or None,
            "status": self.status,
            "reason": self.reason,
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
            "ms": round(1000 * self.seconds, 3),
        }


class AccessLog:
    """One JSON line for each request, in order; a context manager that writes the last ones."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # the line, when the request ended, and how many lines were lost before it
        self._queue: SimpleQueue[tuple[Line, float, int] | None] = SimpleQueue()
        self._missed = 0
        # a daemon: a reader that never reads must not keep the process from its end
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._thread.start()

    def add(self, line: Line) -> None:
        """Queue a line; where the queue is full, the next one that fits tells how many are lost."""
        if self._queue.qsize() >= _LINES:
            self._missed += 1
            return
        self._queue.put((line, time.time(), self._missed))
        self._missed = 0

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            line, ended_s, missed = item
            fields = line.to_json(ended_s)
            try:
                self._stream.write(
                    json.dumps({**fields, "missed": missed} if missed else fields) + "\n"
                )
                if self._queue.empty():
                    self._stream.flush()
                    time.sleep(_PAUSE_S)
            except (OSError, ValueError):
                return  # the reader has left for good

    def __enter__(self) -> "AccessLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(_END_S)
