"""Ten thousand requests of every kind leave block and object counts, descriptors and memory where they were.

What leaks grows with every batch; what is merely cached, or not yet returned, does not. So batches are compared with
each other, and one that left everything where it was proves that nothing leaks.

Memory is what malloc has given out. The resident set tells nothing here: it follows how many connections there were
at a time, and comes and goes by whole arenas of a MiB.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.client import SLOWNESS, RawClient
from support.server import Server
from support.websocket import BINARY, PING, TEXT, close_frame, frame, handshake

Factory = Callable[..., Server]

BATCHES = 12  # until one leaves nothing: freelists grow for a while
END = b"<<end>>"
MANY = 10_000
SOME = 2_000  # of what is slow: each takes a connection of its own, or writes a traceback


def request(
    path: str, *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1"
) -> bytes:
    lines = [f"{method} /{path} HTTP/{version}", "Host: a", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def post(path: str, body: bytes, *fields: str) -> bytes:
    return request(path, f"Content-Length: {len(body)}", *fields, method="POST", body=body)


def shaken(path: str, *frames: bytes, fields: tuple[str, ...] = ()) -> bytes:
    """A handshake, and frames with it."""
    return handshake(f"/{path}", *fields).encode() + b"".join(frames)


def deflated(text: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, data[:-4], rsv=4)


OFFER = ("Sec-WebSocket-Extensions: permessage-deflate",)
CHUNKS = b"5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX-A: b\r\n\r\n"


@dataclass(frozen=True)
class Kind:
    """What is sent, on connections that are kept or (``alone``) one for each."""

    raw: bytes
    only: str = ""
    status: bytes = b"200"
    n: int = MANY
    alone: str = ""  # how it ends: "read" all there is, "close", "reset", "half"
    tracebacks: bool = False


KINDS = {
    "hello": Kind(request("hello")),
    "head": Kind(request("hello", method="HEAD")),
    "query": Kind(request("hello?a=b&c=d")),
    "many targets": Kind(request("hello?<n>")),
    "long target": Kind(request("hello?" + "x" * 2000)),
    "fields": Kind(
        request("headers", *(f"X-Field-{n}: {n}" for n in range(20)), "Cookie: a", "Cookie: b")
    ),
    "body": Kind(post("body", b"hello\nworld\n" * 10)),
    "chunked body": Kind(request("body", "Transfer-Encoding: chunked", method="POST", body=CHUNKS)),
    "large body": Kind(post("body", b"x\n" * 50_000), n=500),
    "body in a file": Kind(post("body", b"x" * 600_000), n=200),
    # On a connection of its own: one whose body comes in a later read than its head closes it.
    "unread body": Kind(post("unread", b"x" * 1000), n=SOME, alone="half"),
    "continue": Kind(post("body", b"ok", "Expect: 100-continue")),
    "stream": Kind(request("stream")),
    "large": Kind(request("large"), n=1000),
    "keep-alive 1.0": Kind(request("hello", "Connection: keep-alive", version="1.0")),
    "upgrade": Kind(request("hello", "Connection: upgrade", "Upgrade: h2c")),
    "wrong": Kind(request("wrong"), tracebacks=True),
    "fail": Kind(request("fail"), status=b"500", n=SOME, tracebacks=True, alone="half"),
    "fail late": Kind(request("fail_late"), n=SOME, tracebacks=True, alone="half"),
    # ASGI
    "suspended": Kind(request("suspended"), "asgi"),
    "memory": Kind(request("memory"), "asgi", n=SOME),
    "tasks": Kind(request("tasks"), "asgi", n=SOME),
    "timeouts": Kind(request("timeouts"), "asgi", n=SOME),
    "not awaited": Kind(request("not_awaited"), "asgi"),
    "cancelled": Kind(request("cancelled"), "asgi", n=SOME, tracebacks=True),
    "background": Kind(request("background"), "asgi"),
    "pathsend": Kind(request("path"), "asgi"),
    "trailers": Kind(request("trailers", "TE: trailers"), "asgi"),
    # WebSocket: of a client that sends all it has to say at once
    "websocket": Kind(
        shaken(
            "ws_echo", frame(TEXT, "a"), frame(PING, "b"), frame(BINARY, b"c" * 300), close_frame()
        ),
        "asgi",
        status=b"101",
        n=SOME,
        alone="read",
    ),
    "websocket, deflated": Kind(
        shaken(
            "ws_echo", deflated(b"hello " * 50), deflated(b"hello"), close_frame(), fields=OFFER
        ),
        "asgi",
        status=b"101",
        n=SOME,
        alone="read",
    ),
    "websocket, large": Kind(
        shaken("ws_echo", frame(BINARY, b"x" * 200_000), close_frame()),
        "asgi",
        status=b"101",
        n=200,
        alone="read",
    ),
    "websocket, in tasks": Kind(
        shaken("ws_tasks", frame(TEXT, "a"), close_frame(None)), "asgi", b"101", SOME, "read"
    ),
    "websocket, not received": Kind(
        shaken("ws_busy", *[frame(TEXT, "a")] * 50, close_frame()), "asgi", b"101", SOME, "read"
    ),
    "websocket, bad frame": Kind(
        shaken("ws_echo", frame(TEXT, b"\xff")), "asgi", b"101", SOME, "read"
    ),
    "websocket, bad part": Kind(
        shaken("ws_echo", frame(TEXT, b"x" * 500, fin=False), frame(TEXT, b"y")),
        "asgi",
        b"101",
        SOME,
        "read",
    ),
    "websocket, half-closed": Kind(
        shaken("ws_echo", frame(TEXT, "a")), "asgi", b"101", SOME, "half"
    ),
    "websocket, reset": Kind(
        shaken("ws_echo", frame(TEXT, "a")), "asgi", n=SOME, alone="reset, waited for"
    ),
    "websocket, part of a message": Kind(
        shaken("ws_echo", frame(TEXT, "a" * 999, fin=False)),
        "asgi",
        n=SOME,
        alone="reset, waited for",
    ),
    "websocket, rejected": Kind(shaken("ws_reject"), "asgi", b"403", SOME, "read"),
    "websocket, denied": Kind(shaken("ws_deny"), "asgi", b"401", SOME, "read"),
    "websocket, refused": Kind(
        shaken("ws_echo", fields=("Sec-WebSocket-Version: 1",)), "asgi", b"426", SOME, "read"
    ),
    "websocket, closed": Kind(shaken("ws_close", close_frame(4000)), "asgi", b"101", SOME, "read"),
    "websocket, failing": Kind(
        shaken("ws_fail", close_frame()), "asgi", b"101", SOME, "read", tracebacks=True
    ),
    "websocket, wrong": Kind(shaken("ws_wrong", close_frame()), "asgi", b"101", SOME, "read"),
    # WSGI
    "several": Kind(request("several"), "wsgi"),
    "write": Kind(request("write"), "wsgi"),
    "closing": Kind(request("closing"), "wsgi"),
    "file": Kind(request("file"), "wsgi"),
    "start_response again": Kind(request("again"), "wsgi"),
    # connections
    "nothing": Kind(b"", n=MANY, alone="close"),
    "nothing, reset": Kind(b"", n=MANY, alone="reset"),
    "close": Kind(request("hello", "Connection: close"), n=SOME, alone="read"),
    "1.0": Kind(request("hello", version="1.0"), n=SOME, alone="read"),
    "half-closed": Kind(request("hello"), n=SOME, alone="half"),
    "part of a head": Kind(request("hello")[:-5], n=SOME, alone="reset"),
    "part of a body": Kind(post("body", b"x" * 100)[:-50], n=SOME, alone="reset"),
    "refused": Kind(b"GET / HTTP/1.1\r\nbad\r\n\r\n", status=b"400", n=SOME, alone="read"),
    "refused in a body": Kind(
        request("body", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\nzz"),
        status=b"400",
        n=SOME,
        alone="read",
    ),
    "refused behind a good one": Kind(request("hello") + b"NONSENSE\r\n\r\n", n=SOME, alone="read"),
    "leaving": Kind(request("wait"), "asgi", n=SOME, alone="reset, waited for"),
    "leaving a stream": Kind(request("endless"), n=500, alone="reset, waited for", tracebacks=True),
}


def pipelined(server: Server, kind: Kind, asker: RawClient) -> None:
    """The kind's requests on one connection, in pieces of a hundred."""
    end = request("end")
    step = 100 if len(kind.raw) < 10_000 else 1
    with server.raw(timeout=30) as client:
        for at in range(0, kind.n, step):
            raw = b"".join(kind.raw.replace(b"<n>", b"%d" % (at + n)) for n in range(step))
            client.send(raw + end)
            got = bytearray()
            while not got.endswith(END):
                data = client.socket.recv(1 << 20)
                assert data, f"closed behind {bytes(got[-300:])!r}"
                got += data
            assert got.count(b"HTTP/1.1 " + kind.status) - (kind.status == b"200") == step


