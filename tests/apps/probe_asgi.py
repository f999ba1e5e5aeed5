"""An ASGI application whose paths make the server show its manners. probe_wsgi.py answers the same where it can."""

import asyncio
import hashlib
import json
from urllib.parse import parse_qs

gates: dict[str, asyncio.Event] = {}
events: list[str] = []  # what happened to requests that have nobody left to tell


class Disconnected(Exception):
    """The client left before its body was complete."""


def gate(name):
    return gates.setdefault(name, asyncio.Event())


async def answer(send, body, status=200, headers=(), length=True):
    fields = [(b"content-type", b"text/plain"), *headers]
    if length:
        fields.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def body_parts(receive):
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def hello(scope, receive, send, query):
    await answer(send, b"hello " + scope["query_string"])


async def wait(scope, receive, send, query):
    """Answers when /open with the same name is asked for."""
    events.append(f"waiting {query['name']}")
    await gate(query["name"]).wait()
    await answer(send, b"waited " + query["name"].encode())


async def open_gate(scope, receive, send, query):
    gate(query["name"]).set()
    await answer(send, b"opened")


async def report(scope, receive, send, query):
    await answer(send, json.dumps(events).encode())


async def digest(scope, receive, send, query):
    """Reads everything; tells how much there was."""
    sha, size = hashlib.sha256(), 0
    async for part in body_parts(receive):
        sha.update(part)
        size += len(part)
    await answer(send, f"{size} {sha.hexdigest()}".encode())


async def unread(scope, receive, send, query):
    """Answers without looking at the body."""
    await answer(send, b"unread", int(query.get("status", 200)))


async def stream(scope, receive, send, query):
    """``n`` chunks of ``size`` bytes, without a length unless ``length`` is given."""
    n, size = int(query["n"]), int(query["size"])
    fields = [(b"content-length", b"%d" % (n * size))] if "length" in query else []
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    sent = 0
    try:
        for at in range(n):
            await send(
                {
                    "type": "http.response.body",
                    "body": b"%c" % (97 + at % 26) * size,
                    "more_body": True,
                }
            )
            sent += 1
    except OSError:
        events.append(f"stream cut after {sent}")
        raise
    await send({"type": "http.response.body"})


async def duplex(scope, receive, send, query):
    """Sends back each part as it comes."""
    await send({"type": "http.response.start", "status": 200})
    async for part in body_parts(receive):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


async def status(scope, receive, send, query):
    await answer(send, b"a body", int(query["code"]), length="length" in query)


async def fields(scope, receive, send, query):
    """Response fields from the query: ?name=value&…"""
    await answer(send, b"fields", headers=[(k.encode(), v.encode()) for k, v in query.items()])


async def long_answer(scope, receive, send, query):
    """More or less than the Content-Length said."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", query["said"].encode())],
        }
    )
    await send({"type": "http.response.body", "body": b"x" * int(query["sent"])})


async def disconnect(scope, receive, send, query):
    """Waits for the client to leave."""
    events.append(f"here {query['name']}")
    while (message := await receive())["type"] != "http.disconnect":
        pass
    events.append(f"left {query['name']}")
    gate(query["name"]).set()
    del message


async def fail(scope, receive, send, query):
    raise RuntimeError("failed on purpose")


ROUTES = {
    "/hello": hello,
    "/wait": wait,
    "/open": open_gate,
    "/events": report,
    "/digest": digest,
    "/unread": unread,
    "/stream": stream,
    "/duplex": duplex,
    "/status": status,
    "/fields": fields,
    "/mismatch": long_answer,
    "/disconnect": disconnect,
    "/fail": fail,
}


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    query = {k: v[-1] for k, v in parse_qs(scope["query_string"].decode()).items()}
    handler = ROUTES.get(scope["path"])
    if handler is None:
        await answer(send, b"not found", 404)
    else:
        try:
            await handler(scope, receive, send, query)
        except Disconnected:
            events.append(f"disconnected {scope['path']}")
