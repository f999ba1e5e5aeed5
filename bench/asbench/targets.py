"""What the server is meant to reach: each a ratio within one run on one machine."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from asbench.scenarios import FRAMEWORKS, GROWTH
from asbench.servers import FLOOR, OURS, SERVERS

Rows = list[dict[str, Any]]
CONSTANT = {entry.name for entry in SERVERS if entry.interface == "own"}
IN_PROCESS = "in process"


@dataclass(frozen=True)
class Target:
    """Our figure, against another one. `against` is a server, or one of:

    best    the best peer under the same interface: ours must be `limit` times better
    python  the best peer under any interface of Python's
    """

    scenario: str
    interface: str
    against: str
    limit: float
    figure: str = "cpu_us"


@dataclass(frozen=True)
class Verdict:
    """A target, and what came out."""

    scenario: str
    interface: str
    text: str
    measured: float | None  # None: there are no figures for it
    holds: bool | None
    detail: str = ""


FLOORS = [  # our CPU a request, at most so many times the floor's
    Target("plain", "asgi", FLOOR, 1.18),
    Target("pipelined", "asgi", FLOOR, 3.5),
    Target("plain", "wsgi", FLOOR, 1.12),
    Target("pipelined", "wsgi", FLOOR, 1.9),
]
PEERS = [  # at least so many times better than the peer
    Target("plain", "asgi", "python", 1.15),
    Target("plain", "asgi", "granian", 2.8),
    Target("plain", "asgi", "uvicorn", 3),
    Target("pipelined", "asgi", "best", 5),
    Target("pipelined", "asgi", "granian", 10),
    Target("plain", "wsgi", "best", 1),
    Target("pipelined", "wsgi", "best", 8),
    Target("headers", "asgi", "best", 1.5),
    Target("headers", "wsgi", "best", 1.2),
    *(
        Target(scenario, interface, "best", 1)
        for scenario in ("echo", "large", "stream", "close")
        for interface in ("asgi", "wsgi")
    ),
    *(
        Target(scenario.name, interface, "best", 1)
        for scenario in FRAMEWORKS
        for interface in scenario.apps
    ),
    Target("rate", "asgi", "best", 1, "p999_us"),
    Target("rate", "wsgi", "best", 1, "p999_us"),
]
OWN_SHARE = 1.5  # of a framework's server share, in multiples of hello's
IDLE_BYTES = 1024
IDLE_CPU_US = 1000  # in a second: a tenth of a percent, which is what "none" can be told from
GROWTH_LIMIT, MANY, FEW = 1.25, "connections 10000", "connections 64"
WORDS = {"cpu_us": "CPU", "p999_us": "p99.9"}


def is_peer(row: dict[str, Any]) -> bool:
    """Whether a row is of somebody else's server, under an interface of Python's."""
    return OURS not in row["server"] and row["server"] not in CONSTANT | {IN_PROCESS}


def find(rows: Rows, scenario: str, interface: str, server: str) -> dict[str, Any] | None:
    """A row that has figures."""
    for row in rows:
        if (row["scenario"], row["interface"], row["server"]) == (scenario, interface, server):
            return None if row["failed"] else row
    return None


def ratio(a: dict[str, Any], b: dict[str, Any], figure: str = "cpu_us") -> float:
    """Median over the rounds of each round's ratio, since both were disturbed alike."""
    # One may have a round more if the benchmark was interrupted.
    pairs = zip(a["rounds"][figure], b["rounds"][figure], strict=False)
    return float(statistics.median(x / y for x, y in pairs if y))


def rivals(rows: Rows, target: Target) -> Rows:
    """The rows that a target of PEERS means."""
    found = [
        row
        for row in rows
        if row["scenario"] == target.scenario and not row["failed"] and is_peer(row)
    ]
    if target.against == "python":
        return [row for row in found if row["interface"] in ("asgi", "wsgi")]
    found = [row for row in found if row["interface"] == target.interface]
    if target.against == "best":
        return found
    return [row for row in found if row["server"] == target.against]


def against_floor(rows: Rows, target: Target) -> Verdict:
    ours = find(rows, target.scenario, target.interface, OURS)
    floor = find(rows, target.scenario, target.interface, FLOOR)
    text = f"CPU ≤ {target.limit:g} × the floor's"
    if not ours or not floor:
        return Verdict(target.scenario, target.interface, text, None, None)
    measured = ratio(ours, floor)
    detail = f"{ours['cpu_us']['median']:.2f} and {floor['cpu_us']['median']:.2f} µs"
    return Verdict(
        target.scenario, target.interface, text, measured, measured <= target.limit, detail
    )


