"""Asking the application of the rules of WSGI (tests/apps/wsgi_spec.py)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from .client import MalformedResponse, RawClient, Response
from .server import Server

APP = "wsgi_spec:app"
BLOCK = 65536


def target(name: str, argument: Any = None) -> str:
    return f"/{name}" + ("" if argument is None else f"?{quote(repr(argument), safe='')}")


def fetch(
    server: Server, name: str, argument: Any = None, *fields: str, method: str = "GET"
) -> Response:
    """One request on a connection of its own, which must be usable afterwards."""
    with server.raw() as client:
        client.get(target(name, argument), *fields, method=method)
        response = client.recv_response(method)
        if not response.closes:
            client.get("/twice")
            assert client.recv_response().status == 200
        return response


def send_chunked(client: RawClient, path: str, *chunks: bytes) -> None:
    client.send(f"POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
    for chunk in filter(None, chunks):  # an empty one would be the last
        client.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    client.send(b"0\r\n\r\n")


def assert_broken(client: RawClient) -> None:
    """The response is cut so that the client can tell."""
    with pytest.raises((MalformedResponse, ConnectionResetError)):
        client.recv_response()
