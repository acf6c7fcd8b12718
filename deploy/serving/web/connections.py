"""A uvicorn connection with limits: how many, how large the headers, how long it may be silent.

It also tells an application that its client has left, by `scope["extensions"][LEAVING]`: to await
that by ASGI's `receive` takes a task for each request.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from resdeploy.deploy.serving.limits import Limits
from resdeploy.deploy.serving.refusal import CODES, Reason

# of a body before the application, which counts them all, gets to see it; a tensor fits
_HELD_BYTES = 1 << 20
_READ_BYTES = 256 << 10

# the key of a function that takes another, which is called when the client leaves
LEAVING = "resdeploy.leaving"


class LimitedProtocol(HttpToolsProtocol):
    """Closes connections that are too many, too slow or send too long headers."""

    limits: ClassVar[Limits] = Limits()
    room: ClassVar["_Room"]

    _stage: Literal["idle", "head", "body"] = "idle"
    _begun_now = False  # the head began in the bytes just read, at an unknown place
    _head_bytes = 0
    _held_bytes = 0
    _opened_s = 0.0
    _timer: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    _left = False
    _when_left: Callable[[], None] | None = None

    # a stream's transport, for which asyncio's base class has a wider type
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # see above
        """Count the connection and wait for its first request."""
        self._socket = transport
        super().connection_made(_OneWrite(transport, self.loop))  # type: ignore[arg-type]  # as below
        self._parts: list[bytes] = []
        self._opened_s = self.loop.time()
        self.room.silent[self] = None
        if not self._make_room():
            self._refuse("overloaded", "too many connections: try again later")
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for it."""
        self._stop_waiting()
        self.room.silent.pop(self, None)
        self.room.leaving.discard(self)
        super().connection_lost(exc)
        if self._running is not None:  # uvicorn tells the last one that came only
            self._running.disconnected = not self._running.response_complete
            self._running.message_event.set()
        self._left = True
        if self._when_left is not None:
            self._when_left()
            self._when_left = None

    def when_left(self, call: Callable[[], None]) -> None:
        """Call this when the client leaves, at once if it has; only the last one given counts."""
        if self._left:
            call()
        else:
            self._when_left = call

    def data_received(self, data: bytes) -> None:
        """Read on, as long as the headers stay short."""
        self._begun_now = False
        if len(data) >= _READ_BYTES:  # there is more: asyncio's transports read so much at once
            self._socket.max_size = _HELD_BYTES  # type: ignore[attr-defined]  # of asyncio's own
        super().data_received(data)
        if self.transport.is_closing() or self._stage == "body":
            return
        if self._stage == "head" and not self._begun_now:
            # the parser keeps an unfinished header to itself: count what it was given
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.header_bytes:
                self._refuse_headers()
                return
        if self._timer is None and self._is_idle():
            self._wait_for_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.room.silent.pop(self, None)
        self._stage = "head"
        self._begun_now = True
        self._head_bytes = 0
        self._parts = []
        self._held_bytes = 0

    def on_headers_complete(self) -> None:
        """Its headers are all there: judge their size."""
        self._stop_waiting()
        self._stage = "body"
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.header_bytes:
            self._refuse_headers()
        if not self.transport.is_closing():
            extensions: dict[str, Any] = {LEAVING: self.when_left}
            self.scope["extensions"] = extensions
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass the body on when it is whole or long; uvicorn would do so in small parts."""
        if self.transport.is_closing() or self.cycle.response_complete:
            return
        self._parts.append(body)
        self._held_bytes += len(body)
        if self._held_bytes > _HELD_BYTES:
            self.flow.pause_reading()
            self._pass_on()
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is all there."""
        self._stage = "idle"
        if not self.transport.is_closing():
            self._pass_on()
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _pass_on(self) -> None:
        parts = [bytes(self.cycle.body), *self._parts] if self.cycle.body else self._parts
        self.cycle.body = b"".join(parts)  # type: ignore[assignment]  # of bytes, none is a copy
        self._parts = []
        self._held_bytes = 0

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _may_go(self) -> bool:
        """Whether it asked something, was answered, and is not closing."""
        return self.cycle is not None and self._is_idle() and not self.transport.is_closing()

    def _make_room(self) -> bool:
        """Close the longest idle connection, first of those that never asked anything.

        A flood of silent connections then keeps no client out, and costs little itself: the oldest
        of them is found without looking at the others.
        """
        if len(self.connections) - len(self.room.leaving) <= self.limits.connections:
            return True
        oldest = next(iter(self.room.silent))
        if oldest is self:
            idle = [c for c in self.connections if isinstance(c, LimitedProtocol) and c._may_go()]
            if not idle:
                return False
            oldest = min(idle, key=lambda found: found._opened_s)
        oldest._refuse("overloaded", "too many connections, and this one is idle: try again later")
        return True

    def _wait_for_head(self) -> None:
        self._timer = self.loop.call_later(self.limits.arrival_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self._refuse("too_slow", f"no request within {self.limits.arrival_s:g} s")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; uvicorn would answer with plain text."""
        self._refuse("malformed", "not a valid HTTP request")

    def _refuse_headers(self) -> None:
        most = self.limits.header_bytes
        self._refuse("headers_too_large", f"the headers are too large, limit: {most} bytes")

    def _refuse(self, reason: Reason, text: str) -> None:
        """Answer as the guard does, for no request has come as far as that; then close."""
        if self.transport.is_closing():
            return
        self._stop_waiting()
        self.room.silent.pop(self, None)
        self.room.leaving.add(self)
        status = HTTPStatus(CODES[reason].http)
        content = json.dumps({"error": text}).encode()
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            "content-type: application/json",
            f"content-length: {len(content)}",
            *(["retry-after: 1"] if reason == "overloaded" else []),
            "connection: close",
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + content)
        self.transport.close()


class _OneWrite:
    """A transport that sends the head of a response and the body that follows it at once.

    uvicorn writes them one after the other, which costs a system call more, and the client too.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(b"HTTP/"):
            self._head = data
            self._loop.call_soon(self._flush)  # a body that comes later, or never
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@dataclass
class _Room:
    """What the connections of one server know of each other.

    Attributes:
        silent: those that never asked anything, oldest first.
        leaving: refused, but not gone yet.
    """

    silent: dict[LimitedProtocol, None] = field(default_factory=dict)
    leaving: set[LimitedProtocol] = field(default_factory=set)


def limited_protocol(limits: Limits) -> type[LimitedProtocol]:
    """The class of connections that keep to `limits`; uvicorn makes one for each connection."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": limits, "room": _Room()})
