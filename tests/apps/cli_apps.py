"""Applications for the tests of the command line and of starting and stopping."""

import asyncio
import sys
import time


async def answer(send, text):
    body = text.encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shut down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/forever":
        print("waiting", flush=True)
        await asyncio.Event().wait()
    elif scope["path"] == "/blocked":
        print("waiting", flush=True)
        time.sleep(600)
    elif scope["path"] == "/exit":
        sys.exit(5)
    else:
        await answer(send, scope.get("root_path", ""))


async def stubborn_start(scope, receive, send):
    """Never completes its start-up."""
    await receive()
    print("starting", flush=True)
    await asyncio.Event().wait()


async def stubborn_end(scope, receive, send):
    """Never completes its shutdown."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("hanging", flush=True)
        await asyncio.Event().wait()


async def stubborn_request(scope, receive, send):
    """Does not let itself be cancelled at once."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    print("waiting", flush=True)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise


async def leftover(scope, receive, send):
    """Leaves a task behind."""
    assert scope["type"] == "http"
    leftover.task = asyncio.create_task(asyncio.Event().wait())
    await answer(send, "left")


def create():
    return app
