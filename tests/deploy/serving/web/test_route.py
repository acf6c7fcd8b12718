"""A route answers its method, and errors pass through to what is around it."""

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from resdeploy.deploy.serving.web.route import route
from tests.deploy.serving.web.asgi import ask


async def _endpoint(request: Request) -> Response:
    if request.path_params["name"] == "wrong":
        raise KeyError("wrong")
    return PlainTextResponse(request.path_params["name"])


def _ask(path: str, method: str = "GET") -> Response:
    return ask([route("/{name}", _endpoint, "GET")], path, method)


def test_an_answer_and_its_parameters() -> None:
    reply = _ask("/tulip")
    assert (reply.status_code, reply.body) == (200, b"tulip")


def test_errors_pass_through() -> None:
    with pytest.raises(KeyError, match="wrong"):
        _ask("/wrong")
    with pytest.raises(HTTPException):
        _ask("/tulip", "POST")
