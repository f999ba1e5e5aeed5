"""ASGI with nothing but the standard: one coroutine function.

Serve it with `asgiserver examples.asgi_hello:app`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Say hello to whoever the path names: /Ada gets "Hello, Ada!"."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = f"Hello, {scope['path'].strip('/') or 'world'}!\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
