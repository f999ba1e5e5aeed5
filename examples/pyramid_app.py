"""Pyramid: a page, JSON, a streamed answer and an upload.

Needs: pip install pyramid
Serve it with `asgiserver examples.pyramid_app:app`.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Pyramid on asgiserver</title>
<h1>Pyramid on asgiserver</h1>
<p><a href="{hello}">A greeting in JSON</a> · <a href="{count}">A streamed answer</a></p>
"""


def index(request: Request) -> Response:
    return Response(
        PAGE.format(
            hello=request.route_path("hello", name="Ada"),
            count=request.route_path("count", _query={"to": 100}),
        )
    )


def hello(request: Request) -> dict[str, Any]:
    return {"hello": request.matchdict["name"], "client": request.client_addr}


def count(request: Request) -> Response:
    """The server asks for the next line only when the client's socket takes data."""
    to = int(request.params.get("to", "10"))

    def lines() -> Iterator[bytes]:
        for number in range(1, to + 1):
            yield b"%d\n" % number

    return Response(app_iter=lines(), content_type="text/plain")


def upload(request: Request) -> dict[str, Any]:
    """Hash the body; the server keeps a large one in a temporary file, not in memory."""
    size, digest = 0, hashlib.sha256()
    while piece := request.body_file.read(65536):
        size += len(piece)
        digest.update(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


ROUTES = (
    ("index", "/", index, "GET", None),
    ("hello", "/hello/{name}", hello, "GET", "json"),
    ("count", "/count", count, "GET", None),
    ("upload", "/upload", upload, "PUT", "json"),
)


def main() -> Any:
    """Make the WSGI application."""
    with Configurator() as config:
        for name, pattern, view, method, renderer in ROUTES:
            config.add_route(name, pattern, request_method=method)
            config.add_view(view, route_name=name, renderer=renderer)
        return config.make_wsgi_app()


app = main()
