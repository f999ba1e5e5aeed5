"""What the benchmarks share: pinned servers, their CPU time and memory, checked answers."""

import argparse
import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

BENCH = Path(__file__).resolve().parent.parent
APPS = BENCH / "apps"
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
    process: subprocess.Popen[Any]
    port: int
    output: Path

    def cpu_ns(self) -> int:
        """CPU time of all its threads so far, and of its processes' if it has several, in nanoseconds."""
        total = 0
        for task in self.tasks():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((task / "schedstat").read_text().split()[0])
        return total

    def memory(self) -> dict[str, int]:
        """Memory of all its processes, in bytes: private, anonymous, and with its part of what is shared."""
        total = {"private": 0, "anonymous": 0, "shared_out": 0}
        for pid in {task.parts[2] for task in self.tasks()}:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
            total["private"] += 1024 * (kib["Private_Clean"] + kib["Private_Dirty"])
            total["anonymous"] += 1024 * kib["Anonymous"]
            total["shared_out"] += 1024 * kib["Pss"]
        return total

    def tasks(self) -> Iterator[Path]:
        """Its threads, and those of the processes that it has started: /proc/PID/task/TID."""
        processes = [self.process.pid]
        for pid in processes:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
                    yield task
                    processes += map(int, (task / "children").read_text().split())

    def said(self) -> str:
        """What it has printed."""
        return self.output.read_text(errors="replace").strip()


def asgiserver_command(interface: str, *options: str, name: str = "") -> list[str]:
    """The command line that serves `name` of bench/hello.py under `interface`, without the port."""
    return [
        *(
            sys.executable,
            "-m",
            "asgiserver",
            f"hello:{name or interface}",
            "--app-dir",
            str(APPS),
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


def raise_file_limit(files: int) -> None:
    """Allow `files` open descriptors here and in the server, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(hard, files)))
    except (ValueError, OSError):
        raise BenchError(f"{files} open files are needed, and the hard limit is {hard}") from None


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
def serving(
    name: str, command: list[str], port: int, core: int, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """Run a server on one core until the block ends; it listens when the block starts."""
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
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
    raise BenchError(f"{server.name} did not start:\n{server.said()}")


def read_answer(stream: BinaryIO) -> bytes:
    """Read one whole answer and return its body; anything but a 200 is an error."""
    status = stream.readline()
    if not re.match(rb"HTTP/1\.[01] 200 ", status):
        raise BenchError(f"expected an answer with status 200, got {status!r}")
    fields = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        return b"".join(read_chunks(stream))
    if b"content-length" not in fields:
        return stream.read()
    return read_exactly(stream, int(fields[b"content-length"]))


def read_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """The chunks of a body, to its end."""
    while size := int(stream.readline(), 16):
        yield read_exactly(stream, size)
        if stream.readline() != b"\r\n":
            raise BenchError("a chunk that is longer than its size")
    while stream.readline() not in (b"\r\n", b""):
        pass


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """That many bytes."""
    data = stream.read(size)
    if len(data) != size:
        raise BenchError("an answer was cut short")
    return data


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
