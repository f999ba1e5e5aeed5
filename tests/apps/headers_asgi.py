"""Answers with what the request's scope says."""

import json


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    head = {
        "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "client": scope["client"],
        "version": scope["http_version"],
        "extensions": len([name for name in scope["extensions"] if name.startswith("http")]),
    }
    body = json.dumps(head).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
