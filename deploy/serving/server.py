"""One process that serves: sockets, signals, reloading, and a shutdown that loses nothing.

It is alive at once and ready when the models have passed their check. SIGTERM and SIGINT stop
accepting, finish what was accepted and return; SIGHUP loads again what changed.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO

import grpc.aio
import uvicorn
from starlette.routing import Router

from resdeploy.deploy.errors import BundleError, InputError
from resdeploy.deploy.machine import cores
from resdeploy.deploy.serving.access_log import AccessLog
from resdeploy.deploy.serving.answer import Service
from resdeploy.deploy.serving.batching import BatchRules
from resdeploy.deploy.serving.describe import news
from resdeploy.deploy.serving.limits import Bodies, Limits
from resdeploy.deploy.serving.metrics import Metrics
from resdeploy.deploy.serving.refusal import Refusal
from resdeploy.deploy.serving.repository import Repository
from resdeploy.deploy.serving.rpc.service import grpc_server
from resdeploy.deploy.serving.served_model import Source
from resdeploy.deploy.serving.tokens import Tokens
from resdeploy.deploy.serving.web.classify import v1_routes
from resdeploy.deploy.serving.web.connections import limited_protocol
from resdeploy.deploy.serving.web.guard import Guard
from resdeploy.deploy.serving.web.operations import operations_routes
from resdeploy.deploy.serving.web.page import page_routes
from resdeploy.deploy.serving.web.v2 import v2_routes
from resdeploy.deploy.system.processes import on_signals

_POLL_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerOptions:
    """How to serve; a port of 0 is any free one, `grpc_port` None serves no gRPC.

    Attributes:
        tls_cert, tls_key: PEM files, both or none.
        token_file: bearer tokens, one a line; None answers everybody.
        watch: load what changes on disk without being told.
        keep_going: serve the others when a model fails its check.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None
    watch: bool = False
    keep_going: bool = False
    rules: BatchRules = field(default_factory=BatchRules)
    limits: Limits = field(default_factory=Limits)


def serve(
    found: Sequence[Source],
    options: ServerOptions,
    *,
    notify: Callable[[str], None],
    log: TextIO | None,
) -> None:
    """Serve until SIGTERM or SIGINT; call it in the main thread.

    Args:
        found: what to serve.
        notify: told, in a sentence each, where the server listens and what is ready.
        log: gets one JSON line for each request.

    Raises:
        InputError: a port is in use, or the token file or certificate cannot be used.
        BundleError: a model failed its check, unless `keep_going`.
    """
    tokens = None if options.token_file is None else Tokens(options.token_file)
    if (options.tls_cert is None) != (options.tls_key is None):
        raise InputError("a certificate and its key go together: give --tls-cert and --tls-key")
    for file in (options.tls_cert, options.tls_key):
        if file is not None and not file.is_file():
            raise InputError(f"{file}: no such file, expected a PEM file")
    with (
        nullcontext() if log is None else AccessLog(log) as access_log,
        _service(found, options) as service,
        _bound(options.host, options.port, "--port") as listening,
    ):
        if tokens is None and not ip_address(listening.getsockname()[0]).is_loopback:
            notify(f"note: whoever reaches {options.host} is answered: --token-file limits that")
        app = Guard(application(service), service, tokens, access_log)
        problem = asyncio.run(_run(service, app, options, listening, notify))
    if problem:
        raise BundleError(problem)


def application(service: Service) -> Router:
    """Every route; errors pass through it to the guard."""
    routes = [
        *v2_routes(service),
        *v1_routes(service),
        *operations_routes(service),
        *page_routes(),
    ]
    return Router(routes, redirect_slashes=False)


@contextmanager
def _service(found: Sequence[Source], options: ServerOptions) -> Iterator[Service]:
    metrics = Metrics()
    repository = Repository(
        found, rules=options.rules, observe=metrics.inferred, keep_going=options.keep_going
    )
    metrics.watch(repository)
    with (
        ThreadPoolExecutor(cores(), thread_name_prefix="decode") as decoders,
        ThreadPoolExecutor(1, thread_name_prefix="load") as loaders,
    ):
        try:
            bodies = Bodies(options.limits.bodies_bytes)
            yield Service(repository, decoders, loaders, metrics, options.limits, bodies)
        finally:
            repository.close()