def against_peers(rows: Rows, target: Target) -> Verdict:
    ours = find(rows, target.scenario, target.interface, OURS)
    who = {"best": "the best peer", "python": "the best peer of either interface"}
    than = who.get(target.against, target.against)
    text = f"{WORDS[target.figure]} ≤ {than}'s"
    if target.limit != 1:
        text = f"{WORDS[target.figure]} ≥ {target.limit:g} × better than {than}"
    peers = rivals(rows, target)
    if not ours or not peers:
        return Verdict(target.scenario, target.interface, text, None, None)
    ratios = [(ratio_to(rows, row, ours, target.figure), row) for row in peers]
    measured, best = min(ratios, key=lambda pair: pair[0])
    detail = (
        f"{ours[target.figure]['median']:,.2f} µs; {best['server']} "
        f"{best[target.figure]['median']:,.2f}"
    )
    return Verdict(
        target.scenario, target.interface, text, measured, measured >= target.limit, detail
    )


def ratio_to(rows: Rows, peer: dict[str, Any], ours: dict[str, Any], figure: str) -> float:
    """How often we are better. Interfaces have rounds of their own, in which the floor is alike."""
    if peer["interface"] == ours["interface"]:
        return ratio(peer, ours, figure)
    floors = [find(rows, row["scenario"], row["interface"], FLOOR) for row in (peer, ours)]
    if not all(floors):
        return float(peer[figure]["median"] / ours[figure]["median"])
    theirs, our = (
        ratio(row, floor, figure) for row, floor in zip((peer, ours), floors, strict=True) if floor
    )
    return theirs / our


def server_share(rows: Rows, scenario: str, interface: str) -> float | None:
    """CPU a request without the application's own."""
    whole = find(rows, scenario, interface, OURS)
    own = find(rows, scenario, interface, IN_PROCESS)
    if not whole or not own:
        return None
    return float(whole["cpu_us"]["median"] - own["cpu_us"]["median"])


def shares(rows: Rows) -> Iterator[Verdict]:
    """Of frameworks, against hello's."""
    for scenario in FRAMEWORKS:
        for interface in scenario.apps:
            text = f"CPU without the framework's own ≤ {OWN_SHARE:g} × hello's"
            share = server_share(rows, scenario.name, interface)
            hello = server_share(rows, "plain", interface)
            if share is None or hello is None or hello <= 0:
                yield Verdict(scenario.name, interface, text, None, None)
                continue
            measured = share / hello
            detail = f"{share:.2f} and {hello:.2f} µs"
            yield Verdict(scenario.name, interface, text, measured, measured <= OWN_SHARE, detail)


def idle(rows: Rows) -> Iterator[Verdict]:
    for interface in ("asgi", "wsgi"):
        row = find(rows, "idle", interface, OURS)
        # Memory grows in the first round: a server may keep it for the next connections.
        for figure, which, limit, text in (
            ("idle_bytes", "max", IDLE_BYTES, f"≤ {IDLE_BYTES:,} bytes for an idle connection"),
            (
                "idle_cpu_us",
                "median",
                IDLE_CPU_US,
                f"≤ {IDLE_CPU_US:,} µs of CPU in an idle second",
            ),
        ):
            measured = row[figure][which] if row else None
            holds = None if measured is None else measured <= limit
            yield Verdict("idle", interface, text, measured, holds, "with 10,000 of them open")


def growth(rows: Rows) -> Iterator[Verdict]:
    for interface in ("asgi", "wsgi"):
        text = f"CPU at 10,000 connections ≤ {GROWTH_LIMIT:g} × that at 64"
        many, few = (find(rows, name, interface, OURS) for name in (MANY, FEW))
        if not many or not few:
            yield Verdict("growth", interface, text, None, None)
            continue
        measured = many["cpu_us"]["median"] / few["cpu_us"]["median"]
        detail = f"{many['cpu_us']['median']:.2f} and {few['cpu_us']['median']:.2f} µs"
        yield Verdict("growth", interface, text, measured, measured <= GROWTH_LIMIT, detail)


def judge(rows: Rows) -> list[Verdict]:
    """All targets, against the rows of a run."""
    assert {MANY, FEW} <= {scenario.name for scenario in GROWTH}
    return [
        *(against_floor(rows, target) for target in FLOORS),
        *(against_peers(rows, target) for target in PEERS),
        *shares(rows),
        *idle(rows),
        *growth(rows),
    ]
