"""What surrounds every HTTP request: token, limits, one JSON line of log, one shape of refusal.

The log holds no payload and no query. A refusal is {"error": text} with the status of its reason;
an error that nobody foresaw is logged with its traceback and answered without it.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resdeploy.deploy.errors import ResdeployError
from resdeploy.deploy.serving.access_log import AccessLog, Line, Marks, marks_of
from resdeploy.deploy.serving.answer import Service
from resdeploy.deploy.serving.refusal import CODES, Reason, Refusal
from resdeploy.deploy.serving.tokens import Tokens

# a probe has no token; the page asks the user for one
_OPEN_PATHS = ("/", "/page.css", "/page.js", "/v2/health/live", "/v2/health/ready")

_log = logging.getLogger(__name__)


@dataclass
class _Exchange:
    """What is known of one request and its answer, as it goes on."""

    marks: Marks
    begun_s: float = field(default_factory=time.perf_counter)
    status: int = 0
    reason: Reason | None = None
    answered_bytes: int = 0


class Guard:
    """An ASGI application around another."""

    def __init__(
        self, app: ASGIApp, service: Service, tokens: Tokens | None, log: AccessLog | None
    ) -> None:
        """Guard `app`; `log` None writes no access log."""
        self._app = app
        self._service = service
        self.tokens = tokens
        self.log = log
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        # of headers that come twice the first counts
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in reversed(scope["headers"])}
        exchange = _Exchange(marks_of(headers))
        scope["state"] = {"model": "", "held_bytes": 0}
        scope["app"] = self  # the router then raises for unknown paths instead of answering

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                marks = exchange.marks.headers().items()
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.encode(), value.encode()) for name, value in marks),
                ]
            else:
                exchange.answered_bytes += len(message.get("body", b""))
            await send(message)

        self._in_flight += 1
        self._service.metrics.in_flight.inc()
        try:
            await self._answer(scope, receive, send_marked, headers, exchange)
        finally:
            self._in_flight -= 1
            self._service.metrics.in_flight.dec()
            self._end(scope, headers, exchange)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str],
        exchange: _Exchange,
    ) -> None:
        try:
            self._admit(scope["path"], headers)
            await self._app(scope, receive, send)
        except Exception as error:
            refusal, allow = _refusal_of(error)
            exchange.reason = refusal.reason
            if refusal.reason == "internal":
                _log.error("request %s failed", exchange.marks.request_id, exc_info=error)
            if not exchange.status and refusal.reason != "client_left":
                await _refuse(refusal, allow)(scope, receive, send)

    def _admit(self, path: str, headers: Mapping[str, str]) -> None:
        if self._in_flight > self._service.limits.requests and path not in _OPEN_PATHS:
            raise Refusal(
                "overloaded",
                f"{self._service.limits.requests} requests are being answered already: "
                "try again later",
                retry_after_s=1,
            )
        origin = headers.get("origin")
        if origin and origin.partition("://")[2] != headers.get("host"):
            # a page of another site, open in a browser on this machine, is nobody's client
            raise Refusal("foreign_page", f"requests from pages of {origin[:80]} are not answered")
        if self.tokens is None or path in _OPEN_PATHS:
            return
        if not self.tokens.accept(headers.get("authorization", "")):
            raise Refusal("unauthorized", "no valid token; send Authorization: Bearer TOKEN")

    def _end(self, scope: Scope, headers: Mapping[str, str], exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.begun_s
        state = scope["state"]
        self._service.bodies.give_back(state["held_bytes"])
        self._service.metrics.ended(state["model"], "http", exchange.reason, seconds)
        if self.log is None:
            return
        length = headers.get("content-length", "")
        line = Line(
            marks=exchange.marks,
            client=scope["client"][0] if scope.get("client") else None,
            method=scope["method"],
            path=scope["path"],
            model=state["model"],
            status=exchange.status or CODES[exchange.reason or "client_left"].http,
            reason=exchange.reason,
            received_bytes=int(length) if length.isdecimal() else None,
            sent_bytes=exchange.answered_bytes,
            seconds=seconds,
        )
        self.log.add(line)


def _refusal_of(error: Exception) -> tuple[Refusal, str]:
    """What to tell the client, and the methods allowed where the method was wrong."""
    if isinstance(error, Refusal):
        return error, ""
    if isinstance(error, HTTPException):
        if error.status_code == CODES["wrong_method"].http:
            return Refusal("wrong_method", "method not allowed"), (error.headers or {})["Allow"]
        return Refusal("unknown_path", "no such path; see /openapi.json"), ""
    if isinstance(error, ResdeployError):
        return Refusal("inference_failed", str(error)), ""
    return Refusal("internal", "a fault of the server; its log has the details"), ""


def _refuse(refusal: Refusal, allow: str) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    # whatever of the body was not read must not be taken for another request
    headers = {"connection": "close"}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(refusal.retry_after_s)
    if refusal.reason == "unauthorized":
        headers["www-authenticate"] = "Bearer"
    if allow:
        headers["allow"] = allow
    content = {"error": str(refusal)}
    return JSONResponse(content, CODES[refusal.reason].http, headers=headers)
