"""Answers the gRPC service with what the HTTP routes use: the same checks, batches and counters."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import grpc
import grpc.aio

from resdeploy.deploy.errors import InputError, ResdeployError
from resdeploy.deploy.serving.access_log import AccessLog, Line, Marks, marks_of
from resdeploy.deploy.serving.answer import Service, infer
from resdeploy.deploy.serving.describe import EXTENSIONS, model_metadata, versions_of
from resdeploy.deploy.serving.protocol.tensors import malformed
from resdeploy.deploy.serving.refusal import CODES, Reason, Refusal
from resdeploy.deploy.serving.rpc.convert import request_of, response_of
from resdeploy.deploy.serving.rpc.messages import METHODS, SERVICE, message_class
from resdeploy.deploy.serving.tokens import Tokens

_OPEN_METHODS = ("ServerLive", "ServerReady")  # a probe has no token

_log = logging.getLogger(__name__)

_Answer = Callable[[Service, Any], Awaitable[Any]]


def grpc_server(
    service: Service,
    tokens: Tokens | None,
    log: AccessLog | None,
    address: str,
    port: int,
    tls: tuple[bytes, bytes] | None,
) -> tuple[grpc.aio.Server, int]:
    """A server that listens once started, and its port.

    Args:
        address: host, an IPv6 one in brackets.
        tls: certificate chain and key, PEM.

    Raises:
        InputError: the port is in use.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # else a second server on the port is not noticed
            ("grpc.max_receive_message_length", service.limits.body_bytes),
            ("grpc.max_metadata_size", service.limits.header_bytes),
            ("grpc.max_connection_idle_ms", int(1000 * service.limits.idle_s)),
        ],
        maximum_concurrent_rpcs=service.limits.requests,
    )
    server.add_generic_rpc_handlers((_handlers(service, tokens, log),))
    try:
        if tls is None:
            found = server.add_insecure_port(f"{address}:{port}")
        else:
            chain, key = tls
            credentials = grpc.ssl_server_credentials([(key, chain)])
            found = server.add_secure_port(f"{address}:{port}", credentials)
    except RuntimeError as error:
        raise InputError(
            f"port {port} on {address} cannot be used: choose another with --grpc-port"
        ) from error
    return server, found


def _handlers(service: Service, tokens: Tokens | None, log: AccessLog | None) -> Any:
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            _Method(service, tokens, log, method).handle,
            request_deserializer=message_class(request).FromString,
            response_serializer=message_class(response).SerializeToString,
        )
        for method, (request, response) in METHODS.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


@dataclass(frozen=True)
class _Method:
    """One method of the service, guarded as every HTTP request is."""

    service: Service
    tokens: Tokens | None
    log: AccessLog | None
    name: str

    async def handle(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        begun = time.perf_counter()
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        marks = marks_of(metadata)
        context.set_trailing_metadata(tuple(marks.headers().items()))
        reason: Reason | None = "client_left"  # unless it stays to the end
        reply = None
        try:
            self._admit(metadata)
            reply = await _ANSWERS[self.name](self.service, request)
            reason = None
            return reply
        except Exception as error:
            reason, text = _reason(error)
            if reason == "internal":
                _log.error("request %s failed", marks.request_id, exc_info=error)
            await context.abort(getattr(grpc.StatusCode, CODES[reason].grpc), text)
        finally:
            seconds = time.perf_counter() - begun
            self._end(request, reply, context.peer(), marks, reason, seconds)

    def _admit(self, metadata: dict[str, str]) -> None:
        if self.tokens is None or self.name in _OPEN_METHODS:
            return
        if not self.tokens.accept(metadata.get("authorization", "")):
            raise Refusal("unauthorized", "no valid token in the metadata authorization")

    def _end(
        self,
        request: Any,
        reply: Any,
        peer: str,
        marks: Marks,
        reason: Reason | None,
        seconds: float,
    ) -> None:
        name = getattr(request, "model_name", "") or getattr(request, "name", "")
        model = name if name in self.service.repository.names else ""
        self.service.metrics.ended(model, "grpc", reason, seconds)
        if self.log is None:
            return
        line = Line(
            marks=marks,
            client=peer.partition(":")[2].rpartition(":")[0],  # ipv4:127.0.0.1:5000
            method="gRPC",
            path=f"/{SERVICE}/{self.name}",
            model=model,
            status="OK" if reason is None else CODES[reason].grpc,
            reason=reason,
            received_bytes=request.ByteSize(),
            sent_bytes=0 if reply is None else reply.ByteSize(),
            seconds=seconds,
        )
        self.log.add(line)


def _reason(error: Exception) -> tuple[Reason, str]:
    """Why a request failed and what its client is told."""
    if isinstance(error, Refusal):
        return error.reason, str(error)
    if isinstance(error, ResdeployError):
        return "inference_failed", str(error)
    return "internal", "a fault of the server; its log has the details"


async def _live(service: Service, request: Any) -> Any:
    return message_class("ServerLiveResponse")(live=True)


async def _ready(service: Service, request: Any) -> Any:
    return message_class("ServerReadyResponse")(ready=service.repository.all_ready())


async def _model_ready(service: Service, request: Any) -> Any:
    ready = service.repository.is_ready(request.name, request.version)
    return message_class("ModelReadyResponse")(ready=ready)


async def _server(service: Service, request: Any) -> Any:
    return message_class("ServerMetadataResponse")(
        name="resdeploy", version=version("resdeploy"), extensions=EXTENSIONS
    )


async def _model(service: Service, request: Any) -> Any:
    with service.repository.lease(request.name, request.version) as model:
        fields = model_metadata(model, versions_of(service.repository, model.name))
    return message_class("ModelMetadataResponse")(**fields)


async def _infer(service: Service, request: Any) -> Any:
    asked = request_of(request)
    response, _ = await infer(service, request.model_name, request.model_version, asked)
    return response_of(response)


async def _index(service: Service, request: Any) -> Any:
    states = [s for s in service.repository.index() if s.state == "READY" or not request.ready]
    return message_class("RepositoryIndexResponse")(models=[vars(state) for state in states])


async def _load(service: Service, request: Any) -> Any:
    if request.parameters:
        raise malformed("load takes no parameters")
    await service.change(service.repository.load, request.model_name)
    return message_class("RepositoryModelLoadResponse")()


async def _unload(service: Service, request: Any) -> Any:
    await service.change(service.repository.unload, request.model_name)
    return message_class("RepositoryModelUnloadResponse")()


_ANSWERS: dict[str, _Answer] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server,
    "ModelMetadata": _model,
    "ModelInfer": _infer,
    "RepositoryIndex": _index,
    "RepositoryModelLoad": _load,
    "RepositoryModelUnload": _unload,
}
