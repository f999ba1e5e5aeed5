"""For the tests of the logs: /error logs a message."""

from asgiserver import logs


def act(path):
    if path == "/error":
        logs.error.error("A message")


def wsgi(environ, start_response):
    act(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "2"), ("X-B", "from the application")])
    return [b"ok"]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    act(scope["path"])
    headers = [(b"content-length", b"2"), (b"x-b", b"from the application")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
