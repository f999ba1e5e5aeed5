"""Sends what the request tells it to, and remembers what came of it.

The body of POST /?key is a Python literal: a list of messages. GET /outcomes?key waits for the list of
what each send gave: None, or the names of the exception's classes and its text. These are no messages:
{"type": "raise"} raises, {"type": "wait", "name": …} waits for GET /go?name, {"type": "receive"} notes
the type of what receive gave.
"""

import ast
import asyncio
import json

outcomes: dict[str, asyncio.Future] = {}
gates: dict[str, asyncio.Event] = {}


async def read_body(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message["body"]
        if not message["more_body"]:
            return body


async def answer(send, body):
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def outcome(key):
    return outcomes.setdefault(key, asyncio.get_running_loop().create_future())


def told(error):
    return [[kind.__name__ for kind in type(error).__mro__], str(error)]


async def act(message, receive, send):
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "raise":
        raise RuntimeError(message.get("text", "on purpose"))
    if kind == "wait":
        await gates.setdefault(message["name"], asyncio.Event()).wait()
        return None
    if kind == "receive":
        return (await receive())["type"]
    try:
        await send(message)
    except Exception as error:
        return told(error)
    return None


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    query = scope["query_string"].decode()
    if scope["path"] == "/outcomes":
        await answer(send, json.dumps(await outcome(query)).encode())
        return
    if scope["path"] == "/go":
        gates.setdefault(query, asyncio.Event()).set()
        await answer(send, b"gone")
        return
    seen = []
    try:
        for message in ast.literal_eval((await read_body(receive)).decode()):
            seen.append(await act(message, receive, send))
    finally:
        outcome(query).set_result(seen)
