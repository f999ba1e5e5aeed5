"""Memory of idle connections, for each of them, with 10,000 of them open.

Every connection makes one request, reads its answer and stays: a keep-alive connection. Or it is a
WebSocket, which has had one message sent back, and whose application waits in `receive()`; the
second kind agreed to permessage-deflate, and its messages were compressed. The figure is the growth of the
server's private and anonymous memory (not the kernel's socket buffers) divided by their number.
Afterwards a sample of the connections is asked again: they must still be served.

    .venv/bin/python bench/idle.py
"""

import argparse
import contextlib
import platform
import socket
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asbench import harness
from asbench.scenarios import HELLO as BODY

GOAL = 1024  # bytes of user memory for each connection
GOAL_WEBSOCKET = 3072
KEEP_ALIVE = "600"  # seconds: longer than this takes
SPARE_FILES = 256
SAMPLE = 100  # each hundredth connection is asked again


def ask(client: socket.socket) -> None:
    """One request and its answer."""
    client.sendall(harness.REQUEST)
    with client.makefile("rb") as stream:
        if (got := harness.read_answer(stream)) != BODY:
            raise harness.BenchError(f"wrong answer: {got[:80]!r}")


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
FIN_TEXT, RSV1, MASKED = 0x81, 0x40, 0x80


def read_exactly(client: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        if not (more := client.recv(n - len(data))):
            raise harness.BenchError("the server has closed a WebSocket")
        data += more
    return data


def shake_hands(client: socket.socket, fields: bytes = b"") -> None:
    client.sendall(HANDSHAKE + fields + b"\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(client, 1)
    if not head.startswith(b"HTTP/1.1 101 ") or (b"permessage-deflate" in head) != bool(fields):
        raise harness.BenchError(f"no handshake: {head!r}")


def say(client: socket.socket, text: bytes = b"hello") -> None:
    """A message, masked with zeros, and the same back."""
    client.sendall(bytes([FIN_TEXT, MASKED | len(text)]) + bytes(4) + text)
    first, n = read_exactly(client, 2)
    got = read_exactly(client, n)
    if (first, got) != (FIN_TEXT, text):
        raise harness.BenchError(f"wrong message: {first:#x} {got!r}")


def say_deflated(client: socket.socket) -> None:
    """The same, compressed both ways."""
    compressor = zlib.compressobj(wbits=-15)
    text = b"hello " * 20
    data = (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    client.sendall(bytes([FIN_TEXT | RSV1, MASKED | len(data)]) + bytes(4) + data)
    first, n = read_exactly(client, 2)
    read_exactly(client, n)
    if first != FIN_TEXT | RSV1:
        raise harness.BenchError(f"a message that is not compressed: {first:#x}")


def open_websocket(client: socket.socket) -> None:
    shake_hands(client)
    say(client)


def open_deflated(client: socket.socket) -> None:
    shake_hands(client, DEFLATE)
    say_deflated(client)


Use = Callable[[socket.socket], None]


def measure(
    server: harness.Server, count: int, first: Use = ask, again: Use = ask
) -> dict[str, float]:
    """Bytes for each of `count` idle connections: private and anonymous. `first` is what each is
    used for, `again` what a sample of them is asked in the end.
    """
    clients: list[socket.socket] = []
    with contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(
                socket.create_connection((harness.HOST, server.port), timeout=10)
            )

        first(connect())  # what the first request costs is not a connection's
        before = server.memory()
        for _ in range(count):
            clients.append(connect())
            first(clients[-1])
        after = server.memory()
        for client in clients[::SAMPLE]:
            again(client)
    return {
        name: round((after[name] - before[name]) / count, 1) for name in ("private", "anonymous")
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the floor, ASGI, WSGI and WebSockets, one after the other."""
    harness.raise_file_limit(args.connections + SPARE_FILES)
    core = harness.two_cores()[0]
    keep = ("--timeout-keep-alive", KEEP_ALIVE)
    floor = [str(harness.find_floor(args.floor)), *keep]
    websocket = harness.asgiserver_command("asgi", "--ws-ping-interval", "0", name="websocket")
    kinds: dict[str, tuple[list[str], Use, Use, int | None]] = {
        "floor": (floor, ask, ask, GOAL),
        "asgi": (harness.asgiserver_command("asgi", *keep), ask, ask, GOAL),
        "wsgi": (harness.asgiserver_command("wsgi", *keep), ask, ask, GOAL),
        "websocket, floor": (floor, open_websocket, say, None),
        "websocket": (websocket, open_websocket, say, GOAL_WEBSOCKET),
        "websocket, deflated": (websocket, open_deflated, say_deflated, None),
    }
    rows = []
    for name, (command, first, again, goal) in kinds.items():
        if args.only and name not in args.only:
            continue
        port = harness.free_port()
        with harness.serving(name, [*command, "--port", str(port)], port, core) as server:
            rows.append(
                {"server": name, **measure(server, args.connections, first, again), "goal": goal}
            )
    return {
        "benchmark": "idle",
        "python": platform.python_version(),
        "connections": args.connections,
        "results": rows,
    }


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    lines = [
        f"Memory of an idle connection, with {results['connections']:,} of them open, "
        f"CPython {results['python']}.",
        "",
        "| server | private, bytes | anonymous, bytes | goal |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['server']} | {row['private']:,.0f} | {row['anonymous']:,.0f} "
        f"| {f'≤ {goal:,}' if (goal := row['goal']) else ''} |"
        for row in results["results"]
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--only", action="append", help="this row alone; may be given repeatedly")
    parser.add_argument("--floor", type=Path, help="the floor's executable (default: bench/floor)")
    return harness.main(parser, "idle", run, table)


if __name__ == "__main__":
    sys.exit(main())
