"""Answers with what the scope says of TLS, as JSON; tls_wsgi.py does so for environ."""

import json
import os


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/cut":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("failed on purpose")
    found = {"scheme": scope["scheme"], "pid": os.getpid(), "client": scope["client"]}
    found["tls"] = scope["extensions"].get("tls")
    body = json.dumps(found).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
