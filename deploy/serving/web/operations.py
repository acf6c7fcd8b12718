"""For operators: /metrics and /openapi.json."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from resdeploy.deploy.serving.answer import Service
from resdeploy.deploy.serving.protocol.openapi import openapi
from resdeploy.deploy.serving.web.route import route


def operations_routes(service: Service) -> list[Route]:
    """The routes that are neither /v1 nor /v2."""

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def description(request: Request) -> Response:
        return JSONResponse(openapi())

    return [
        route("/metrics", metrics, "GET"),
        route("/openapi.json", description, "GET"),
    ]
