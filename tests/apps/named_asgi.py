"""Says who served what for whom, after a moment, so that there are always requests under way."""

import asyncio
import json
import os


async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await asyncio.sleep(0.005)
    seen = {
        "name": os.environ["SERVER_NAME"],
        "pid": os.getpid(),
        "method": scope["method"],
        "path": scope["path"],
        "body": body.decode(),
        "client": scope["client"][0],
        "scheme": scope["scheme"],
    }
    answer = json.dumps(seen).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
