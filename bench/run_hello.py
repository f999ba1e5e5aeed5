"""Hello world, beside the floor: what Python and the standards cost on top of the C core.

Three servers share one core and are asked in turn, in interleaved rounds, by wrk on another core:
the floor (bench/floor.c: the core with a constant answer, no Python), asgiserver under ASGI, and
under WSGI. Each is asked plainly over 64 connections, and 24 requests deep (bench/pipeline.lua).
CPU time is the server's own, of all its threads, from the scheduler's figures.

Needs wrk. Run it in the environment that asgiserver is installed in:
    .venv/bin/python bench/run_hello.py
"""

import argparse
import contextlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
from hello import BODY

CONNECTIONS = 64
DEPTH = 24  # of bench/pipeline.lua
# The most CPU a request may cost, in multiples of the floor's.
GOALS = {
    ("asgi", "plain"): 1.4,
    ("wsgi", "plain"): 1.3,
    ("asgi", "pipelined"): 7.0,
    ("wsgi", "pipelined"): 3.0,
}


@dataclass
class Series:
    """The rounds of one server under one load."""

    cpu_us: list[float] = field(default_factory=list)  # microseconds of CPU a request
    rate: list[float] = field(default_factory=list)  # requests a second

    def summary(self) -> dict[str, dict[str, float]]:
        """Median, least and greatest of both."""
        return {"cpu_us": spread(self.cpu_us, 3), "requests_per_second": spread(self.rate, 0)}


def spread(values: list[float], digits: int) -> dict[str, float]:
    """Median, least and greatest, rounded."""
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in figures.items()}


def wrk(port: int, mode: str, seconds: int, core: int) -> tuple[int, float]:
    """Ask for `seconds`; the number of answers, and answers a second. Errors end the benchmark."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    if mode == "pipelined":
        command += ["-s", str(harness.BENCH / "pipeline.lua")]
    command.append(f"http://{harness.HOST}:{port}/")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    report = done.stdout
    count = re.search(r"(\d+) requests in", report)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", report)
    failed = re.search(r"Socket errors|Non-2xx", report)
    if done.returncode or not count or not rate or failed:
        raise harness.BenchError(f"wrk found errors:\n{report}{done.stderr}")
    return int(count[1]), float(rate[1])


def measure(server: harness.Server, mode: str, seconds: int, core: int, series: Series) -> None:
    """One round of one server under one load."""
    before = server.cpu_ns()
    count, rate = wrk(server.port, mode, seconds, core)
    series.cpu_us.append((server.cpu_ns() - before) / 1000 / count)
    series.rate.append(rate)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; the results as they go into the JSON file."""
    if not shutil.which("wrk"):
        raise harness.BenchError("wrk is not installed: apt install wrk")
    server_core, client_core = harness.two_cores()
    commands = {
        "floor": [str(harness.find_floor(args.floor))],
        "asgi": harness.asgiserver_command("asgi", "--loop", args.loop),
        "wsgi": harness.asgiserver_command("wsgi"),
    }
    series = {(name, mode): Series() for name in commands for mode in ("plain", "pipelined")}
    with contextlib.ExitStack() as stack:
        servers = []
        for name, command in commands.items():
            port = harness.free_port()
            run_it = harness.serving(name, [*command, "--port", str(port)], port, server_core)
            servers.append(stack.enter_context(run_it))
        check(servers)
        for server in servers:  # warm up
            wrk(server.port, "plain", 1, client_core)
        for number in range(args.rounds):
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                for mode in ("plain", "pipelined"):
                    one = series[server.name, mode]
                    measure(server, mode, args.seconds, client_core, one)
                    print(
                        f"{number + 1}/{args.rounds} {server.name:5} {mode:9} "
                        f"{one.cpu_us[-1]:7.3f} µs {one.rate[-1]:11,.0f}/s",
                        file=sys.stderr,
                        flush=True,
                    )
        check(servers)
    return {
        "benchmark": "hello",
        "python": platform.python_version(),
        "loop": args.loop,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "connections": CONNECTIONS,
        "depth": DEPTH,
        "results": [
            {
                "server": name,
                "load": mode,
                **one.summary(),
                "ratio_to_floor": round(ratio(series, name, mode), 3),
                "goal": GOALS.get((name, mode)),
            }
            for (name, mode), one in series.items()
        ],
    }


def check(servers: list[harness.Server]) -> None:
    """Every server gives the right answers, alone and pipelined."""
    for server in servers:
        harness.check_answers(server, 1, BODY)
        harness.check_answers(server, DEPTH, BODY)


def ratio(series: dict[tuple[str, str], Series], name: str, mode: str) -> float:
    """CPU a request in multiples of the floor's: the median over rounds of each round's ratio."""
    own, floor = series[name, mode].cpu_us, series["floor", mode].cpu_us
    return statistics.median(a / b for a, b in zip(own, floor, strict=True))


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    lines = [
        f"Hello world on one core, CPython {results['python']}, {results['connections']} "
        f"connections, {results['rounds']} interleaved rounds of {results['seconds']} s. "
        "Medians, in brackets the least and the greatest.",
        "",
        "| load | server | CPU µs a request | requests a second | CPU, floor = 1 | goal |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(results["results"], key=lambda r: r["load"] != "plain"):
        load = "plain" if row["load"] == "plain" else f"{results['depth']} deep"
        goal = f"≤ {row['goal']:g}" if row["goal"] else ""
        lines.append(
            f"| {load} | {row['server']} | {figure(row['cpu_us'], ',.3f')} | "
            f"{figure(row['requests_per_second'], ',.0f')} | {row['ratio_to_floor']:.2f} | {goal} |"
        )
    return "\n".join(lines) + "\n"


def figure(values: dict[str, float], form: str) -> str:
    """A median with the least and the greatest."""
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--loop", default="auto", help="asyncio loop under ASGI")
    parser.add_argument("--floor", type=Path, help="the floor's executable (default: bench/floor)")
    return harness.main(parser, "hello", run, table)


if __name__ == "__main__":
    sys.exit(main())
