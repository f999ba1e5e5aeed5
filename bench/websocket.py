"""WebSocket echo: CPU and messages a second, beside the floor and beside other servers.

All servers share one core and are asked in turn, in interleaved rounds, by bench/ws_load.c on another
core, over 64 connections: messages of text of 64 bytes, one or 16 at a time on each connection, and
of 16 KiB. Nothing is compressed. CPU time is the server's own, of all its threads. The floor is the C core with
the same codec and no Python.

    PYTHONPATH=bench .venv/bin/python -m asbench.peers uvicorn granian socketify
    .venv/bin/python bench/websocket.py
"""

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asbench import harness, peers
from asbench.load import find
from asbench.measure import spread
from asbench.report import figure

CONNECTIONS = 64
LOADS = {"64 B": (64, 1), "64 B, 16 deep": (64, 16), "16 KiB": (16384, 1)}  # size, depth
GOAL = 1.5  # messages a second, in multiples of the best peer's, on the same core

APP = "hello:websocket"
UVICORN = ["-m", "uvicorn", APP, "--app-dir", str(harness.APPS), "--lifespan", "off"]
UVICORN += ["--log-level", "warning", "--loop", "uvloop"]
GRANIAN = ["-m", "granian", APP, "--working-dir", str(harness.APPS), "--interface", "asginl"]
GRANIAN += ["--log-level", "warning", "--loop", "uvloop"]
SOCKETIFY = ["-m", "socketify", f"bench.apps.{APP}", "--interface", "asgi", "--lifespan", "off"]
# Name: the environment (bench/peers.toml), and what its interpreter is told, without the port.
PEERS: dict[str, tuple[str, list[str]]] = {
    "uvicorn, websockets": ("uvicorn", [*UVICORN, "--ws", "websockets"]),
    "uvicorn, websockets-sansio": ("uvicorn", [*UVICORN, "--ws", "websockets-sansio"]),
    "granian": ("granian", GRANIAN),
    "socketify": ("socketify", [*SOCKETIFY, "--host", harness.HOST]),
    "socketify, not ASGI": ("socketify", [str(harness.APPS / "hello_socketify.py")]),
}
FLOOR, OURS = "floor", ("asgiserver, asyncio", "asgiserver, uvloop")


@dataclass
class Series:
    """The rounds of one server under one load."""

    cpu_us: list[float] = field(default_factory=list)  # microseconds of CPU a message
    rate: list[float] = field(default_factory=list)  # messages a second
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, dict[str, float]]:
        """Median, least and greatest of all."""
        digits = {"cpu_us": 3, "rate": 0, "p50_us": 1, "p99_us": 1}
        return {name: spread(getattr(self, name), n) for name, n in digits.items()}


def commands(floor: Path | None, only: list[str]) -> dict[str, list[str]]:
    """What to run, by name; peers that are not installed are left out."""
    ours = [sys.executable, "-m", "asgiserver", APP, "--app-dir", str(harness.APPS)]
    ours += ["--no-access-log", "--log-level", "warning", "--lifespan", "off"]
    found = {FLOOR: [str(harness.find_floor(floor))]}
    found |= {name: [*ours, "--loop", name.split()[1]] for name in OURS}
    for name, (peer, words) in PEERS.items():
        if why := peers.absent(peer):
            print(f"{name} is left out: {why}", file=sys.stderr)
        else:
            found[name] = [str(peers.python(peer)), *words]
    return {name: command for name, command in found.items() if not only or name in only}


