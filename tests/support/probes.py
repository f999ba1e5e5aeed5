"""Asking the probe applications (tests/apps/probe_asgi.py, probe_wsgi.py)."""

from __future__ import annotations

import json
import select
import time

from .client import SLOWNESS, MalformedResponse, RawClient
from .server import Server


def fetch(server: Server, target: str) -> bytes:
    """A request on a connection of its own."""
    with server.raw() as client:
        client.get(target)
        return client.recv_response().body


def get_in_time(server: Server) -> str:
    """``server.get()`` while workers come and go; empty if this process was too late to tell anything:
    one that stops waits a second for the request of who has connected."""
    began = time.monotonic()
    try:
        return server.get()
    except (OSError, MalformedResponse):
        assert time.monotonic() - began > 1
        return ""


def refuses(server: Server) -> bool:
    """Nobody listens there any more."""
    try:
        with server.raw():
            return False
    except ConnectionRefusedError:
        return True


def nothing_to_read(client: RawClient) -> bool:
    """True while the server has sent nothing (more)."""
    return not client.buffer and not select.select([client.socket], [], [], 0)[0]


def await_event(server: Server, event: str) -> None:
    """Asks until the application has seen it; each question is answered by the loop after what came before."""
    deadline = time.monotonic() + 10 * SLOWNESS
    with server.raw() as client:
        while time.monotonic() < deadline:
            client.get("/events")
            if event in (seen := json.loads(client.recv_response().body)):
                return
    raise AssertionError(f"no {event!r} among {seen}")
