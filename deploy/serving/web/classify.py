"""For people: POST /v1/classify takes images as they are and gives labels; /v1/models says of what.

Several images come as multipart/form-data; one comes as that or as the bare body. Each image gets
its own answer or its own error.
"""

import asyncio
import re
from collections.abc import Awaitable, Sequence
from email.message import Message
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from resdeploy.deploy.bundle.bundle import REPORTS
from resdeploy.deploy.defaults import TOP_CLASSES
from resdeploy.deploy.files import read_sealed
from resdeploy.deploy.serving.answer import Classified, Service, classify
from resdeploy.deploy.serving.decode import decode
from resdeploy.deploy.serving.protocol.tensors import malformed
from resdeploy.deploy.serving.refusal import CODES, Refusal
from resdeploy.deploy.serving.served_model import ServedModel
from resdeploy.deploy.serving.web.route import route
from resdeploy.deploy.serving.web.v2 import (
    name_request,
    read_body,
    server_timing,
    unless_client_leaves,
)

_MAX_IMAGES = 64
_MAX_PARTS = 2 * _MAX_IMAGES  # fields that are no files among them
_HEADERS_END = b"\r\n\r\n"

Result = TypeVar("Result")


def v1_routes(service: Service) -> list[Route]:
    """The routes under /v1."""
    endpoints = _Endpoints(service)
    return [
        route("/v1/classify", endpoints.classify, "POST"),
        route("/v1/preview", endpoints.preview, "POST"),
        route("/v1/models", endpoints.models, "GET"),
    ]


def parts_of(body: bytes, content_type: str) -> list[tuple[str, bytes]]:
    """The files of a multipart/form-data body as (file name, content); (“”, body) for any other.

    Raises:
        Refusal: no boundary, no file, cut short, or too many.
    """
    header = Message()
    header["content-type"] = content_type
    if header.get_content_maintype() != "multipart":
        return [("", body)]
    boundary = header.get_boundary("")
    # RFC 2046: each delimiter stands on its own line, the last one has two hyphens more
    delimiter = b"\r\n--" + boundary.encode("utf-8", "replace")
    parts = (b"\r\n" + body).split(delimiter, _MAX_PARTS)[1:]
    if not boundary or not parts or not parts[-1].startswith(b"--"):
        raise malformed("the multipart body has no closing boundary")
    found = []
    for part in parts[:-1]:
        head, end, content = part.partition(_HEADERS_END)
        name = _file_name(head)
        if end and name is not None:
            found.append((name, content))
    if not 1 <= len(found) <= _MAX_IMAGES:
        raise malformed(f"{len(found)} files in the form, expected 1 to {_MAX_IMAGES}")
    return found


def model_card(model: ServedModel) -> dict[str, Any]:
    """What a person wants to know of a model; `accuracy` None where nobody verified it."""
    manifest = model.manifest
    return {
        "name": model.name,
        "version": model.version,
        **model.facts(),
        "parameters": manifest.model.parameters,
        "labels": list(manifest.labels),
        "preprocess": manifest.preprocess.to_json(),
        "input_size_px": list(manifest.preprocess.input_size_px),
        "assumptions": list(manifest.assumptions),
        "accuracy": _accuracy(model),
    }


class _Endpoints:
    """One method for each route."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def classify(self, request: Request) -> Response:
        top = _number(request, "top", TOP_CLASSES)
        name, version = self._model(request)
        body = await read_body(request, self._service)
        files = parts_of(body, request.headers.get("content-type", ""))
        with self._service.repository.lease(name, version) as model:
            work = [_or_refusal(classify(self._service, model, data, top)) for _, data in files]
            answers = await unless_client_leaves(request, _all(work))
        results: list[dict[str, Any]] = []
        timing: dict[str, str] = {}
        for (file_name, _), answer in zip(files, answers, strict=True):
            if isinstance(answer, Refusal):
                results.append({"name": file_name, "error": str(answer), "reason": answer.reason})
            else:
                predictions = [vars(prediction) for prediction in answer.predictions]
                results.append({"name": file_name, "predictions": predictions})
                timing = server_timing(answer.timing)
        refusals = [answer for answer in answers if isinstance(answer, Refusal)]
        if len(refusals) == len(files) and len(files) == 1:
            raise refusals[0]
        status = CODES[refusals[0].reason].http if len(refusals) == len(files) else 200
        content = {"model": model.name, "version": model.version, "results": results}
        return JSONResponse(content, status, headers=timing)

    async def preview(self, request: Request) -> Response:
        """A PNG of what the network sees: the image after resize and crop."""
        name, version = self._model(request)
        body = await read_body(request, self._service)
        _, data = parts_of(body, request.headers.get("content-type", ""))[0]
        with self._service.repository.lease(name, version) as model:
            loop = asyncio.get_running_loop()
            limit = self._service.limits.pixels
            png = await loop.run_in_executor(self._service.decoders, _seen, model, data, limit)
        return Response(png, media_type="image/png")

    async def models(self, request: Request) -> Response:
        return JSONResponse([model_card(m) for m in self._service.repository.ready_models()])

    def _model(self, request: Request) -> tuple[str, str]:
        """The model of the query, else the first that was named at start."""
        names = self._service.repository.names
        name = request.query_params.get("model", names[0] if names else "")
        name_request(request, self._service, name)
        return name, request.query_params.get("version", "")


async def _or_refusal(work: Awaitable[Classified]) -> Classified | Refusal:
    try:
        return await work
    except Refusal as refusal:
        return refusal


async def _all(work: Sequence[Awaitable[Result]]) -> list[Result]:
    """As `asyncio.gather`, which would make a task for a single one too."""
    return [await work[0]] if len(work) == 1 else list(await asyncio.gather(*work))


def _seen(model: ServedModel, data: bytes, max_pixels: int) -> bytes:
    preprocess = model.manifest.preprocess
    pixels = decode(data, preprocess, max_pixels=max_pixels).pixels
    mean = np.array(preprocess.mean, np.float32)[:, None, None]
    std = np.array(preprocess.std, np.float32)[:, None, None]
    values = np.rint((pixels * std + mean) * 255).clip(0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0))).save(stream, "PNG")
    return stream.getvalue()


def _accuracy(model: ServedModel) -> dict[str, Any] | None:
    """What `verify` last found for the file and backend that answer, from the bundle's report."""
    keys = ("verdict", "images", "top1", "top1_ci95", "drop", "drop_ci95", "agreement")
    try:
        report = read_sealed(model.path / REPORTS / "verify.json")
        for figures in report["variants"].values():
            if (figures["variant"], figures["backend"]) == (model.variant, model.backend):
                return {key: figures[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no report, or one of another version: the card says that nobody verified it
    return None


def _file_name(head: bytes) -> str | None:
    """The file name in a part's headers; None where the part is no file."""
    text = head.decode("utf-8", "replace")
    found = re.search(r"^content-disposition:(.*)$", text, re.IGNORECASE | re.MULTILINE)
    if found is None:
        return None
    header = Message()
    header["content-disposition"] = found[1].strip()
    return header.get_filename()


def _number(request: Request, key: str, default: int) -> int:
    text = request.query_params.get(key, str(default))
    if not (text.isascii() and text.isdecimal() and int(text[:9]) >= 1):
        raise malformed(f"{key} {text[:20]!r} is not a whole number from 1")
    return int(text[:9])