def ask(server: harness.Server, load: str, seconds: int, core: int) -> dict[str, float]:
    """Messages for `seconds`: what ws_load prints. Any wrong echo ends the benchmark."""
    size, depth = LOADS[load]
    command = ["taskset", "-c", str(core), str(find("ws_load")), "--port", str(server.port)]
    command += ["--connections", str(CONNECTIONS), "--size", str(size), "--depth", str(depth)]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    if done.returncode:
        said = server.output.read_text(errors="replace")
        raise harness.BenchError(f"{server.name}, {load}: {done.stderr}{said}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def measure(server: harness.Server, load: str, seconds: int, core: int, series: Series) -> None:
    """One round of one server under one load."""
    before = server.cpu_ns()
    answer = ask(server, load, seconds, core)
    series.cpu_us.append((server.cpu_ns() - before) / 1000 / answer["messages"])
    series.rate.append(answer["messages"] / answer["seconds"])
    series.p50_us.append(answer["p50_us"])
    series.p99_us.append(answer["p99_us"])


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; the results as they go into the JSON file."""
    server_core, client_core = harness.two_cores()
    programs = commands(args.floor, args.only)
    series = {(name, load): Series() for load in LOADS for name in programs}
    with contextlib.ExitStack() as stack:
        servers = []
        for name, command in programs.items():
            port = harness.free_port()
            run_it = harness.serving(name, [*command, "--port", str(port)], port, server_core)
            servers.append(stack.enter_context(run_it))
        for server in servers:  # warm up
            for load in LOADS:
                ask(server, load, 1, client_core)
        for number in range(args.rounds):
            turn = number % len(servers)
            for load in LOADS:
                for server in servers[turn:] + servers[:turn]:
                    one = series[server.name, load]
                    measure(server, load, args.seconds, client_core, one)
                    print(
                        f"{number + 1}/{args.rounds} {load:13} {server.name:26} "
                        f"{one.cpu_us[-1]:8.3f} µs {one.rate[-1]:11,.0f}/s",
                        file=sys.stderr,
                        flush=True,
                    )
    return {
        "benchmark": "websocket",
        "python": platform.python_version(),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "connections": CONNECTIONS,
        "versions": versions(),
        "results": [
            {
                "server": name,
                "load": load,
                **one.summary(),
                "cpu_ratio_to_floor": ratio(series, name, FLOOR, load, "cpu_us")
                if FLOOR in programs
                else None,
            }
            for (name, load), one in series.items()
        ],
        "against_the_best_peer": best(series, programs),
    }


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    installed = sorted({peer for peer, _ in PEERS.values() if not peers.absent(peer)})
    return {name: peers.versions(name) for name in installed}


def ratio(series: dict[tuple[str, str], Series], a: str, b: str, load: str, what: str) -> float:
    """Median over the rounds of each round's ratio."""
    pairs: Iterable[tuple[float, float]] = zip(
        getattr(series[a, load], what), getattr(series[b, load], what), strict=True
    )
    return round(statistics.median(x / y for x, y in pairs), 3)


def best(
    series: dict[tuple[str, str], Series], programs: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """asgiserver with each loop against other servers, those of ASGI and all, under each load: how many
    times the messages a second, and how many times less CPU. Each figure is the least of those
    against each peer, and has a peer of its own: who sends most need not be who spends least."""
    everybody = [name for name in programs if name in PEERS]
    kinds = {"ASGI": [name for name in everybody if "not ASGI" not in name], "any": everybody}
    rows = []
    for kind, rivals in kinds.items() if everybody else ():
        for load in LOADS:
            for name in filter(programs.__contains__, OURS):
                rates = [(ratio(series, name, peer, load, "rate"), peer) for peer in rivals]
                costs = [(ratio(series, peer, name, load, "cpu_us"), peer) for peer in rivals]
                (rate, fastest), (cpu, cheapest) = min(rates), min(costs)
                row = {"peers": kind, "load": load, "server": name, "goal": GOAL, "rate": rate}
                rows.append({**row, "cpu": cpu, "fastest": fastest, "cheapest": cheapest})
    return rows


def table(results: dict[str, Any]) -> str:
    """The results as Markdown tables."""
    known = "; ".join(results["versions"].values())
    lines = [
        f"WebSocket echo on one core, CPython {results['python']}, {results['connections']} "
        f"connections, {results['rounds']} interleaved rounds of {results['seconds']} s; {known}. "
        "Medians, in brackets the least and the greatest.",
        "",
        "| load | server | CPU µs a message | messages a second | median, µs | 99 %, µs | CPU, floor = 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["results"]:
        to_floor = row["cpu_ratio_to_floor"]
        lines.append(
            f"| {row['load']} | {row['server']} | {figure(row['cpu_us'], ',.2f')} | "
            f"{figure(row['rate'], ',.0f')} | {row['p50_us']['median']:,.0f} | "
            f"{row['p99_us']['median']:,.0f} | {'' if to_floor is None else f'{to_floor:.2f}'} |"
        )
    lines += [
        "",
        "Against the other servers, by the rounds' ratios; each figure is the least over them:",
        "",
        "| peers | load | server | messages a second | goal | CPU a message |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['peers']} | {row['load']} | {row['server']} | {row['rate']:.2f} times {row['fastest']} | "
        f"≥ {row['goal']:g} | 1 / {row['cpu']:.2f} of {row['cheapest']} |"
        for row in results["against_the_best_peer"]
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--floor", type=Path, help="the floor's executable (default: bench/floor)")
    parser.add_argument("--only", action="append", default=[], help="these servers, by their names")
    return harness.main(parser, "websocket", run, table)


if __name__ == "__main__":
    sys.exit(main())
