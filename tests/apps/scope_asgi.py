"""Answers with repr(scope), headers as a list; has no lifespan."""


async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = repr({**scope, "headers": list(scope["headers"])}).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
