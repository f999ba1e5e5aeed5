"""The table of `make cov`: lines that the tests reach, for each part, and what is asked of it.

    python tools/coverage_report.py PYTHON.json C.json

of `coverage json` and `gcovr --json`. Why lines stay that no test reaches is said by tests/coverage.toml;
those without a reason are listed. The table is in build/results/coverage.json too. The exit status is 1
if a part is below its goal, a line has no reason, or a reason has no line: what luck or another machine
reaches has its reason all the same (`may_be_reached`), as long as the function is there.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "build" / "results" / "coverage.json"
REASONS = ROOT / "tests" / "coverage.toml"
# Percent of lines; where nothing is asked, the part is only told.
GOALS = {
    "csrc/base": 95.0,
    "csrc/http": 95.0,
    "csrc/net": 95.0,
    "csrc/gateway": 92.0,
    "csrc/module.c": None,
    "asgiserver": 95.0,
}


@dataclass
class Part:
    name: str
    goal: float | None
    lines: int = 0
    covered: int = 0
    functions: set[tuple[str, str]] = field(default_factory=set)
    missed: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def percent(self) -> float:
        return 100 * self.covered / self.lines if self.lines else 0.0

    @property
    def is_met(self) -> bool:
        return self.goal is None or self.percent >= self.goal

    def take(self, file: str, line: int, function: str, hit: bool) -> None:
        self.lines += 1
        self.covered += hit
        self.functions.add((file, function))
        if not hit:
            self.missed[file, function].append(line)


def c_lines(path: str) -> Iterator[tuple[str, int, str, bool]]:
    """File, line, function, hit. A line of a header, or one with several parts, is there more than once."""
    hits: dict[tuple[str, int], tuple[str, bool]] = {}
    for one in json.loads(Path(path).read_text("utf-8"))["files"]:
        for line in one["lines"]:
            if not line.get("gcovr/noncode"):
                key = one["file"], line["line_number"]
                before = hits.get(key, ("", False))[1]
                hits[key] = line.get("function_name") or "", before or line["count"] > 0
    for (file, number), (function, hit) in hits.items():
        yield file, number, function, hit


def python_lines(path: str) -> Iterator[tuple[str, int, str, bool]]:
    for file, one in json.loads(Path(path).read_text("utf-8"))["files"].items():
        for function, found in one["functions"].items():
            for hit, key in ((True, "executed_lines"), (False, "missing_lines")):
                for line in found[key]:
                    # A second function of the same name is there as NAME@LINE.
                    yield str(Path(file)), line, function.partition("@")[0], hit


def unexplained(parts: list[Part]) -> tuple[list[str], list[str]]:
    """Rows of the list that are out of date; lines that have no reason."""
    reasons: dict[str, list[dict[str, Any]]] = tomllib.loads(REASONS.read_text("utf-8"))
    assert all(row["why"] for rows in reasons.values() for row in rows)
    ways_out = [re.compile(row["pattern"]) for row in reasons["ways_out"]]
    functions = {name for part in parts for name in part.functions}
    missed = {name: lines for part in parts for name, lines in part.missed.items()}
    out_of_date = []
    for row in reasons["uncovered"]:
        for file, names in row["functions"].items():
            for function in names:
                is_missed = missed.pop((file, function), None) is not None
                if (file, function) not in functions:
                    out_of_date.append(f"{REASONS.name}: {file}: {function}: gone")
                elif not is_missed and not row.get("may_be_reached"):
                    out_of_date.append(f"{REASONS.name}: {file}: {function}: reached")
    without = []
    for (file, function), lines in sorted(missed.items()):
        source = (ROOT / file).read_text("utf-8").splitlines()
        for line in lines:
            text = source[line - 1].strip()
            if not (file.endswith(".c") and any(way.search(text) for way in ways_out)):
                without.append(f"{file}:{line}: {function}: {text}")
    return out_of_date, without


def main(python: str, c: str) -> int:
    parts = [Part(name, goal) for name, goal in GOALS.items()]
    for file, line, function, hit in [*c_lines(c), *python_lines(python)]:
        for part in parts:
            if file == part.name or file.startswith(part.name + "/"):
                part.take(file, line, function, hit)
    print(f"{'':16}{'lines':>8}{'reached':>9}{'percent':>9}{'goal':>7}")
    for part in parts:
        goal = "" if part.goal is None else f"{part.goal:.0f}"
        verdict = "" if part.goal is None else "   met" if part.is_met else "   MISSED"
        print(f"{part.name:16}{part.lines:8}{part.covered:9}{part.percent:9.1f}{goal:>7}{verdict}")
    out_of_date, without_reason = unexplained(parts)
    missed = sum(part.lines - part.covered for part in parts)
    print(f"{missed} lines are not reached, {len(without_reason)} of them without a reason", end="")
    print(f" in {REASONS.relative_to(ROOT)}")
    for problem in [*without_reason, *out_of_date]:
        print(problem)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    table = [
        {
            "part": part.name,
            "lines": part.lines,
            "covered": part.covered,
            "percent": round(part.percent, 2),
            "goal": part.goal,
        }
        for part in parts
    ]
    RESULT.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    is_well = all(part.is_met for part in parts) and not without_reason and not out_of_date
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
