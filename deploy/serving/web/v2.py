"""The Open Inference Protocol (V2) over HTTP: its routes, with the binary tensor extension.

Also the repository extension of Triton: index, load, unload.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from resdeploy.deploy.serving.answer import Service, Timing, infer
from resdeploy.deploy.serving.describe import EXTENSIONS, model_metadata, versions_of
from resdeploy.deploy.serving.interrupt import Interruptible
from resdeploy.deploy.serving.limits import Limits
from resdeploy.deploy.serving.protocol.http_body import (
    LENGTH_HEADER,
    encode_infer,
    json_object,
    parse_infer,
)
from resdeploy.deploy.serving.protocol.tensors import malformed
from resdeploy.deploy.serving.refusal import Refusal
from resdeploy.deploy.serving.web.connections import LEAVING
from resdeploy.deploy.serving.web.route import route

# beyond this, reading JSON would keep the event loop from other requests
_PARSED_AT_ONCE_BYTES = 64 << 10
_LEFT = "the client left"
_TIMING = "decode;dur=%.3f, preprocess;dur=%.3f, queue;dur=%.3f, inference;dur=%.3f"

Result = TypeVar("Result")


def v2_routes(service: Service) -> list[Route]:
    """The routes under /v2."""
    endpoints = _Endpoints(service)
    model = "/v2/models/{model}"
    of_version = model + "/versions/{version}"
    # routes are tried in their order, and this one is for most requests
    return [
        *(route(path + "/infer", endpoints.infer, "POST") for path in (model, of_version)),
        route("/v2", endpoints.server, "GET"),
        route("/v2/health/live", endpoints.live, "GET"),
        route("/v2/health/ready", endpoints.ready, "GET"),
        *(route(path, endpoints.metadata, "GET") for path in (model, of_version)),
        *(route(path + "/ready", endpoints.model_ready, "GET") for path in (model, of_version)),
        route("/v2/repository/index", endpoints.index, "POST"),
        route("/v2/repository/models/{model}/load", endpoints.load, "POST"),
        route("/v2/repository/models/{model}/unload", endpoints.unload, "POST"),
    ]


def name_request(request: Request, service: Service, name: str) -> None:
    """Tell log and metrics which model is meant, if there is one of that name."""
    if name in service.repository.names:
        request.scope["state"]["model"] = name


async def read_body(request: Request, service: Service) -> bytes:
    """The whole body, within the limits of size and time.

    Raises:
        Refusal: too large, too slow, or the client left.
    """
    limits, state = service.limits, request.scope["state"]
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise _too_large(limits)
    chunks = []
    more = True
    late = f"the body did not arrive within {limits.arrival_s:g} s"
    with Interruptible(limits.arrival_s, "too_slow", late):
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise Refusal("client_left", _LEFT)
            chunk = message["body"]
            more = message["more_body"]
            service.bodies.take(len(chunk))
            state["held_bytes"] += len(chunk)
            if state["held_bytes"] > limits.body_bytes:
                raise _too_large(limits)
            if chunk:  # the end of the body is one of none
                chunks.append(chunk)
    return b"".join(chunks)  # of one, no copy


async def unless_client_leaves(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled when the client closes the connection."""
    with Interruptible() as waiting:
        request.scope["extensions"][LEAVING](partial(waiting.interrupt, "client_left", _LEFT))
        return await work


def server_timing(timing: Timing) -> dict[str, str]:
    """The Server-Timing header, in ms, which browsers show and the page reads."""
    found = (timing.decode_s, timing.preprocess_s, timing.queue_s, timing.inference_s)
    return {"server-timing": _TIMING % tuple(1000 * seconds for seconds in found)}


def _too_large(limits: Limits) -> Refusal:
    return Refusal("too_large", f"the body is too large, limit: {limits.body_bytes} bytes")


class _Endpoints:
    """One method for each route."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._repository = service.repository

    async def server(self, request: Request) -> Response:
        about = {"name": "resdeploy", "version": version("resdeploy"), "extensions": EXTENSIONS}
        return JSONResponse(about)

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return _readiness(ready=self._repository.all_ready())

    async def model_ready(self, request: Request) -> Response:
        name, of_version = _named(request)
        return _readiness(ready=self._repository.is_ready(name, of_version))

    async def metadata(self, request: Request) -> Response:
        with self._repository.lease(*_named(request)) as model:
            return JSONResponse(model_metadata(model, versions_of(self._repository, model.name)))

    async def infer(self, request: Request) -> Response:
        name, of_version = _named(request)
        name_request(request, self._service, name)
        body = await read_body(request, self._service)
        header = request.headers.get(LENGTH_HEADER)
        if len(body) > _PARSED_AT_ONCE_BYTES and header is None:
            loop = asyncio.get_running_loop()
            parsed = await loop.run_in_executor(self._service.decoders, parse_infer, body, header)
        else:
            parsed = parse_infer(body, header)
        response, timing = await unless_client_leaves(
            request, infer(self._service, name, of_version, parsed)
        )
        content, headers = encode_infer(response)
        return Response(content, headers={**headers, **server_timing(timing)})

    async def index(self, request: Request) -> Response:
        body = await read_body(request, self._service)
        only_ready = json_object(body or b"{}", "the request").get("ready", False)
        states = [s for s in self._repository.index() if s.state == "READY" or not only_ready]
        return JSONResponse([vars(state) for state in states])

    async def load(self, request: Request) -> Response:
        body = await read_body(request, self._service)
        if json_object(body or b"{}", "the request").get("parameters"):
            # Triton's may bring configurations and files; here only what was named at start loads
            raise malformed("load takes no parameters")
        return await self._change(request, self._repository.load)

    async def unload(self, request: Request) -> Response:
        await read_body(request, self._service)
        return await self._change(request, self._repository.unload)

    async def _change(self, request: Request, change: Callable[[str], None]) -> Response:
        name, _ = _named(request)
        await self._service.change(change, name)
        return JSONResponse({})


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")


def _readiness(*, ready: bool) -> Response:
    return JSONResponse({"ready": ready}, 200 if ready else 503)
