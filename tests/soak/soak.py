"""Mixed traffic for a long time, with every answer checked (``make soak [MINUTES=20]``).

    .venv/bin/python tests/soak/soak.py [--minutes 20] [--seed 1] [--only NAME]

Some servers are one process that stays: what each holds is looked at, with no client there, thirty
times. After the first third, medians of the one half are compared with those of the other: memory that
malloc has given out, resident memory (also that of the process alone), Python's blocks and objects, descriptors.
Others have workers that are reloaded, recycled and killed all the time: there only the supervisor stays.

What clients do is in traffic.py. Nothing may be wrong, and nothing lost but what a killed process had in hand.
The figures are printed, and written to build/results/soak.json; what fails ends the run with status 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traffic import Client, Gate, Target

import results  # isort: skip
from support.certificates import Authority
from support.processes import children, wait_until
from support.server import Server

LOOKS = 30
WARM = LOOKS // 3
# By how much a median may grow: a part of itself, and what is noise however small the whole is.
SLACK = {
    "heap": (0.02, 64 << 10),
    "rss": (0.02, 0),
    "uss": (0.02, 1 << 20),  # one arena of Python's allocator, whatever is used of it
    "blocks": (0.005, 100),
    "objects": (0.005, 100),
    "files": (0.0, 0),
}
# In a short run not every thread has had its own heap: resident memory may grow by as much.
SHORT, SHORT_NOISE = 10.0, 2 << 20  # minutes; bytes
# What of it is private depends on which of its children happen to share its pages.
OF_A_SUPERVISOR = ("rss", "files")
CHAOS = (1.5, 5.0)  # seconds between two reloads or deaths
CPU_IDLE = 0.02  # of a processor, with no client there
COMMON = ["--no-access-log", "--health-path", "/health", "--timeout-keep-alive", "60"]
MOVING = ["--workers", "2", "--limit-max-requests", "1500", "--limit-max-requests-jitter", "1500"]
MOVING += ["--timeout-disconnect", "0.3"]


@dataclass
class Watched:
    """A target, with who asks it, and what was seen of it."""

    target: Target
    clients: list[Client] = field(default_factory=list)
    looks: list[dict[str, int]] = field(default_factory=list)
    files: int = 0
    idle_cpu: float = 0.0  # of a processor


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--clients", type=int, default=3, help="for each server (3)")
    parser.add_argument("--only", default="", help="servers whose name has this in it")
    args = parser.parse_args()
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        targets = [one for one in start(Path(folder)) if args.only in one.name]
        for target in targets:
            stack.callback(target.server.kill)
            target.server.expect_tracebacks()
            target.server.await_ready()
        return run([Watched(one) for one in targets], args)


def start(folder: Path) -> list[Target]:
    authority = Authority(folder)
    asgi, wsgi = ("soak_asgi:app", *COMMON), ("soak_wsgi:app", *COMMON)
    return [
        Target("asgi", Server(*asgi, loop="uvloop"), websocket=True),
        Target("asgi, tls", Server(*asgi, loop="asyncio", tls=authority), websocket=True),
        Target("wsgi", Server(*wsgi), websocket=False),
        Target("wsgi, threads", Server(*wsgi, threads=4), websocket=False),
        Target("asgi, moving", Server(*asgi, *MOVING), websocket=True, moves=True),
        Target("wsgi, moving", Server(*wsgi, *MOVING, threads=2), websocket=False, moves=True),
    ]


# --- the run --------------------------------------------------------------------------------------


def run(watched: list[Watched], args: argparse.Namespace) -> int:
    print(f"seed {args.seed}, {args.minutes:g} min, {len(watched)} servers", flush=True)
    gate, stop = Gate(), threading.Event()
    for one in watched:
        one.files = one.target.server.open_files()
        one.clients = [Client(one.target, gate, f"{args.seed}.{n}") for n in range(args.clients)]
    moving = [one.target for one in watched if one.target.moves]
    chaos = threading.Thread(target=disturb, args=(moving, stop, args.seed), daemon=True)
    chaos.start()
    for one in watched:
        for client in one.clients:
            client.start()
    began = told = time.monotonic()
    for number in range(1, LOOKS + 1):
        time.sleep(max(0.0, began + args.minutes * 60 * number / LOOKS - time.monotonic()))
        gate.close()
        for one in watched:
            one.looks.append(look(one))
        if number < LOOKS:
            gate.open()
        if time.monotonic() - told >= 60:
            told = time.monotonic()
            print(f"{(told - began) / 60:.0f} min: {progress(watched)}", flush=True)
    stop.set()
    chaos.join()
    measure_idle(watched)
    gate.end()
    return finish(watched, args, time.monotonic() - began)


def disturb(targets: list[Target], stop: threading.Event, seed: int) -> None:
    """Reloads and kills, one server after the other."""
    rng = random.Random(f"chaos {seed}")
    while targets and not stop.wait(rng.uniform(*CHAOS)):
        target = rng.choice(targets)
        workers = children(target.server.pid)
        if rng.random() < 0.6:
            target.count("reloads")
            target.server.signal(signal.SIGHUP)
        elif workers:
            pid = rng.choice(workers)
            with target.lock:  # Connections that come before its death may be in its hands.
                target.killed[pid] = math.inf
            target.count("kills")
            os.kill(pid, signal.SIGKILL)
            with target.lock:
                target.killed[pid] = time.monotonic()


def finish(watched: list[Watched], args: argparse.Namespace, seconds: float) -> int:
    problems = []
    for one in watched:
        for client in one.clients:
            client.join(120)
        try:
            one.target.server.stop()
        except AssertionError as error:
            problems.append(f"{one.target.name}: its end: {str(error)[-3000:]}")
        problems += one.target.examples + growth(one, args.minutes < SHORT)
    total = sum((one.target.counts for one in watched), start=type(watched[0].target.counts)())
    figures = {
        "minutes": round(seconds / 60, 1),
        "seed": args.seed,
        "python": results.python(),
        "servers": [figures_of(one) for one in watched],
        "wrong": total["wrong"],
        "lost": total["lost"],
        "problems": len(problems),
    }
    path = results.write("soak", figures)
    for row in figures["servers"]:
        print(json.dumps(row))
    print(
        f"{total['answers']} answers, {total['messages']} messages, {total['connections']} connections"
    )
    print(f"wrong: {total['wrong']}, lost: {total['lost']}, in {path}")
    for problem in problems:
        print(f"PROBLEM {problem}")
    return 1 if problems or total["wrong"] or total["lost"] else 0


# --- what is held ---------------------------------------------------------------------------------


def look(one: Watched) -> dict[str, int]:
    """With no client there, once the server is through with what they left."""
    server = one.target.server
    if one.target.moves:
        return of_process(server)
    wait_until(
        lambda: server.open_files() <= one.files, 60, f"for descriptors of {one.target.name}"
    )
    with one.target.connect() as client:
        for _ in range(20):  # The pool's threads and the loop's turns let go of what they had.
            client.get("/hello?0")
            client.recv_response()
        client.get("/tell")
        counts = json.loads(client.recv_response().body)
    wait_until(lambda: server.open_files() <= one.files, 60)
    return {**counts, **of_process(server)}


def of_process(server: Server) -> dict[str, int]:
    fields = {}
    for line in Path(f"/proc/{server.pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        fields[name] = int(value.split()[0]) * 1024
    return {
        "rss": fields["Rss"],
        "uss": fields["Private_Clean"] + fields["Private_Dirty"],
        "files": server.open_files(),
    }


def halves(one: Watched, name: str) -> tuple[int, int]:
    """The medians of the two halves behind the warm-up; of what a supervisor has open the least, as
    workers that come and go have a descriptor each."""
    seen = [each[name] for each in one.looks[WARM:]]
    half = len(seen) // 2
    middle = min if one.target.moves and name == "files" else statistics.median
    return round(middle(seen[:half])), round(middle(seen[half:]))


def growth(one: Watched, short: bool) -> list[str]:
    problems = []
    for name in OF_A_SUPERVISOR if one.target.moves else SLACK:
        before, after = halves(one, name)
        part, noise = SLACK[name]
        if short and name in ("rss", "uss"):
            noise = SHORT_NOISE
        if after - before > max(before * part, noise):
            problems.append(f"{one.target.name}: {name} grows from {before} to {after}")
    if one.idle_cpu > CPU_IDLE:
        problems.append(f"{one.target.name}: {one.idle_cpu:.3f} of a processor while idle")
    return problems


def measure_idle(watched: list[Watched]) -> None:
    """Whether something spins behind all that."""
    watched = [one for one in watched if not one.target.moves]
    before = [one.target.server.cpu() for one in watched]
    began = time.monotonic()
    time.sleep(3)
    for one, cpu in zip(watched, before, strict=True):
        one.idle_cpu = (one.target.server.cpu() - cpu) / (time.monotonic() - began)


# --- what is told ---------------------------------------------------------------------------------


def progress(watched: list[Watched]) -> str:
    words = []
    for one in watched:
        counts = one.target.counts
        words.append(
            f"{one.target.name}: {counts['answers']} answers, {counts['wrong']} wrong, "
            f"{counts['lost']} lost, {one.looks[-1]['rss'] >> 10} KiB"
        )
    return "; ".join(words)


def figures_of(one: Watched) -> dict[str, Any]:
    counts = one.target.counts
    keys = ("answers", "messages", "connections", "wrong", "lost", "killed", "reloads", "kills")
    return {
        "name": one.target.name,
        **{key: counts[key] for key in keys},
        "recycled": one.target.server.log().count("is replaced"),
        **{name: halves(one, name) for name in SLACK if name in one.looks[0]},
        "idle_cpu": round(one.idle_cpu, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
