"""The same small things under both interfaces, for the tests of gunicorn's workers."""

import asyncio
import os
import sys
import time
from pathlib import Path

SMALL = Path(__file__)
MARK = os.environ.get("MARK", "")  # as the process had it when this was imported


def say(text):
    """A line by one write: what several processes say at once stays apart."""
    os.write(1, f"{text}\n".encode())


def _text(path: str, env: dict[str, object]) -> str:
    word, _, rest = path.removeprefix("/").partition("/")
    match word:
        case "pid":
            return str(os.getpid())
        case "hang":
            say("hanging")
            time.sleep(float(rest))
            return "hung"
        case "env":
            return repr(env.get(rest))
        case "environ":
            return repr(os.environ.get(rest))
        case "mark":
            return MARK
        case "exit":
            sys.exit(7)
        case "fail":
            raise RuntimeError("on purpose")
        case _:
            return "hello"


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/sleep/"):
        say("asleep")
        time.sleep(float(path.removeprefix("/sleep/")))
    if path.startswith("/until/"):
        say("waiting")
        while not os.path.exists(path.removeprefix("/until")):
            time.sleep(0.01)
    if path == "/file":
        start_response("200 OK", [("Content-Length", str(SMALL.stat().st_size))])
        return environ["wsgi.file_wrapper"](SMALL.open("rb"))
    if path == "/errors":
        environ["wsgi.errors"].write("written to wsgi.errors\n")
    body = _text(path, environ).encode()
    status = "404 Not Found" if path.startswith("/missing") else "200 OK"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    path = scope["path"]
    if path.startswith("/sleep/"):
        await _sleep(path)
    if path.startswith("/until/"):
        say("waiting")
        while not os.path.exists(path.removeprefix("/until")):
            await asyncio.sleep(0.01)
    if path == "/loop":
        scope["loop"] = type(asyncio.get_running_loop()).__module__
        path = "/env/loop"
    body = _text(path, scope).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 404 if path.startswith("/missing") else 200,
            "headers": [
                (b"content-type", b"text/plain"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _sleep(path):
    say("asleep")
    try:
        await asyncio.sleep(float(path.removeprefix("/sleep/")))
    except asyncio.CancelledError:
        say(f"cancelled {path}")
        raise


async def _lifespan(receive, send):
    while True:
        message = await receive()
        say(f"lifespan: {message['type']}")
        if os.environ.get("REFUSE") == "1":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def make_asgi():
    return asgi
