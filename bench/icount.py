"""Instructions a request, counted by callgrind, against the figures in bench/icount.json.

Timings are too noisy to judge a change by; these counts differ by less than a thousandth from run to run.
What is counted is everything below as_loop_poll: reading, parsing, Python and the application, writing. Not
seen are the kernel's part, and what the asyncio loop does between two polls. Each scenario is asked over one
connection: plainly, one request after another (a turn of the loop for each, which 64 connections
would share), or 24 requests in one write.

    make icount                     compare; exit status 1 where a scenario takes more than 3 % more
    make icount ARGS=--write        keep the new figures
    .venv/bin/python bench/icount.py --only asgi-plain --keep /tmp/profile
    callgrind_annotate --inclusive=yes /tmp/profile/asgi-plain

Figures are compared only where interpreter, compiler, libraries and valgrind are the same. Needs valgrind.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asbench import harness
from asbench.scenarios import HELLO as BODY

FIGURES = harness.BENCH / "icount.json"
TOLERANCE = 0.03  # more than this is a change for the worse
DEPTH = 24
WARM_UP = 1500  # requests: CPython 3.11 and later specialise bytecode as it runs
COUNTED = 480  # requests; a multiple of DEPTH
SETTLING = 480  # requests behind the switch to counting, which are thrown away

# What a browser sends.
BROWSER = b"""\
GET / HTTP/1.1\r
Host: bench.example\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r
Accept-Language: en-US,en;q=0.5\r
Accept-Encoding: gzip, deflate, br\r
Connection: keep-alive\r
Cookie: session=0123456789abcdef; theme=dark\r
Upgrade-Insecure-Requests: 1\r
Sec-Fetch-Dest: document\r
Sec-Fetch-Mode: navigate\r
Sec-Fetch-Site: none\r
Cache-Control: max-age=0\r
\r
"""


@dataclass(frozen=True)
class Scenario:
    """A server, what it serves, and how it is asked."""

    server: str  # floor, asgi, wsgi
    load: str
    application: str = ""
    request: bytes = harness.REQUEST
    depth: int = 1

    @property
    def name(self) -> str:
        return f"{self.server}-{self.load}"

    def command(self, port: int) -> list[str]:
        """The server's command line; the plain asyncio loop is in every Python."""
        if self.server == "floor":
            return [str(harness.find_floor()), "--port", str(port)]
        loop = ["--loop", "asyncio"] if self.server == "asgi" else []
        name = self.application or self.server
        return [
            *harness.asgiserver_command(self.server, *loop, name=name),
            *("--port", str(port)),
        ]


SCENARIOS = [
    Scenario("floor", "plain"),
    Scenario("floor", "pipelined", depth=DEPTH),
    Scenario("floor", "headers", request=BROWSER),
    Scenario("asgi", "plain"),
    Scenario("asgi", "pipelined", depth=DEPTH),
    Scenario("asgi", "headers", "asgi_headers", BROWSER),
    Scenario("wsgi", "plain"),
    Scenario("wsgi", "pipelined", depth=DEPTH),
    Scenario("wsgi", "headers", "wsgi_headers", BROWSER),
]


