"""A path for each way to use the server; tests/e2e/test_leaks.py asks for each ten thousand times."""

import asyncio
import contextvars
import copy
import os
import tempfile

import anyio
from leaks_common import END, counts

variable = contextvars.ContextVar("variable")
file_descriptor, file_name = tempfile.mkstemp()
os.write(file_descriptor, b"x" * 1000)
left = []


async def answer(send, body=b"ok", status=200, headers=()):
    fields = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass


async def hello(scope, receive, send):
    await answer(send)


async def body(scope, receive, send):
    await read(receive)
    await answer(send)


async def unread(scope, receive, send):
    await answer(send)


async def headers(scope, receive, send):
    fields = scope["headers"]
    assert len(fields) == len(list(fields)) == len(dict(fields)) + 1
    copied = copy.copy(fields)
    fields.append((b"a", b"b"))
    assert fields != copied
    scope["cycle"] = scope
    await answer(send, headers=[(b"x-a", fields[0][1])])


async def suspended(scope, receive, send):
    await asyncio.sleep(0)
    variable.set(object())
    await asyncio.sleep(0)
    await answer(send)


async def stream(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    for _ in range(5):
        await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
    await send({"type": "http.response.body"})


async def large(scope, receive, send):
    await answer(send, b"x" * 100_000)


async def memory(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": bytearray(50_000), "more_body": True})
    await send({"type": "http.response.body", "body": memoryview(bytearray(100))})


async def tasks(scope, receive, send):
    await asyncio.create_task(receive())
    waiting = asyncio.create_task(receive())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
    await answer(send)


async def timeouts(scope, receive, send):
    await receive()
    try:
        async with asyncio.timeout(0):
            await receive()
    except TimeoutError:
        pass
    with anyio.move_on_after(0):
        await receive()
    await answer(send)


async def not_awaited(scope, receive, send):
    receive().close()
    send({}).close()
    await answer(send)


async def wrong(scope, receive, send):
    for message in (
        None,
        {},
        {"type": "nonsense"},
        {"type": "http.response.start"},
        {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b"), (b"bad\n", b"b")]},
        {"type": "http.response.body", "body": b""},
    ):
        try:
            await send(message)
        except (KeyError, RuntimeError, TypeError, ValueError):
            pass
    await answer(send)


async def cancelled(scope, receive, send):
    task = asyncio.current_task()
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        task.uncancel()
    await answer(send)
    asyncio.current_task().cancel()


async def background(scope, receive, send):
    await answer(send)
    await asyncio.sleep(0)
    await receive()


async def path(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.pathsend", "path": file_name})


async def trailers(scope, receive, send):
    await send({"type": "http.response.early_hint", "links": [b"</x>; rel=preload"]})
    await send({"type": "http.response.start", "status": 200, "trailers": True})
    await send({"type": "http.response.body", "body": b"x"})
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})


async def fail(scope, receive, send):
    raise RuntimeError("on purpose")


async def fail_late(scope, receive, send):
    await answer(send)
    raise RuntimeError("on purpose")


async def wait(scope, receive, send):
    """Waits for the client to leave, then sends to nobody."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"here", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    try:
        await send({"type": "http.response.body", "body": b"x"})
    except OSError:
        pass
    left.append(1)


async def endless(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x" * 60_000, "more_body": True})
    except OSError:
        left.append(1)


async def ws_echo(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept", "headers": [(b"x-a", b"b")]})
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({**message, "type": "websocket.send"})
        await send({"type": "websocket.send", "text": "too late"})
    except OSError:
        left.append(1)


async def ws_tasks(scope, receive, send):
    await asyncio.create_task(receive())
    await asyncio.create_task(send({"type": "websocket.accept"}))
    waiting = asyncio.create_task(receive())
    while (message := await waiting)["type"] != "websocket.disconnect":
        await asyncio.create_task(send({**message, "type": "websocket.send"}))
        waiting = asyncio.create_task(receive())
    scope["cycle"] = scope


async def ws_busy(scope, receive, send):
    """Takes nothing of what comes."""
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.sleep(0.001)


async def ws_reject(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})
    await receive()


async def ws_deny(scope, receive, send):
    body = "websocket.http.response.body"
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]})
    await send({"type": body, "body": b"who", "more_body": True})
    await send({"type": body, "body": b"?"})


async def ws_close(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "x"})
    await send({"type": "websocket.send", "bytes": bytearray(20_000)})
    await send({"type": "websocket.send", "text": "\u00e4" * 20_000})
    await send({"type": "websocket.close", "code": 4000, "reason": "why"})
    await receive()


async def ws_fail(scope, receive, send):
    await send({"type": "websocket.accept"})
    raise RuntimeError("on purpose")


async def ws_wrong(scope, receive, send):
    for message in (
        {"type": "websocket.send", "text": "x"},
        {"type": "websocket.accept", "headers": [(b"a", b"b"), (b"sec-websocket-accept", b"x")]},
        {"type": "websocket.accept", "subprotocol": "a b"},
        {"type": "websocket.close", "reason": b"x"},
    ):
        try:
            await send(message)
        except (RuntimeError, TypeError, ValueError):
            pass
    await ws_echo(scope, receive, send)


async def departed(scope, receive, send):
    """How many have left; the counter begins anew."""
    number = b"%d" % len(left)
    await answer(send, number)


async def tell_counts(scope, receive, send):
    left.clear()
    await answer(send, counts())


async def end(scope, receive, send):
    await answer(send, END)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await globals()[scope["path"][1:]](scope, receive, send)
