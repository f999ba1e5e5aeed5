"""What the benchmarks share: pinned servers, their CPU time and memory, checked answers."""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
HOST = "127.0.0.1"
START_TIMEOUT = 20.0  # seconds
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"


class BenchError(Exception):
    """The benchmark cannot go on: its message says why."""


@dataclass(frozen=True)
class Server:
    """A running server under test."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    output: Path

    def cpu_ns(self) -> int:
        """CPU time of all its threads so far, and of its processes' if it has several, in nanoseconds."""
        total, processes = 0, [self.process.pid]
        for pid in processes:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
                processes += map(int, (task / "children").read_text().split())
        return total

    def memory(self) -> dict[str, int]:
        """Private and anonymous memory, in bytes."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        return {
            "private": 1024 * (kib["Private_Clean"] + kib["Private_Dirty"]),
            "anonymous": 1024 * kib["Anonymous"],
        }


def asgiserver_command(interface: str, *options: str, name: str = "") -> list[str]:
    """The command line that serves `name` of bench/hello.py under `interface`, without the port."""
    return [
        *(
            sys.executable,
            "-m",
            "asgiserver",
            f"hello:{name or interface}",
            "--app-dir",
            str(BENCH),
        ),
        *("--interface", interface, "--host", HOST, "--no-access-log", "--log-level", "warning"),
        *options,
    ]


def find_floor(path: Path | None = None) -> Path:
    """The executable that answers a constant from the core alone."""
    path = path or BENCH / "floor"
    if not os.access(path, os.X_OK):
        raise BenchError(f"no executable {path}: run `make build` first")
    return path.resolve()


def two_cores() -> tuple[int, int]:
    """One core for the server and one for the client."""
    match sorted(os.sched_getaffinity(0)):
        case [first, second, *_]:
            return first, second
    raise BenchError("two cores are needed: one for the server, one for the client")


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def serving(name: str, command: list[str], port: int, core: int) -> Iterator[Server]:
    """Run a server on one core until the block ends; it listens when the block starts."""
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
        server = Server(name, process, port, Path(output.name))
        try:
            wait_for(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(server: Server, timeout: float = START_TIMEOUT) -> None:
    """Return when the server accepts connections; a BenchError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, server.port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    said = server.output.read_text(errors="replace").strip()
    raise BenchError(f"{server.name} did not start:\n{said}")


def read_answer(stream: BinaryIO) -> bytes:
    """Read one answer with a Content-Length and return its body; anything but a 200 is an error."""
    status = stream.readline()
    if not status.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"expected an answer with status 200, got {status!r}")
    length = None
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length is None:
        raise BenchError("an answer without Content-Length")
    body = stream.read(length)
    if body is None or len(body) != length:
        raise BenchError("an answer was cut short")
    return body


def check_answers(server: Server, depth: int, body: bytes) -> None:
    """Ask `depth` times in one write, on one connection; each answer must be the right one."""
    with socket.create_connection((HOST, server.port), 5) as client:
        client.sendall(REQUEST * depth)
        with client.makefile("rb") as stream:
            for _ in range(depth):
                got = read_answer(stream)
                if got != body:
                    raise BenchError(f"{server.name} answered {got[:80]!r}")
        client.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            if extra := client.recv(1):
                raise BenchError(f"{server.name} answered more often than it was asked: {extra!r}")


def main(
    parser: argparse.ArgumentParser,
    name: str,
    run: Callable[[argparse.Namespace], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> int:
    """Runs a benchmark from the command line, and writes what it returns; the exit status."""
    parser.add_argument(
        "--output",
        type=Path,
        default=BENCH / "results" / name,
        help="path of the results, without suffix: .md and .json are written",
    )
    args = parser.parse_args()
    try:
        results = run(args)
    except (BenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = table(results)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    args.output.with_suffix(".md").write_text(text)
    print(text)
    return 0
