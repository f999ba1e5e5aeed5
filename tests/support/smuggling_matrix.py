"""Tries every trick of tests/smuggling.toml on every front end before the server, over ASGI and WSGI: `make smuggling`.

    PYTHONPATH=tests python -m support.smuggling_matrix [--out build/results/smuggling.json] [--verbose] [FRONT…]

Writes what was tried, held and lost. Ends with 1 when something was lost, with 2 when a front end is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .fronts import FRONTS, Front, Running
from .relay import Relay
from .server import Server
from .smuggling import Verdicts, load_tricks, run

ROOT = Path(__file__).resolve().parents[2]


def try_all(front: Front, interface: str) -> Verdicts:
    server = Server(f"smuggling_{interface}:app", "--no-access-log", interface=interface)
    try:
        server.await_ready()
        with Relay((server.host, server.port)) as relay, Running(front, relay.port) as running:
            verdicts = run(load_tricks(), running, relay.connections)
        server.stop()
        return verdicts
    finally:
        server.kill()


def report(front: Front, verbose: bool) -> dict[str, Any]:
    rows = {interface: try_all(front, interface) for interface in ("asgi", "wsgi")}
    found = {
        "front": front.name,
        "version": front.find_version(),
        "cases": sum(one.cases for one in rows.values()),
        "held": sum(len(one.held) for one in rows.values()),
        "refused_by_server": sum(len(one.refused_by_server) for one in rows.values()),
        "refused_by_front": sum(len(one.refused_by_front) for one in rows.values()),
        "lost": sum(len(one.lost) for one in rows.values()),
        "died": sum(len(one.died) for one in rows.values()),
    }
    print(
        "{front:18} {version:10} {cases:6} {held:6} {refused_by_server:8} {refused_by_front:8} {lost:6}".format(
            **found
        ),
        flush=True,
    )
    for interface, verdicts in rows.items():
        for trick in verdicts.died:
            print(f"  it died over {interface}: {trick}")
        for trick, problems in verdicts.lost.items():
            print(f"  lost over {interface}: {trick}: {'; '.join(problems)}")
        if verbose:
            print(f"  held over {interface}: {' '.join(verdicts.held)}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "results" / "smuggling.json")
    parser.add_argument("--verbose", action="store_true", help="name what was held")
    parser.add_argument("fronts", nargs="*", metavar="FRONT", help="all, if none is given")
    options = parser.parse_args()
    chosen = [front for front in FRONTS if not options.fronts or front.name in options.fronts]
    missing = [front.name for front in chosen if not front.is_here]
    for name in missing:
        print(f"{name} is not here: skipped")
    print(
        f"{'front end':18} {'version':10} {'tricks':>6} {'held':>6} {'by server':>8} {'by front':>8} {'lost':>6}"
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for front in chosen:
        if front.is_here:
            rows.append(report(front, options.verbose))
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
    if any(row["lost"] for row in rows):
        return 1
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
