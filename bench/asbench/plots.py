"""Draws results: plots.py RESULTS.json FOLDER. Runs in an environment of its own, with matplotlib.

hello.svg: CPU a request of every server; scenarios.svg: the other scenarios, beside ours;
growth.svg: what a request costs as connections, header fields or bodies grow.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

OURS, FLOOR = "asgiserver", "floor"
INTERFACES = {"asgi": "ASGI", "wsgi": "WSGI"}
COLOURS = {OURS: "#1b7f5c", FLOOR: "#9aa5b1"}
OTHER = "#c9714b"
Rows = list[dict[str, Any]]


def bars(axes: Any, rows: Rows, title: str) -> None:
    """Horizontal bars with their figures, the least on top."""
    rows = sorted(rows, key=lambda row: -row["cpu_us"]["median"])
    values = [row["cpu_us"]["median"] for row in rows]
    low = [row["cpu_us"]["median"] - row["cpu_us"]["min"] for row in rows]
    high = [row["cpu_us"]["max"] - row["cpu_us"]["median"] for row in rows]
    colours = [COLOURS.get(row["server"], OTHER) for row in rows]
    names = [row["server"] for row in rows]
    axes.barh(
        names, values, color=colours, xerr=(low, high), error_kw={"ecolor": "#555", "lw": 0.8}
    )
    for name, value, over in zip(names, values, high, strict=True):
        axes.text(value + over, name, f" {value:.2f}", va="center", fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)
    axes.tick_params(labelsize=8)


def chosen(rows: Rows, scenario: str, interface: str) -> Rows:
    return [
        row
        for row in rows
        if (row["scenario"], row["interface"]) == (scenario, interface)
        and not row["failed"]
        and row["server"] != "in process"
    ]


def hello(rows: Rows, path: Path) -> None:
    scenarios = {"plain": "hello", "pipelined": "hello, 24 deep"}
    figure, grid = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for line, interface in zip(grid, INTERFACES, strict=True):
        for axes, (scenario, title) in zip(line, scenarios.items(), strict=True):
            bars(axes, chosen(rows, scenario, interface), f"{INTERFACES[interface]}: {title}")
    figure.supxlabel("CPU µs a request, one core; less is better", fontsize=9)
    save(figure, path)


def others(rows: Rows, path: Path) -> None:
    """All servers' CPU in multiples of ours; each scenario has its own row of points."""
    figure, grid = plt.subplots(1, 2, figsize=(10, 6), layout="constrained")
    for axes, interface in zip(grid, INTERFACES, strict=True):
        names = list(dict.fromkeys(r["scenario"] for r in rows if r["interface"] == interface))
        names = [name for name in names if not name.startswith(("connections", "body", "headers "))]
        marks: dict[str, tuple[list[float], list[str]]] = {}
        for name in reversed(names):
            here = chosen(rows, name, interface)
            ours = next((row for row in here if row["server"] == OURS), None)
            for row in here if ours and "cpu_us" in ours else ():
                xs, ys = marks.setdefault(row["server"], ([], []))
                xs.append(row["cpu_us"]["median"] / ours["cpu_us"]["median"])  # type: ignore[index]
                ys.append(name)
        for server, (xs, ys) in marks.items():
            axes.scatter(xs, ys, label=server, s=24, color=COLOURS.get(server))
        axes.set_xscale("log")
        axes.set_title(INTERFACES[interface], fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        if marks:
            axes.legend(fontsize=7)
    figure.supxlabel("CPU a request, asgiserver = 1", fontsize=9)
    save(figure, path)


def growth(rows: Rows, path: Path) -> None:
    kinds = {"connections": "connections", "headers": "header fields", "body": "bytes of body"}
    figure, grid = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
    for line, interface in zip(grid, INTERFACES, strict=True):
        for axes, (kind, title) in zip(line, kinds.items(), strict=True):
            curves: dict[str, list[tuple[int, float]]] = {}
            for row in rows:
                first, _, amount = row["scenario"].partition(" ")
                known = first == kind and amount.isdigit() and not row["failed"]
                if known and row["interface"] == interface:
                    point = (int(amount), row["cpu_us"]["median"])
                    curves.setdefault(row["server"], []).append(point)
            for server, points in curves.items():
                xs, ys = zip(*sorted(points), strict=True)
                axes.plot(xs, ys, marker="o", ms=3, label=server, color=COLOURS.get(server))
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(f"{INTERFACES[interface]}: {title}", fontsize=10)
            if curves:
                axes.legend(fontsize=7)
    figure.supylabel("CPU µs a request", fontsize=9)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """The same results give the same file."""
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(results: Path, folder: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "bench"
    rows: Rows = json.loads(results.read_text())["results"]
    hello(rows, folder / "hello.svg")
    others(rows, folder / "scenarios.svg")
    growth(rows, folder / "growth.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