# --- counting --------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(scenario: Scenario, port: int, profile: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server under callgrind, which does not count yet."""
    callgrind = [
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--toggle-collect=as_loop_poll"),
        f"--callgrind-out-file={profile}",
    ]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*callgrind, *scenario.command(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=harness.ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        try:
            server = harness.Server(
                scenario.name, process, port, Path(f"/dev/fd/{output.fileno()}")
            )
            harness.wait_for(server, 120)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ask(scenario: Scenario, client: socket.socket, count: int) -> None:
    """Ask `count` times; each answer must be the right one."""
    with client.makefile("rb") as stream:
        for _ in range(count // scenario.depth):
            client.sendall(scenario.request * scenario.depth)
            for _ in range(scenario.depth):
                if (body := harness.read_answer(stream)) != BODY:
                    raise harness.BenchError(f"{scenario.name} answered {body[:80]!r}")


def control(process: subprocess.Popen[bytes], *words: str) -> None:
    """Tell callgrind to count, or to write down what it counted so far and begin anew."""
    command = ["callgrind_control", *words, str(process.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or "OK." not in done.stdout:
        raise harness.BenchError(f"callgrind_control failed:\n{done.stdout}{done.stderr}")


def read_total(profile: Path) -> int:
    """Instructions in a file that callgrind wrote."""
    for line in profile.read_text().splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise harness.BenchError(f"{profile} has no total")


def count(scenario: Scenario, keep: Path | None) -> float:
    """Instructions a request."""
    port = harness.free_port()
    with tempfile.TemporaryDirectory(prefix="icount-") as folder:
        profile = Path(folder, "profile")
        with (
            running(scenario, port, profile) as process,
            socket.create_connection((harness.HOST, port), 60) as client,
        ):
            ask(scenario, client, WARM_UP)
            control(process, "-i", "on")
            ask(scenario, client, SETTLING)
            control(process, "-d")
            ask(scenario, client, COUNTED)
            control(process, "-d")
        counted = profile.with_suffix(".2")
        total = read_total(counted)
        if total < COUNTED:
            raise harness.BenchError("nothing was counted: is as_loop_poll inlined, or stripped?")
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(counted, keep / scenario.name)
    return round(total / COUNTED, 1)


# --- comparing -------------------------------------------------------------------------------------


def build_info() -> dict[str, str]:
    """What the compiler was, and how it was told to compile."""
    introspected = harness.find_floor().parent.parent / "meson-info"
    compilers = json.loads((introspected / "intro-compilers.json").read_text())
    options = json.loads((introspected / "intro-buildoptions.json").read_text())
    chosen = {option["name"]: option["value"] for option in options}
    compiler = compilers["host"]["c"]
    return {
        "compiler": f"{compiler['id']} {compiler['version']}",
        "build": str(chosen["buildtype"]),
    }


def environment() -> dict[str, str]:
    """What must be the same where two counts are compared."""
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    return {
        "machine": platform.machine(),
        "python": sys.version,
        "libc": " ".join(platform.libc_ver()),
        "valgrind": valgrind.stdout.strip(),
        **build_info(),
    }


def find_known(figures: list[dict[str, Any]], here: dict[str, str]) -> dict[str, float] | None:
    """The figures of this environment, if there are any."""
    return next((row["scenarios"] for row in figures if row["environment"] == here), None)


def compare(known: dict[str, float], counts: dict[str, float]) -> tuple[list[str], list[str]]:
    """A line for each scenario, and one for each that got worse."""
    lines, worse = [], []
    for name, new in counts.items():
        old = known.get(name)
        if old is None:
            lines.append(f"{name:16} {new:10,.1f}  new")
            continue
        change = new / old - 1
        lines.append(f"{name:16} {new:10,.1f}  was {old:10,.1f}  {change:+7.2%}")
        if change > TOLERANCE:
            worse.append(
                f"{name}: {new:,.1f} instructions a request, {change:+.1%} (was {old:,.1f})"
            )
    return lines, worse


def updated(
    figures: list[dict[str, Any]], here: dict[str, str], counts: dict[str, float]
) -> list[dict[str, Any]]:
    """The figures with those of this environment replaced, or added."""
    kept = find_known(figures, here) or {}
    others = [row for row in figures if row["environment"] != here]
    return [*others, {"environment": here, "scenarios": {**kept, **counts}}]


def run(args: argparse.Namespace) -> int:
    """Count, report, and compare or write; the exit status."""
    if not shutil.which("callgrind_control"):
        raise harness.BenchError("valgrind is not installed: apt install valgrind")
    here = environment()
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else []
    known = find_known(figures, here)
    counts = {}
    for scenario in SCENARIOS:
        if args.only in scenario.name:
            counts[scenario.name] = count(scenario, args.keep)
            line = compare(known or {}, {scenario.name: counts[scenario.name]})[0][0]
            print(line, flush=True)
    if args.write:
        FIGURES.write_text(json.dumps(updated(figures, here, counts), indent=2) + "\n")
        return 0
    if known is None:
        print("no figures of this environment to compare with: see --write", file=sys.stderr)
        return 0
    worse = compare(known, counts)[1]
    for line in worse:
        print(f"error: {line}", file=sys.stderr)
    return 1 if worse else 0


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--write", action="store_true", help="keep the figures")
    parser.add_argument("--keep", type=Path, help="folder for callgrind's files of the scenarios")
    args = parser.parse_args()
    try:
        return run(args)
    except (harness.BenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
