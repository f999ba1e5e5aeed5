"""Writes the figures of docs/security.md from docs/figures/*.json.

    python tools/gen_security_figures.py [--check]
    python tools/gen_security_figures.py --take [NAME ...] [--from FOLDER]

With ``--check`` it only tells, by its exit status, whether the document says what the files do.
``--take`` first copies what attacks have left in build/results (or FOLDER): all that is there, or
what is named. Nothing is measured here, and a figure that is not there is called so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "security.md"
FIGURES = ROOT / "docs" / "figures"
RESULTS = ROOT / "build" / "results"
BEGIN = "<!-- figures -->"
END = "<!-- end of figures -->"
NOTE = "<!-- Made from docs/figures by tools/gen_security_figures.py. -->"
ABSENT = "Not measured yet."

Row = dict[str, Any]


def table(rows: Iterable[Row], columns: Sequence[str], total: Sequence[str] = ()) -> str:
    """Markdown with a column for each key; the columns in ``total`` are summed up in a last row."""
    rows = list(rows)
    if total:
        sums: Row = {key: sum(row[key] for row in rows) for key in total}
        rows.append(dict.fromkeys(columns, "") | {columns[0]: "all"} | sums)
    lines = [
        "| " + " | ".join(key.replace("_", " ") for key in columns) + " |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
    ]
    lines += ["| " + " | ".join(cell(row[key]) for key in columns) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def fuzz(rows: list[Row]) -> str:
    counted = ("seconds", "executions", "crashes")
    return table(rows, ("name", "seconds", "executions", "edges", "crashes"), counted)


def smuggling(rows: list[Row]) -> str:
    counted = ("cases", "refused_by_front", "held", "refused_by_server", "lost", "died")
    columns = ("front", "version", *counted)
    return table(rows, columns, counted)


def tally(rows: list[Row]) -> str:
    counted = ("cases", "survived", "lost")
    return table(rows, ("name", *counted), counted)


def mutation(rows: list[Row]) -> str:
    counted = ("mutants", "killed", "equivalent", "survived")
    return table(rows, ("file", *counted), counted)


def coverage(rows: list[Row]) -> str:
    return table(rows, ("part", "lines", "covered", "percent", "goal"))


def soak(run: Row) -> str:
    """Pairs are what a server held in the first and in the second half of the run."""
    counted = ("answers", "messages", "connections", "wrong", "lost")
    pairs = {"rss": "RSS, KiB", "blocks": "blocks", "files": "descriptors"}
    moved = ("reloads", "kills", "recycled")
    rows = []
    for server in run["servers"]:
        row = {key: server[key] for key in ("name", *counted, *moved)}
        for key, title in pairs.items():
            unit = 1024 if key == "rss" else 1
            held = server.get(key)
            row[title] = " → ".join(cell(one // unit) for one in held) if held else None
        rows.append(row)
    words = f"{run['minutes']:g} minutes, Python {run['python']}: {run['problems']} problems."
    columns = ("name", *counted, *moved, *pairs.values())
    return words + "\n\n" + table(rows, columns, (*counted, *moved))


def exhaustion(rows: list[Row]) -> str:
    """A figure, and behind it what was promised."""

    def pair(row: Row, key: str, unit: float, digits: int) -> str:
        bound = row[key + "_bound"]
        limit = "–" if bound is None else f"{bound / unit:,.{digits}f}"
        return f"{row[key] / unit:,.{digits}f} of {limit}"

    def shown(row: Row) -> Row:
        return {
            "attack": row["name"],
            "interface": row["interface"],
            "connections": row["opened"],
            "at once": row["connections"],
            "MiB": pair(row, "rss", 1 << 20, 0),
            "life, s": pair(row, "life", 1, 1),
            "log, KiB": pair(row, "log", 1 << 10, 0),
            "p99, ms": f"{row['calm'] * 1000:.1f} → {row['p99'] * 1000:.1f}",
            "CPU, ms": f"{row['calm_work'] * 1000:.1f} → {row['work'] * 1000:.1f}",
            "requests": row["requests"],
            "failed": len(row["failures"]),
            "broken": "; ".join(row["broken"]) or "none",
        }

    tables = [shown(row) for row in rows]
    return table(tables, tuple(tables[0]) if tables else ("attack",))


@dataclass(frozen=True)
class Section:
    """An attack: its file in docs/figures, what is said of it, and what makes the file's table."""

    name: str
    title: str
    text: str
    render: Callable[[Any], str]
    pattern: str = ""  # of the results that are merged; else there is one of the same name

    def results(self, folder: Path) -> list[Path]:
        return sorted(folder.glob(self.pattern or f"{self.name}.json"))


