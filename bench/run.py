"""HTTP under ASGI and WSGI, beside the floor and beside other servers.

    make bench                          the main servers and scenarios: about 25 minutes
    make bench ARGS=--quick             a glance
    make bench-all                      everything

Each server runs on one core, the load on another; every round asks them all in turn. The figures are medians
over the rounds: CPU µs a request of the server, all its threads and processes, requests a second and the
times of answers. Answers are compared whole before and after each measurement. Writes JSON, a page of Markdown with the
targets, and plots.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from asbench import measure, peers, report, scenarios, servers, targets
from asbench.harness import BENCH, ROOT, BenchError, raise_file_limit, two_cores

INTERFACES = ("asgi", "wsgi", "threads")
FILES = 20_000  # open in a server with 10,000 connections, and in what asks it


def chosen(args: argparse.Namespace) -> tuple[list[scenarios.Scenario], list[servers.Entry]]:
    """What the options ask for."""
    wanted = [
        scenario
        for scenario in scenarios.ALL
        if (scenario.name in args.scenario if args.scenario else scenario.main or args.all)
    ]
    entries = [
        entry
        for entry in servers.SERVERS
        if (entry.name in args.server if args.server else entry.main or args.all)
    ]
    return wanted, entries


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run all that was chosen; the results as they go into the JSON file."""
    raise_file_limit(FILES)
    server_core, client_core = two_cores()
    settings = measure.Settings(args.rounds, args.seconds, args.repeats, server_core, client_core)
    wanted, entries = chosen(args)
    entries, absent = servers.available(entries)
    versions = {entry.name: servers.version(entry) for entry in entries}
    for name, text in {**versions, **{n: f"left out: {why}" for n, why in absent.items()}}.items():
        print(f"{name}: {text}", file=sys.stderr)
    began = time.monotonic()
    found: list[measure.Series] = []
    try:
        found += measure.in_process(wanted, args.interface, settings)
        if "start" in args.scenario or not args.scenario:
            found += measure.start_up(entries, args.interface, settings)
        measure.run_all(wanted, args.interface, entries, settings, absent, found)
    except KeyboardInterrupt:
        print("interrupted: what there is will be written", file=sys.stderr)
    return {
        "benchmark": "http",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "versions": versions,
        "absent": absent,
        "results": [series.result() for series in found],
    }


def draw(path: Path, folder: Path) -> str | None:
    """The plots; why there are none, or None."""
    if why := peers.absent("plots"):
        return why
    script = BENCH / "asbench" / "plots.py"
    command = [str(peers.python("plots")), str(script), str(path), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else None


def write(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """JSON, Markdown, plots, and the README's part if it is asked for."""
    text = report.markdown(results, targets.judge(results["results"]))
    path = args.output.with_suffix(".json")
    path.write_text(json.dumps(results, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(text + "\n")
    if why := draw(path, args.output.parent):
        print(f"no plots: {why}", file=sys.stderr)
    if args.readme:
        plot = (args.output.parent / "hello.svg").resolve().relative_to(ROOT)
        report.write_readme(ROOT / "README.md", results, str(plot))
    print(text.partition("## Every figure")[0])


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(dict.fromkeys(scenario.name for scenario in scenarios.ALL))
    parser.add_argument(
        "--scenario", action="append", default=[], choices=[*names, "start"], metavar="NAME"
    )
    known = list(dict.fromkeys(entry.name for entry in servers.SERVERS))
    parser.add_argument("--server", action="append", default=[], choices=known, metavar="NAME")
    parser.add_argument("--interface", action="append", choices=INTERFACES)
    parser.add_argument("--all", action="store_true", help="every server, every scenario")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument(
        "--repeats", type=int, default=2, help="of a measurement that other load disturbed"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of a quarter of a second")
    parser.add_argument("--readme", action="store_true", help="write the README's plot and table")
    parser.add_argument(
        "--output",
        type=Path,
        help="path of the results, without suffix; plots go beside it (bench/results/http; of a run "
        "that is not the whole one: build/bench/http)",
    )
    parser.epilog = f"scenarios: {', '.join(names)}, start\nservers: {', '.join(known)}"
    return parser


def main() -> int:
    """Run from the command line; the exit status."""
    args = options().parse_args()
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.seconds = args.seconds or (0.25 if args.quick else 0.5)
    if args.output is None:
        partial = args.quick or args.scenario or args.server or args.interface
        args.output = (ROOT / "build" / "bench" if partial else BENCH / "results") / "http"
    args.interface = args.interface or list(INTERFACES)
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write(args, run(args))
    except (BenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
