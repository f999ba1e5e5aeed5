"""The results as Markdown: the targets first, then a table for each interface, then every figure."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asbench.scenarios import ALL
from asbench.servers import FLOOR, OURS
from asbench.targets import Rows, Verdict, find, ratio

TITLES = {scenario.name: scenario.title for scenario in ALL} | {"start": "start"}
INTERFACES = {"asgi": "ASGI", "wsgi": "WSGI", "threads": "WSGI, 4 threads", "own": "constant"}
MISSING = "–"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def table(head: list[str], rows: Iterable[list[str]], numbers: slice = slice(1, None)) -> list[str]:
    """Lines of a Markdown table; the columns of numbers to the right."""
    right = range(len(head))[numbers]
    rule = ["---:" if column in right else "---" for column in range(len(head))]
    return [f"| {' | '.join(row)} |" for row in [head, rule, *rows]]


def number(value: float | None) -> str:
    """Three digits that matter, or all before the point."""
    if value is None:
        return MISSING
    if value and abs(value) < 100:
        return f"{value:.{2 if abs(value) < 10 else 1}f}"
    return f"{value:,.0f}"


def figure(values: dict[str, float], form: str) -> str:
    """A median with the least and the greatest."""
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"


def spread(row: dict[str, Any], name: str) -> str:
    """The same of a row, which may have no such figure."""
    if name not in row:
        return MISSING
    low, mid, high = (number(row[name][which]) for which in ("min", "median", "max"))
    return f"{mid} ({low} to {high})"


def ordered(names: Iterable[str], first: Iterable[str]) -> list[str]:
    """Without repetitions, these first."""
    known = list(dict.fromkeys(names))
    return [name for name in first if name in known] + [n for n in known if n not in first]


def about(results: dict[str, Any]) -> list[str]:
    """How the figures came about."""
    return [
        f"CPython {results['python']}, Linux, {results['machine']}; "
        f"{results['rounds']} interleaved rounds of {results['seconds']:g} s, server and client on "
        "a core each.",
    ]


# --- targets -------------------------------------------------------------------------------------


def verdict_row(verdict: Verdict) -> list[str]:
    holds = "yes" if verdict.holds else "**no**"
    where = f"{TITLES.get(verdict.scenario, verdict.scenario)}, {INTERFACES[verdict.interface]}"
    return [where, verdict.text, number(verdict.measured), holds, verdict.detail]


def targets(verdicts: list[Verdict]) -> list[str]:
    """Each target and whether it holds, and once more those that do not."""
    head = ["scenario", "target", "measured", "holds", "figures"]
    judged = [verdict for verdict in verdicts if verdict.holds is not None]
    missed = [verdict for verdict in judged if not verdict.holds]
    lines = ["## Targets", "", *table(head, map(verdict_row, judged), slice(2, 3)), ""]
    lines += [
        f"{len(judged) - len(missed)} hold, {len(missed)} do not; "
        f"{len(verdicts) - len(judged)} are not in this run."
    ]
    if missed:
        lines += ["", "These do not hold:", ""]
        lines += [
            f"- {where}: {text}; measured {measured} ({detail})"
            for where, text, measured, _, detail in map(verdict_row, missed)
        ]
    return [*lines, ""]


# --- figures -------------------------------------------------------------------------------------


def matrix(rows: Rows, interface: str) -> list[str]:
    """CPU µs a request: scenarios down, servers across."""
    here = [row for row in rows if row["interface"] == interface and row["scenario"] != "start"]
    names = ordered((row["server"] for row in here), (OURS, FLOOR))
    lines = []
    for scenario in dict.fromkeys(row["scenario"] for row in here):
        cells = []
        for name in names:
            row = find(here, scenario, interface, name)
            cells.append(number(row["cpu_us"]["median"]) if row else MISSING)
        lines.append([TITLES[scenario], *cells])
    return table([INTERFACES[interface], *names], lines)


def details(rows: Rows, interface: str, scenario: str) -> list[str]:
    """Every figure of one scenario."""
    here = [row for row in rows if (row["interface"], row["scenario"]) == (interface, scenario)]
    here.sort(key=lambda row: row["cpu_us"]["median"] if "cpu_us" in row else float("inf"))
    floor = find(here, scenario, interface, FLOOR)
    columns = ["cpu_us", "rate", "p50_us", "p99_us", "p999_us"]
    head = [
        "server",
        "CPU µs",
        "requests a second",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "floor = 1",
        "",
    ]
    lines = []
    for row in here:
        to_floor = ratio(row, floor) if floor and not row["failed"] and "rate" in row else None
        figures = [spread(row, column) for column in columns]
        lines.append([row["server"], *figures, number(to_floor), remark(row)])
    title = f"### {INTERFACES[interface]}: {TITLES[scenario]}"
    return [title, "", *table(head, lines, slice(1, 7)), ""]


def remark(row: dict[str, Any]) -> str:
    """What one should know about a row."""
    said = []
    if row["failed"]:
        said.append(f"failed: {row['failed'].replace('|', '/')}")
    if "idle_bytes" in row:
        said.append(f"{number(row['idle_bytes']['max'])} bytes for an idle connection")
        said.append(f"{number(row['idle_cpu_us']['median'])} µs of CPU in an idle second")
    if row["scenario"] != "close" and "opened" in row and row["opened"]["median"] > 0.5:
        said.append("keeps no connection")
    if row["repeated"]:
        said.append(f"repeated {row['repeated']} times")
    if row["disturbed"]:
        said.append(f"{row['disturbed']} rounds disturbed by other load")
    return "; ".join(said)


def starts(rows: Rows) -> list[str]:
    """Start-up and memory at rest."""
    here = [row for row in rows if row["scenario"] == "start"]
    if not here:
        return []
    lines = [
        [
            f"{row['server']}, {INTERFACES[row['interface']]}",
            spread(row, "start_ms"),
            spread(row, "memory_mib"),
            remark(row),
        ]
        for row in here
    ]
    head = ["server", "ms to the first answer", "MiB at rest", ""]
    return ["## Start and memory", "", *table(head, lines, slice(1, 3)), ""]


def disturbances(rows: Rows) -> list[str]:
    """How quiet the machine was."""
    repeated = sum(row["repeated"] for row in rows)
    disturbed = sum(row["disturbed"] for row in rows)
    if not repeated and not disturbed:
        return ["No measurement was disturbed by other load."]
    return [
        f"{repeated} measurements were repeated because of other load; {disturbed} that stand here "
        "were disturbed nevertheless."
    ]


def absent(results: dict[str, Any]) -> list[str]:
    """Who is missing, and why."""
    if not results["absent"]:
        return []
    lines = [f"- {name}: {why}" for name, why in sorted(results["absent"].items())]
    return ["Left out:", "", *lines, ""]


def markdown(results: dict[str, Any], verdicts: list[Verdict]) -> str:
    """The whole page."""
    rows: Rows = results["results"]
    versions = "; ".join(dict.fromkeys(results["versions"].values()))
    lines = ["# Benchmark", "", *about(results), f"Versions: {versions}.", ""]
    lines += [*disturbances(rows), "", *absent(results), *targets(verdicts)]
    lines += ["## CPU µs a request", "", "Medians. A dash: does not take part, or failed.", ""]
    interfaces = [name for name in INTERFACES if any(r["interface"] == name for r in rows)]
    for interface in (name for name in interfaces if name != "own"):
        lines += [*matrix(rows, interface), ""]
    lines += [
        *starts(rows),
        "## Every figure",
        "",
        "Medians; in brackets the least and the greatest.",
        "",
    ]
    for interface in interfaces:
        names = dict.fromkeys(r["scenario"] for r in rows if r["interface"] == interface)
        for scenario in (name for name in names if name != "start"):
            lines += details(rows, interface, scenario)
    return "\n".join(lines)


# --- the README ----------------------------------------------------------------------------------


def readme_part(results: dict[str, Any], plot: str) -> str:
    """One plot and one table."""
    rows: Rows = results["results"]
    lines = [f"![CPU time a request]({plot})", ""]
    head = [
        "hello world",
        "CPU µs, plain",
        "requests a second",
        "CPU µs, pipelined",
        "requests a second ",
    ]
    body = []
    for interface in ("asgi", "wsgi"):
        names = [row["server"] for row in rows if row["interface"] == interface]
        for name in ordered(names, (OURS,)):
            plain, deep = (find(rows, s, interface, name) for s in ("plain", "pipelined"))
            if name == "in process" or not plain or (name == FLOOR and interface == "wsgi"):
                continue
            cells = [f"{name}, {INTERFACES[interface]}" if name != FLOOR else "the C core alone"]
            for row in (plain, deep):
                cells += [number(row[f]["median"]) if row else MISSING for f in ("cpu_us", "rate")]
            body.append(cells)
    body.sort(key=lambda cells: float(cells[1].replace(",", "")))
    return "\n".join([*lines, *table(head, body), "", *about(results)])


def between_markers(text: str, part: str) -> str:
    """`text` with another part between its markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{part}\n{END}{after}"


def write_readme(path: Path, results: dict[str, Any], plot: str) -> None:
    path.write_text(between_markers(path.read_text(), readme_part(results, plot)))
