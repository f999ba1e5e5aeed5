"""ASGI: who serves a request, and ways to get into trouble. workers_wsgi.py is the same for WSGI."""

import asyncio
import os
import signal
import time


def say(text):
    """A line by one write: what several workers say at once stays apart."""
    os.write(1, f"{text}\n".encode())


say(f"imported by {os.getpid()}")

ballast = []


async def answer(send, text, status=200):
    body = text.encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def fails_to_start():
    """APP_FAILS names a file. Nothing starts while it is there; if it has words, each start takes one,
    and "fails" is one that does."""
    path = os.environ.get("APP_FAILS", "")
    try:
        with open(path) as file:
            words = file.read().split()
    except FileNotFoundError:
        return False
    if not words:
        return True
    if len(words) == 1:
        os.unlink(path)
    else:
        with open(path, "w") as file:
            file.write(" ".join(words[1:]))
    return words[0] == "fails"


async def lifespan(receive, send):
    if fails_to_start():
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say(f"shut down {os.getpid()}")
    await send({"type": "lifespan.shutdown.complete"})


async def stream(receive, send):
    """Server-sent events, until the client leaves."""
    left = asyncio.create_task(until_left(receive))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
    await left
    say("stream saw the disconnect")


async def until_left(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def poll(receive, send):
    """A long poll."""
    say("polling")
    await until_left(receive)
    say("poll saw the disconnect")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path = scope["path"]
    if path == "/stream":
        await stream(receive, send)
    elif path == "/poll":
        await poll(receive, send)
    elif path == "/forever":
        say("waiting")
        await asyncio.Event().wait()
    elif path.startswith("/until/"):
        say("waiting")
        while not os.path.exists(path.removeprefix("/until")):
            await asyncio.sleep(0.01)
        await answer(send, str(os.getpid()))
    elif path == "/sleep":
        say("waiting")
        time.sleep(60)
    elif path == "/spin":
        say("waiting")
        spin()
    elif path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif path == "/grow":
        ballast.append(b"x" * 1_000_000)
        await answer(send, str(os.getpid()))
    else:
        await answer(send, str(os.getpid()))


def spin():
    while True:
        pass
