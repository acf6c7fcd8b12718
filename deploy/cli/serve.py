"""`resdeploy serve`: validate, call `serve`."""

import sys
from pathlib import Path
from typing import Literal

import click

from resdeploy.deploy.cli.options import BATCH_TYPE, BundlePath, backend_option, max_wait_option
from resdeploy.deploy.cli.output import note
from resdeploy.deploy.cli.shell.command import Command
from resdeploy.deploy.defaults import (
    GRPC_PORT,
    HTTP_PORT,
    SERVE_HOST,
    SERVED_BATCH,
)
from resdeploy.deploy.machine import cores
from resdeploy.deploy.specs import PRECISIONS, Backend, Precision
from resdeploy.deploy.system.memory import limit_arenas

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    cls=Command,
    epilog="resdeploy serve flowers.bundle --token-file tokens.txt\n"
    "resdeploy serve flowers.bundle digits.bundle --precision int8 --watch",
)
@click.argument("bundles", nargs=-1, required=True, type=BundlePath(), metavar="BUNDLE...")
@click.option("--host", default=SERVE_HOST, show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=HTTP_PORT,
    show_default=True,
    help="Of HTTP; 0 takes a free one.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    default=GRPC_PORT,
    show_default=True,
    help="Of gRPC; 0 takes a free one.",
)
@click.option("--no-grpc", is_flag=True, help="Serve HTTP only.")
@click.option(
    "--max-batch",
    type=BATCH_TYPE,
    default=SERVED_BATCH,
    show_default=True,
    help="Images of one inference, and of one request.",
)
@max_wait_option
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(("auto", *PRECISIONS)),
    help="Repeat it to serve several; all but the first are named NAME-PRECISION.  [default: fp32]",
)
@backend_option
@click.option("--token-file", type=_FILE, help="Bearer tokens, one a line; others get 401.")
@click.option("--tls-cert", type=_FILE, help="Certificate chain, PEM; needs --tls-key.")
@click.option("--tls-key", type=_FILE, help="Private key, PEM.")
@click.option("--watch", is_flag=True, help="Load bundles and versions that change on disk.")
@click.option("--keep-going", is_flag=True, help="Serve the others if a bundle fails its check.")
def serve(
    bundles: tuple[Path, ...],
    host: str,
    port: int,
    grpc_port: int,
    no_grpc: bool,
    max_batch: int,
    max_wait_ms: float,
    precisions: tuple[Precision | Literal["auto"], ...],
    backend: Backend | Literal["auto"],
    token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    watch: bool,
    keep_going: bool,
) -> None:
    """Serve BUNDLEs over HTTP and gRPC with the Open Inference Protocol (V2), until SIGTERM.

    A BUNDLE is a bundle, a lone .onnx or .engine file, or a folder of versions: NAME/1, NAME/2 and
    so on. The access log goes to stdout, one JSON line for each request.
    """
    from resdeploy.deploy.optional import needs

    with needs("serve"):
        from resdeploy.deploy.serving.batching import BatchRules
        from resdeploy.deploy.serving.repository import sources
        from resdeploy.deploy.serving.server import ServerOptions
        from resdeploy.deploy.serving.server import serve as serve_models

    options = ServerOptions(
        *(host, port, None if no_grpc else grpc_port),
        *(tls_cert, tls_key, token_file),
        watch=watch,
        keep_going=keep_going,
        rules=BatchRules(max_batch=max_batch, max_wait_s=max_wait_ms / 1000),
    )
    found = sources(bundles, precisions, backend)
    limit_arenas(cores())  # before there are threads
    serve_models(found, options, notify=note, log=sys.stdout)
