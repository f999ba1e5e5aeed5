"""What the benchmarks serve beyond hello world: one application under each interface, by path."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

LARGE = b"0123456789abcdef" * (1024 * 1024 // 16)
CHUNK, CHUNKS = b"x" * 1024, 64
SLEEP = 0.005  # seconds
READ = 65536  # bytes

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


# --- ASGI ----------------------------------------------------------------------------------------


async def answer(send: Send, body: bytes) -> None:
    length = str(len(body)).encode()
    fields = [(b"content-type", b"application/octet-stream"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive: Receive) -> list[bytes]:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts


async def headers(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads all of them: answers how many there are, and how long they are."""
    pairs = list(scope["headers"])
    await answer(send, b"%d" % sum(len(name) + len(value) for name, value in pairs))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"".join(await body_of(receive)))


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers how long the body was, of which it keeps nothing."""
    total, more = 0, True
    while more:
        message = await receive()
        total += len(message.get("body", b""))
        more = message.get("more_body", False)
    await answer(send, b"%d" % total)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, LARGE)


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    fields = [(b"content-type", b"application/octet-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(SLEEP)
    await answer(send, b"slow")


ASGI = {
    "/headers": headers,
    "/echo": echo,
    "/count": count,
    "/large": large,
    "/stream": stream,
    "/slow": slow,
}


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await ASGI[scope["path"]](scope, receive, send)


# --- WSGI ----------------------------------------------------------------------------------------


def reply(start_response: StartResponse, body: bytes) -> list[bytes]:
    fields = [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))]
    start_response("200 OK", fields)
    return [body]


def wsgi_headers(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """All that a client sent: names without their HTTP_, which is how ASGI's length comes out, too."""
    pairs = [(key[5:], value) for key, value in environ.items() if key.startswith("HTTP_")]
    return reply(start_response, b"%d" % sum(len(name) + len(value) for name, value in pairs))


def wsgi_echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return reply(start_response, environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))


def wsgi_count(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    left, read = int(environ["CONTENT_LENGTH"]), environ["wsgi.input"].read
    total = left
    while left and (data := read(min(left, READ))):
        left -= len(data)
    return reply(start_response, b"%d" % (total - left))


def wsgi_large(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return reply(start_response, LARGE)


def wsgi_stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return parts()


def parts() -> Iterator[bytes]:
    for _ in range(CHUNKS):
        yield CHUNK


def wsgi_slow(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    time.sleep(SLEEP)
    return reply(start_response, b"slow")


WSGI = {
    "/headers": wsgi_headers,
    "/echo": wsgi_echo,
    "/count": wsgi_count,
    "/large": wsgi_large,
    "/stream": wsgi_stream,
    "/slow": wsgi_slow,
}


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return WSGI[environ["PATH_INFO"]](environ, start_response)