SECTIONS = (
    Section(
        "fuzz", "Fuzzers", "`make fuzz`: libFuzzer under the address and undefined behaviour sanitizers; "
        "seconds are by the clock, of one process.", fuzz,
    ),
    Section(
        "smuggling", "Smuggling",
        "`make smuggling`: each trick over ASGI and WSGI. *Held*: the front end passed it on, and the server "
        "saw the same requests or refused it; so many it refused. *Lost*: they saw different requests. *Died*: "
        "the front end did.",
        smuggling,
    ),
    Section(
        "faults", "Allocations that fail",
        "`make faults`: allocations fail between a request and its answer. *Survived*: the answer was right, "
        "or plainly none, and the next client was served.",
        tally, pattern="no-memory-*.json",
    ),
    Section(
        "mutation", "Refusals switched off",
        "`make mutants`: each refusal of `csrc/http` in turn. *Killed*: a C test noticed. *Equivalent*: nobody "
        "can, as `tests/mutants.toml` argues. One that survived is a gap in the tests.",
        mutation,
    ),
    Section("coverage", "Lines that the tests reach", "`make cov`, in percent.", coverage),
    Section(
        "exhaust", "Exhaustion",
        "`make exhaust`: each crowd for some seconds, and beside it a client that asks 100 times a second at most. "
        "Pairs are what was seen, and what the options of the run promise: resident memory over that before, the life "
        "of the oldest connection, bytes of the log. Then what that client waits, undisturbed (the median of several "
        "windows) and beside the crowd: p99 by the clock, which has in it what else the machine did, and of the time "
        "that the server, for whomever, and that client worked between a request and its answer. The latter may be ten "
        "times the undisturbed. As root, packets are the business of the attackers' processors. On a busy machine "
        "time-outs come first: *other answers*.",
        exhaustion,
    ),
    Section(
        "soak", "Soak",
        "`make soak`: mixed traffic, every answer checked. Pairs are the first and the second half of the run.",
        soak,
    ),
)  # fmt: skip


def section_text(section: Section, figures: Path) -> str:
    path = figures / f"{section.name}.json"
    shown = section.render(json.loads(path.read_text("utf-8"))) if path.exists() else ABSENT
    return f"### {section.title}\n\n{section.text}\n\n{shown}\n"


def updated(page: str, figures: Path) -> str:
    """``page`` with what the files say between the markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name}: no {BEGIN} … {END}")
    body = "\n".join(section_text(section, figures) for section in SECTIONS)
    return f"{before}{BEGIN}\n{NOTE}\n\n{body}\n{END}{after}"


def texts(value: Any) -> Iterable[str]:
    """Every text in what JSON holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


def take(names: Sequence[str], folder: Path, figures: Path) -> None:
    """Copies results; SystemExit where one that was named is not there, or tells of a machine."""
    for section in SECTIONS:
        if names and section.name not in names:
            continue
        found = section.results(folder)
        if not found:
            if names:
                raise SystemExit(f"{section.name}: nothing in {folder}")
            continue
        parts = [json.loads(path.read_text("utf-8")) for path in found]
        value = [row for part in parts for row in part] if section.pattern else parts[0]
        if any(text.startswith("/") for text in texts(value)):
            raise SystemExit(f"{section.name}: an absolute path in {folder}")
        section.render(value)  # a file of another kind is not taken
        figures.mkdir(parents=True, exist_ok=True)
        (figures / f"{section.name}.json").write_text(json.dumps(value, indent=1) + "\n", "utf-8")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only tell whether it is up to date")
    parser.add_argument("--take", nargs="*", metavar="NAME", choices=[s.name for s in SECTIONS])
    parser.add_argument("--from", dest="folder", type=Path, default=RESULTS, metavar="FOLDER")
    args = parser.parse_args(words)
    if args.take is not None and args.check:
        parser.error("--check takes nothing")
    if args.take is not None:
        take(args.take, args.folder, FIGURES)
    page = PAGE.read_text("utf-8")
    text = updated(page, FIGURES)
    if not args.check:
        PAGE.write_text(text, "utf-8")
    elif page != text:
        print("docs/security.md is out of date: run tools/gen_security_figures.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
