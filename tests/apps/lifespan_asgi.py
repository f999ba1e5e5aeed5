"""Applications that differ in how they start and stop."""

import asyncio
import contextvars

seen = []
variable = contextvars.ContextVar("variable", default="unset")


async def answer(send, text):
    body = text.encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        seen.append("startup")
        print("startup seen", flush=True)
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        print("shutdown seen", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/slow":
        print("slow begins", flush=True)
        await asyncio.sleep(0.5)  # Long enough for the signal to come first.
        await answer(send, "slow")
        print("slow ends", flush=True)
    else:
        await answer(send, str(seen))


async def failed(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})


async def raising(scope, receive, send):
    if scope["type"] == "lifespan":
        raise ZeroDivisionError("in the lifespan")
    await answer(send, "raising")


async def raising_late(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        raise ZeroDivisionError("in the lifespan")
    await answer(send, "raising")


async def without(scope, receive, send):
    assert scope["type"] == "http"
    await answer(send, "without")


async def failing_at_the_end(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "cannot stop"})
    else:
        await answer(send, "ok")


async def contexts(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        variable.set("set in the lifespan")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        assert variable.get() == "set in the lifespan"
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await answer(send, variable.get())
