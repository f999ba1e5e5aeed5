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


async def lifespan(receive, send):
    if os.environ.get("APP_FAILS") and os.path.exists(os.environ["APP_FAILS"]):
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
    elif path == "/slow":
        say("slow")
        await asyncio.sleep(1.0)
        await answer(send, "slow")
    elif path == "/sleep":
        time.sleep(60)
    elif path == "/spin":
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
