"""Handlers that block the thread which serves, until a test lets them go on: /block?FIFO. Others do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote


def block(path: str) -> bytes:
    """Until somebody has opened the named pipe for writing, and has closed it."""
    with open(path) as fifo:
        return fifo.read().encode()


def answer(path: str, query: str) -> bytes:
    return block(unquote(query)) if path == "/block" else b"quick"


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    body = answer(environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    if environ["PATH_INFO"] == "/list":
        return [body]
    return (part for part in (body,))


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = answer(scope["path"], scope["query_string"].decode())
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