@contextmanager
def _bound(host: str, port: int, option: str) -> Iterator[socket.socket]:
    """A socket bound to a port, so that a port in use is told before anything is loaded."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InputError(f"host {host!r} cannot be used: {error.strerror}") from error
    with socket.socket(family, kind, proto) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            raise port_error(host, port, option, error) from error
        yield listening


def port_error(host: str, port: int, option: str, error: OSError) -> InputError:
    """Say that a port cannot be had, and how to choose another."""
    if error.errno == errno.EADDRINUSE:
        return InputError(f"port {port} on {host} is in use: choose another with {option}")
    return InputError(f"port {port} on {host} cannot be used: {error.strerror}")


class _Server(uvicorn.Server):
    """uvicorn, whose handling of signals would end the process by the signal instead of with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run(
    service: Service,
    app: Guard,
    options: ServerOptions,
    listening: socket.socket,
    notify: Callable[[str], None],
) -> str:
    """Serve until told to stop; the reason why it did not come up, or nothing."""
    server = _Server(_config(app, options))
    try:
        server.config.load()
    except OSError as error:  # of the certificate, which is read here
        raise InputError(f"{options.tls_cert}: no certificate with its key: {error}") from error
    loop = asyncio.get_running_loop()
    rpc, address = await _grpc(service, app, options)
    refreshing = asyncio.Event()
    on_signals(loop, ("SIGHUP",), refreshing.set)
    on_signals(loop, ("SIGTERM", "SIGINT"), partial(_stop, server))
    problem = ""
    serving = asyncio.create_task(server.serve([listening]))
    notify(f"listening on {_address(options, listening)}{address}")
    problems = await loop.run_in_executor(service.loaders, _load_all, service.repository)
    if problems and not options.keep_going:
        problem = "; ".join(problems)
        server.should_exit = True
    for text in problems if options.keep_going else ():
        notify(f"not served: {text}")
    told = news(service.repository)
    for model in service.repository.ready_models():
        notify(told[model])
    refresher = asyncio.create_task(
        _refresh(service, app.tokens, refreshing, told, notify, watch=options.watch)
    )
    while not (server.should_exit or serving.done()):  # uvicorn looks at it as often
        await asyncio.sleep(0.1)
    stopped = () if rpc is None else (rpc.stop(options.limits.answer_s),)
    await asyncio.gather(serving, *stopped)
    refresher.cancel()
    return problem


async def _grpc(
    service: Service, app: Guard, options: ServerOptions
) -> tuple[grpc.aio.Server | None, str]:
    """The started gRPC server and its address in words; None where there is to be none."""
    if options.grpc_port is None:
        return None, ""
    tls = None
    if options.tls_cert is not None and options.tls_key is not None:
        tls = (options.tls_cert.read_bytes(), options.tls_key.read_bytes())
    host = _bracketed(options.host)
    with _bound(options.host, options.grpc_port, "--grpc-port"):
        pass  # gRPC's library would write a line of its own if the port were in use
    server, port = grpc_server(service, app.tokens, app.log, host, options.grpc_port, tls)
    await server.start()
    return server, f" and grpc://{host}:{port}"


def _stop(server: uvicorn.Server) -> None:
    server.force_exit = server.should_exit  # a second signal does not wait
    server.should_exit = True


def _config(app: Guard, options: ServerOptions) -> uvicorn.Config:
    limits = options.limits
    return uvicorn.Config(
        app,
        http=limited_protocol(limits),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(limits.idle_s),
        timeout_graceful_shutdown=int(limits.arrival_s + limits.answer_s),
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )


def _address(options: ServerOptions, listening: socket.socket) -> str:
    host = _bracketed(options.host)
    scheme = "http" if options.tls_cert is None else "https"
    return f"{scheme}://{host}:{listening.getsockname()[1]}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _load_all(repository: Repository) -> list[str]:
    problems = []
    for name in repository.names:
        try:
            repository.load(name)
        except Refusal as refusal:
            problems.append(str(refusal))
    return problems


async def _refresh(
    service: Service,
    tokens: Tokens | None,
    asked: asyncio.Event,
    told: dict[object, str],
    notify: Callable[[str], None],
    *,
    watch: bool,
) -> None:
    """Every second look after failed models, tokens and, when watching or asked, the disk."""
    loop = asyncio.get_running_loop()
    while True:
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(asked.wait(), _POLL_S)
        now = asked.is_set() or watch
        asked.clear()
        try:
            if tokens is not None:
                await loop.run_in_executor(service.loaders, tokens.refresh)
        except InputError as error:
            _log.error("%s; the tokens read before stay in force", error)
        await loop.run_in_executor(service.loaders, partial(service.repository.refresh, watch=now))
        before, told = told, news(service.repository)
        for text in (text for what, text in told.items() if what not in before):
            notify(text)
