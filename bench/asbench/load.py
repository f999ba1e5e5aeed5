"""What asks the servers: bench/http_load.c, and wrk where something independent is wanted."""

import contextlib
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asbench.harness import BENCH, HOST, BenchError

PATIENCE = 90.0  # seconds: beyond those of the load itself


@dataclass(frozen=True)
class Load:
    """One way of asking."""

    request: bytes
    connections: int = 64
    depth: int = 1  # requests in one write
    idle: int = 0  # connections beside those


@dataclass(frozen=True)
class Figures:
    """What a load generator counts."""

    answers: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    opened: int = 0  # connections beyond the first ones: the server has closed those


class Generator:
    """A running http_load, whose connections are open and have each been answered once."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self.process = process
        self.name = name
        if self.line() != "ready":
            raise self.failure()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def failure(self) -> BenchError:
        """What it said at its end."""
        _, errors = self.process.communicate()
        return BenchError(f"{self.name}: {errors.strip() or 'no answer in time'}")

    def run(self) -> Figures:
        """Ask, and wait until all is answered."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        if not (line := self.line()):
            raise self.failure()
        return read_figures(line)


def read_figures(line: str) -> Figures:
    """The JSON that http_load and wrk.lua print. Errors, and lost idle connections, are none."""
    said = json.loads(line)
    if said.pop("errors", 0):
        raise BenchError(f"wrk found errors: {line}")
    if lost := said.pop("idle_lost", 0):
        raise BenchError(f"{lost} idle connections were closed")
    if not said["answers"]:
        raise BenchError("nothing was answered")
    return Figures(**said)


@contextlib.contextmanager
def generator(
    name: str, port: int, load: Load, expect: int, seconds: float, core: int, rate: int = 0
) -> Iterator[Generator]:
    """http_load, ready to ask `name`: as fast as it answers, or at a rate."""
    with tempfile.NamedTemporaryFile(prefix="bench-") as request:
        request.write(load.request)
        request.flush()
        command = ["taskset", "-c", str(core), str(find("http_load")), "--host", HOST]
        command += ["--port", str(port), "--request", request.name, "--expect", str(expect)]
        command += ["--connections", str(load.connections), "--idle", str(load.idle)]
        command += ["--depth", str(load.depth), "--seconds", str(seconds)]
        if rate:
            command += ["--rate", str(rate)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        watchdog = threading.Timer(seconds + PATIENCE, process.kill)
        watchdog.start()
        try:
            yield Generator(process, name)
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()


def find(name: str) -> Path:
    """An executable that the build makes."""
    path = BENCH / name
    if not path.exists():
        raise BenchError(f"no executable {path}: run `make build` first")
    return path.resolve()


def wrk(
    port: int,
    seconds: float,
    core: int | None = None,
    *,
    connections: int = 64,
    depth: int = 1,
    scheme: str = "http",
) -> Figures:
    """wrk, for at least a second. Errors end the benchmark."""
    if not shutil.which("wrk"):
        raise BenchError("wrk is not installed: apt install wrk")
    duration = max(1, round(seconds))
    command = [] if core is None else ["taskset", "-c", str(core)]
    command += ["wrk", "-t1", f"-c{connections}", f"-d{duration}s"]
    command += ["-s", str(BENCH / "wrk.lua"), f"{scheme}://{HOST}:{port}/", "--", str(depth)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=duration + PATIENCE, check=False
    )
    if done.returncode:
        raise BenchError(f"wrk failed:\n{done.stdout}{done.stderr}")
    return read_wrk(done.stdout)


def read_wrk(report: str) -> Figures:
    """What bench/wrk.lua added to wrk's report."""
    for line in report.splitlines():
        if line.startswith("{"):
            return read_figures(line)
    raise BenchError(f"wrk's report has no figures:\n{report}")
