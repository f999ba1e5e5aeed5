"""Answers with what the request's scope says, or keeps some of it beyond the request."""

import asyncio
import gc
import json
import os

kept = []  # "headers", which nobody has read


def look():
    """How long those are that nobody has kept, when no request is under way."""
    lengths = [
        len(one)
        for one in gc.get_objects()
        if type(one).__name__ == "Headers" and not any(one is other for other in kept)
    ]
    os.write(2, f"lengths: {lengths}\n".encode())


def pairs(headers):
    return [[name.decode(), value.decode()] for name, value in headers]


async def deed(scope):
    match scope["path"]:
        case "/keep":
            kept.append(scope["headers"])
        case "/keep_while_waiting":
            await asyncio.sleep(0)
            kept.append(scope["headers"])
        case "/keep_and_wait":
            kept.append(scope["headers"])
            await asyncio.sleep(0)
        case "/kept":
            return [pairs(headers) for headers in kept]
        case "/read_and_end":
            pairs(scope["headers"])
            asyncio.get_running_loop().call_soon(look)
        case "/end":
            asyncio.get_running_loop().call_soon(look)
    return None


def described(scope):
    return {
        "headers": pairs(scope["headers"]),
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "client": scope["client"],
        "version": scope["http_version"],
        "extensions": len([name for name in scope["extensions"] if name.startswith("http")]),
    }


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    answer = described(scope) if scope["path"] in "/0/1" else await deed(scope)
    body = json.dumps(answer).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
