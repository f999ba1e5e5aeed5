"""What tests/soak asks for. Each answer says which process gave it. soak_wsgi.py is the same for WSGI."""

import asyncio
import atexit
import os

from leaks_common import counts
from soak_common import make_file, numbers, pattern

path = make_file()
atexit.register(os.unlink, path)


async def start(send, *fields, status=200):
    headers = [(b"x-pid", b"%d" % os.getpid()), *fields]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def answer(send, body):
    await start(send, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


async def pieces(receive):
    while (message := await receive())["type"] == "http.request":
        yield message["body"]
        if not message["more_body"]:
            return
    raise OSError("the client left within its body")


async def hello(query, receive, send):
    await answer(send, b"hello " + query.encode())


async def echo(query, receive, send):
    await answer(send, b"".join([piece async for piece in pieces(receive)]))


async def flow(query, receive, send):
    """Gives back what comes, as it comes."""
    await start(send)
    async for piece in pieces(receive):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def unread(query, receive, send):
    await answer(send, b"unread")


async def stream(query, receive, send):
    number, size, count = numbers(query)
    await start(send)
    for _ in range(count):
        body = pattern(number, size)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


async def file(query, receive, send):
    await start(send)
    await send({"type": "http.response.pathsend", "path": path})


async def sleep(query, receive, send):
    await asyncio.sleep(int(query) / 1000)
    await answer(send, b"slept")


async def fail(query, receive, send):
    raise RuntimeError("on purpose")


async def tell(query, receive, send):
    await answer(send, counts())


PATHS = {f"/{one.__name__}": one for one in (hello, echo, flow, unread, stream, file, sleep, fail, tell)}  # fmt: skip


async def websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept", "headers": [(b"x-pid", b"%d" % os.getpid())]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def app(scope, receive, send):
    try:
        if scope["type"] == "websocket":
            await websocket(receive, send)
        elif scope["type"] == "http":
            query = scope["query_string"].decode()
            await PATHS[scope["path"]](query, receive, send)
        else:
            raise NotImplementedError(scope["type"])
    except OSError:
        pass  # The client left, as it was to.
