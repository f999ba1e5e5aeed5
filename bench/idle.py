"""Memory of idle keep-alive connections, for each of them, with 10,000 of them open.

Every connection makes one request, reads its answer and stays. The figure is the growth of the
server's private and anonymous memory (not the kernel's socket buffers) divided by their number.
Afterwards a sample of the connections is asked again: they must still be served.

    .venv/bin/python bench/idle.py
    .venv/bin/python bench/idle.py --websocket      # WebSockets that have had one message echoed

With compression, a message that is compressed leaves what zlib keeps of it for the next ones.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import platform
import resource
import socket
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from hello import BODY

GOAL = 2048  # bytes of user memory for each connection
GOAL_WEBSOCKET = 3072  # uncompressed
KEEP_ALIVE = "600"  # seconds: longer than this takes
SPARE_FILES = 256
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
OFFER = (
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"  # as browsers do
)
MASK = b"\x37\xfa\x21\x3d"
TEXT = b"idle for the rest of the day " * 4
SAMPLE = 100  # each hundredth connection is asked again


def raise_file_limit(files: int) -> None:
    """Allow `files` open descriptors here and in the server, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(hard, files)))
    except (ValueError, OSError):
        raise harness.BenchError(
            f"{files} open files are needed, and the hard limit is {hard}"
        ) from None


def ask(client: socket.socket) -> None:
    """One request and its answer."""
    client.sendall(harness.REQUEST)
    with client.makefile("rb") as stream:
        if (got := harness.read_answer(stream)) != BODY:
            raise harness.BenchError(f"wrong answer: {got[:80]!r}")


def ask_websocket(client: socket.socket, deflate: bool, opened: dict[int, Any]) -> None:
    """One message and its echo, behind the handshake if there was none. `opened`: by descriptor, what
    inflates (RFC 7692, 7.2.2)."""
    with client.makefile("rb") as stream:
        if client.fileno() not in opened:
            opened[client.fileno()] = zlib.decompressobj(wbits=-15)
            client.sendall(HANDSHAKE + (OFFER if deflate else b"") + b"\r\n")
            head = b"".join(iter(stream.readline, b"\r\n"))
            if b" 101 " not in head or (b"permessage-deflate" in head) is not deflate:
                raise harness.BenchError(f"the handshake was answered by {head!r}")
        payload = compressed(TEXT) if deflate else TEXT
        first = 0xC1 if deflate else 0x81  # FIN, RSV1 if compressed, text (RFC 6455, 5.2)
        masked = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
        client.sendall(bytes([first, 0x80 | len(payload)]) + MASK + masked)
        first, length = stream.read(2)
        echo = stream.read(length)
        if first & 0x40:
            echo = opened[client.fileno()].decompress(echo + b"\0\0\xff\xff")
        if echo != TEXT:
            raise harness.BenchError(f"wrong echo: {echo[:80]!r}")


def compressed(data: bytes) -> bytes:
    """As a message that refers to none before it (RFC 7692, 7.2.1)."""
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def measure(
    server: harness.Server, count: int, ask: Callable[[socket.socket], None]
) -> dict[str, float]:
    """Bytes for each of `count` idle connections: private and anonymous."""
    clients: list[socket.socket] = []
    with contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(
                socket.create_connection((harness.HOST, server.port), timeout=10)
            )

        ask(connect())  # what the first request costs is not a connection's
        before = server.memory()
        for _ in range(count):
            clients.append(connect())
            ask(clients[-1])
        after = server.memory()
        for client in clients[::SAMPLE]:
            ask(client)
    return {name: round((after[name] - before[name]) / count, 1) for name in before}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the floor, ASGI and WSGI, one after the other."""
    if args.websocket:
        return run_websocket(args)
    core = harness.two_cores()[0]
    keep = ("--timeout-keep-alive", KEEP_ALIVE)
    commands = {
        "floor": [str(harness.find_floor(args.floor)), *keep],
        "asgi": harness.asgiserver_command("asgi", *keep),
        "wsgi": harness.asgiserver_command("wsgi", *keep),
    }
    rows = []
    for name, command in commands.items():
        port = harness.free_port()
        with harness.serving(name, [*command, "--port", str(port)], port, core) as server:
            rows.append({"server": name, **measure(server, args.connections, ask), "goal": GOAL})
    return {
        "benchmark": "idle",
        "python": platform.python_version(),
        "connections": args.connections,
        "results": rows,
    }


def run_websocket(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the floor, and the echo application with and without compression."""
    core = harness.two_cores()[0]
    ours = harness.asgiserver_command(
        "asgi", "--ws-ping-interval", "0", "--lifespan", "off", name="echo"
    )
    commands = {
        "floor": ([str(harness.find_floor(args.floor))], False),
        "asgi, asyncio": ([*ours, "--loop", "asyncio"], False),
        "asgi, uvloop": ([*ours, "--loop", "uvloop"], False),
        "asgi, uvloop, compressed": ([*ours, "--loop", "uvloop"], True),
    }
    if importlib.util.find_spec("uvicorn"):
        uvicorn = [sys.executable, "-m", "uvicorn", "hello:echo", "--app-dir", str(harness.BENCH)]
        uvicorn += ["--log-level", "warning", "--lifespan", "off", "--ws-ping-interval", KEEP_ALIVE]
        commands["uvicorn, websockets"] = ([*uvicorn, "--loop", "uvloop"], False)
    rows = []
    for name, (command, deflate) in commands.items():
        port = harness.free_port()
        ask = functools.partial(ask_websocket, deflate=deflate, opened={})
        with harness.serving(name, [*command, "--port", str(port)], port, core) as server:
            goal = None if deflate else GOAL_WEBSOCKET
            rows.append({"server": name, **measure(server, args.connections, ask), "goal": goal})
    return {
        "benchmark": "idle_websocket",
        "python": platform.python_version(),
        "connections": args.connections,
        "results": rows,
    }


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    what = "WebSocket" if results["benchmark"] == "idle_websocket" else "keep-alive connection"
    lines = [
        f"Memory of an idle {what}, with {results['connections']:,} of them open, "
        f"CPython {results['python']}.",
        "",
        "| server | private, bytes | anonymous, bytes | goal |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['server']} | {row['private']:,.0f} | {row['anonymous']:,.0f} | "
        f"{'' if row['goal'] is None else '≤ {:,}'.format(row['goal'])} |"
        for row in results["results"]
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--floor", type=Path, help="the floor's executable (default: bench/floor)")
    parser.add_argument(
        "--output",
        type=Path,
        help="path of the results, without suffix: .md and .json are written",
    )
    parser.add_argument("--websocket", action="store_true", help="idle WebSockets instead")
    args = parser.parse_args()
    name = "idle_websocket" if args.websocket else "idle"
    args.output = args.output or harness.BENCH / "results" / name
    try:
        raise_file_limit(args.connections + SPARE_FILES)
        results = run(args)
    except (harness.BenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = table(results)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    args.output.with_suffix(".md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
