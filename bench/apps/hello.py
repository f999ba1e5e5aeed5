"""The applications that the benchmarks serve: the least that answers, under each interface."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

BODY = b"Hello, World!"
LENGTH = str(len(BODY))

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", LENGTH.encode())],
}
END = {"type": "http.response.body", "body": BODY}
FIELDS = [("Content-Type", "text/plain"), ("Content-Length", LENGTH)]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    await send(START)
    await send(END)


async def asgi_headers(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Reads every field of the request."""
    dict(scope["headers"])
    await send(START)
    await send(END)


async def websocket(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Sends every message back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", FIELDS)
    return [BODY]


def wsgi_headers(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Reads every field of the request."""
    {key: value for key, value in environ.items() if key.startswith("HTTP_")}
    start_response("200 OK", FIELDS)
    return [BODY]


def busy(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Two milliseconds of a processor's time."""
    end = time.thread_time() + 0.002
    while time.thread_time() < end:
        pass
    return wsgi(environ, start_response)
