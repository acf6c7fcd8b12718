"""Asks routes as a server would, without one."""

import asyncio
from collections.abc import Sequence

from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import Message, Scope


def ask(routes: Sequence[BaseRoute], path: str, method: str = "GET") -> Response:
    """The answer to one request; errors pass through."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "path": path, "method": method, "headers": [], "app": None}
    asyncio.run(Router(routes)(scope, receive, send))
    begin, *bodies = sent
    headers = {name.decode(): value.decode() for name, value in begin["headers"]}
    return Response(b"".join(body["body"] for body in bodies), begin["status"], headers)
