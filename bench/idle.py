"""Memory of idle keep-alive connections, for each of them, with 10,000 of them open.

Every connection makes one request, reads its answer and stays. The figure is the growth of the
server's private and anonymous memory (not the kernel's socket buffers) divided by their number.
Afterwards a sample of the connections is asked again: they must still be served.

    .venv/bin/python bench/idle.py
"""

import argparse
import contextlib
import json
import platform
import resource
import socket
import sys
from pathlib import Path
from typing import Any

import harness
from hello import BODY

GOAL = 2048  # bytes of user memory for each connection
KEEP_ALIVE = "600"  # seconds: longer than this takes
SPARE_FILES = 256
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


def measure(server: harness.Server, count: int) -> dict[str, float]:
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
            rows.append({"server": name, **measure(server, args.connections), "goal": GOAL})
    return {
        "benchmark": "idle",
        "python": platform.python_version(),
        "connections": args.connections,
        "results": rows,
    }


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    lines = [
        f"Memory of an idle keep-alive connection, with {results['connections']:,} of them open, "
        f"CPython {results['python']}.",
        "",
        "| server | private, bytes | anonymous, bytes | goal |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['server']} | {row['private']:,.0f} | {row['anonymous']:,.0f} | ≤ {row['goal']:,} |"
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
        default=harness.BENCH / "results" / "idle",
        help="path of the results, without suffix: .md and .json are written",
    )
    args = parser.parse_args()
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
