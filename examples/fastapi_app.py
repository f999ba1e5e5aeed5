"""FastAPI with a streamed answer, server-sent events and an upload of any size.

Needs: pip install fastapi
Serve it with `asgiserver examples.fastapi_app:app`; /docs has FastAPI's own pages.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>FastAPI on asgiserver</title>
<h1>FastAPI on asgiserver</h1>
<p>The server's time, pushed once a second: <output id="time">…</output></p>
<script>
  new EventSource("events").onmessage = e => { document.getElementById("time").value = e.data }
</script>
<p><a href="count?to=20">A streamed answer</a> · <a href="docs">The interface</a></p>
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run once: what stands before the yield at start-up, what follows it at shutdown."""
    app.state.started = datetime.now(UTC)
    yield


app = FastAPI(title="FastAPI on asgiserver", lifespan=lifespan)


@app.get("/", response_class=HTMLResponse)
async def index() -> str:
    return PAGE


@app.get("/items/{item}")
async def item(item: int, note: str = "") -> dict[str, object]:
    return {"item": item, "note": note, "started": app.state.started}


@app.get("/count")
async def count(to: int = 10) -> StreamingResponse:
    """One line each tenth of a second, sent as it is made."""

    async def lines() -> AsyncIterator[str]:
        for number in range(1, to + 1):
            yield f"{number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/events")
async def events() -> StreamingResponse:
    """Server-sent events until the client leaves."""

    async def ticks() -> AsyncIterator[str]:
        while True:
            yield f"data: {datetime.now(UTC):%H:%M:%S} UTC\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(
        ticks(), media_type="text/event-stream", headers={"cache-control": "no-cache"}
    )


@app.put("/upload")
async def upload(request: Request) -> dict[str, object]:
    """Hash a body of any size; no more than a few pieces of it are in memory at a time."""
    size, digest = 0, hashlib.sha256()
    async for piece in request.stream():
        size += len(piece)
        digest.update(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}