def apart(server: Server, kind: Kind, asker: RawClient) -> None:
    """The kind's request on as many connections, of which only some are there at a time."""
    for number in range(kind.n):
        if number % 20 == 0:
            fetch(asker, "end")
        with server.raw() as client:
            if kind.raw:
                client.send(kind.raw)
            if kind.alone == "half":  # Answered, and then closed by the server.
                client.shutdown()
            if kind.alone in ("read", "half"):
                try:
                    got = client.recv_all()
                except ConnectionResetError:
                    continue
                assert got.startswith(b"HTTP/1.1 " + kind.status), got
            elif "waited" in kind.alone:
                client.recv_head()
                client.reset()
            elif kind.alone == "reset":
                client.reset()
    if "waited" in kind.alone:
        deadline = time.monotonic() + 20 * SLOWNESS
        while int(fetch(asker, "departed")) < kind.n:
            assert time.monotonic() < deadline, "the application does not see them leave"


def fetch(asker: RawClient, path: str) -> bytes:
    asker.send(request(path))
    return asker.recv_response().body


@dataclass(frozen=True)
class Held:
    blocks: int
    objects: int
    heap: int  # bytes


def measure(server: Server, asker: RawClient, files: int) -> Held:
    """What is held once the loop is through with what was left to it: two looks in a row see the same.

    ``files`` is how many descriptors there are without any connection but the asker's. The core serves several
    requests before the asyncio loop gets its turn, so there are some between the looks.
    """
    deadline = time.monotonic() + 20 * SLOWNESS
    last = Held(**json.loads(fetch(asker, "tell_counts")))
    while time.monotonic() < deadline:
        for _ in range(10):
            fetch(asker, "end")
        held = Held(**json.loads(fetch(asker, "tell_counts")))
        if server.open_files() <= files and abs(held.objects - last.objects) < 20:
            return held
        last = held
    raise AssertionError(
        f"does not come to rest: {last}; {server.open_files()} descriptors, once {files}"
    )


@pytest.mark.memory
@pytest.mark.timeout(600 * SLOWNESS)
@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_left(serve: Factory, backend: object, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    if kind.only not in ("", backend.interface):
        pytest.skip(f"only {kind.only} has it")
    # Over a Unix socket: as many connections in a row would use up the ports.
    server = serve(
        f"leaks_{backend.interface}:app", "--no-access-log", "--timeout-keep-alive", "600",
        uds=tmp_path / "s", **backend.options,
    )  # fmt: skip
    server.tracebacks_expected = kind.tracebacks
    run = apart if kind.alone else pipelined
    with server.raw() as asker:
        fetch(asker, "end")
        files = server.open_files()
        run(server, kind, asker)
        seen = [measure(server, asker, files)]
        for _ in range(BATCHES):
            run(server, kind, asker)
            seen.append(measure(server, asker, files))
            before, after = seen[-2:]
            # A tenth of a block for each request is no noise.
            slack = kind.n // 10
            if (
                after.blocks - before.blocks < slack
                and after.objects - before.objects < slack
                and after.heap - before.heap < kind.n * 8 + (16 << 10)
            ):
                return
    raise AssertionError(f"{kind.n} requests a batch: {seen}")
