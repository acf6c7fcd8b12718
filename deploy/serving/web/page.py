"""The page at `/`: three static files of this package, which load nothing from elsewhere."""

from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resdeploy.deploy.serving.web.route import route

# the browser itself refuses whatever the page would load from another server
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def page_routes() -> list[Route]:
    """The routes of the page's files."""
    return [route(path, _file, "GET") for path in _FILES]


async def _file(request: Request) -> Response:
    name, kind = _FILES[request.url.path]
    return Response(_content(name), media_type=kind, headers=_HEADERS)


@cache
def _content(name: str) -> bytes:
    return (files("resdeploy.deploy.serving.web") / "static" / name).read_bytes()
