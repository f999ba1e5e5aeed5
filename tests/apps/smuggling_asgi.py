"""Answers with what it saw, as JSON, and in short in the field X-Seen; each answer has a number.

A path with ``early`` is answered without a look at the body, one with ``denied`` refuses the WebSocket that it
is asked for. smuggling_wsgi.py answers the same.
"""

import itertools
import json

numbers = itertools.count(1)


async def read_body(receive):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        more = message["more_body"]
    return body


async def websocket(scope, receive, send):
    await receive()
    if "denied" in scope["path"]:
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(len(message.get("text") or ""))})


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
        return
    early = "early" in scope["path"]
    body = b"" if early else await read_body(receive)
    if body is None:
        return
    target = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    seen = {
        "number": next(numbers),
        "method": scope["method"],
        "target": target.decode("latin-1"),
        "headers": [
            [name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]
        ],
        "body": body.decode("latin-1"),
    }
    answer = json.dumps(seen).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(answer)),
        (b"x-seen", b"%d %b %b" % (seen["number"], scope["method"].encode(), target[:200])),
    ]
    await send({"type": "http.response.start", "status": 403 if early else 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
