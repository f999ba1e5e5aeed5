"""gcc's -fanalyzer and clang's static analyzer (what scan-build runs) over csrc/.

    tools/analyze.py BUILD [RING…]      RING: base, http, net or gateway; all without

Fails for a finding that is not in tools/analyze.toml, and for a row of that file that nothing finds any
more (when all rings are looked at). Writes build/results/analyze.json.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KNOWN = ROOT / "tools" / "analyze.toml"
RESULTS = ROOT / "build" / "results" / "analyze.json"
# What one of the compilers does not know, what is not for an analyzer, and where output would go.
LEFT_OUT = re.compile(
    r"-(Wshadow|flto\S*|fcf-protection\S*|fstack-clash-protection|ffat-lto-objects|Werror|O\d|MD|c)"
)
FOUND = re.compile(r"^(\S+?):(\d+):\d+: (?:warning|error): (.*) \[(-Wanalyzer-[\w-]+|[\w.]+)\]$")


@dataclass(frozen=True)
class Finding:
    tool: str
    file: str  # that was compiled, from the root
    check: str
    line: str  # of source
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.tool}: {self.text} [{self.check}]\n    {self.line}"


def sources(build: Path, rings: list[str]) -> list[tuple[Path, list[str], Path]]:
    """Each file of csrc, its compiler's words, and the folder that those are meant for."""
    found = []
    for entry in json.loads((build / "compile_commands.json").read_text()):
        folder = Path(entry["directory"])
        file = Path(os.path.normpath(folder / entry["file"]))
        if not file.is_relative_to(ROOT / "csrc"):
            continue
        ring = file.relative_to(ROOT / "csrc").parts[0]
        if rings and ring not in rings:
            continue
        words = shlex.split(entry["command"])[1:]
        kept: list[str] = []
        while words:
            word = words.pop(0)
            if word in ("-o", "-MF", "-MQ", "-MT"):
                words.pop(0)
            elif not LEFT_OUT.fullmatch(word) and word != entry["file"]:
                kept.append(word)
        found.append((file, kept, folder))
    return found


def command(tool: str, file: Path, words: list[str]) -> list[str]:
    if tool == "gcc":
        plain = ["-fanalyzer", "-O1", "-fdiagnostics-plain-output", "-S", "-o", os.devnull]
        return ["gcc", *words, *plain, str(file)]
    # Strings and sizes are checked elsewhere, and by better means than names of functions.
    off = "-analyzer-disable-checker=security.insecureAPI.DeprecatedOrUnsafeBufferHandling"
    return [
        *("clang", "--analyze", "--analyzer-output", "text", *words, "-Wno-everything"),
        *("-Xclang", off, "-o", os.devnull, str(file)),
    ]


def analyze(tool: str, file: Path, words: list[str], folder: Path) -> list[Finding]:
    done = subprocess.run(
        command(tool, file, words),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    found = set()
    for text in done.stdout.splitlines():
        if match := FOUND.match(text):
            where = Path(os.path.normpath(folder / match[1]))
            line = where.read_text(errors="replace").splitlines()[int(match[2]) - 1].strip()
            name = str(file.relative_to(ROOT))
            shown = os.path.relpath(where, ROOT) if where.is_relative_to(ROOT) else str(where)
            found.add(Finding(tool, name, match[4], line, f"{shown}:{match[2]}", match[3]))
    if done.returncode != 0 and not found:
        raise SystemExit(f"{tool} fails on {file}:\n{done.stdout}")
    return sorted(found, key=str)


def is_known(row: dict[str, Any], finding: Finding) -> bool:
    return all(row[key] == getattr(finding, key) for key in ("tool", "file", "check", "line"))


def main() -> int:
    build, rings = Path(sys.argv[1]).resolve(), sys.argv[2:]
    tools = [tool for tool in ("gcc", "clang") if shutil.which(tool)]
    rows = tomllib.loads(KNOWN.read_text()).get("known", [])
    files = sources(build, rings)
    jobs = [(tool, *source) for source in files for tool in tools]
    with ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        found = [one for each in pool.map(lambda job: analyze(*job), jobs) for one in each]
    fresh = [one for one in found if not any(is_known(row, one) for row in rows)]
    for one in fresh:
        print(one)
    stale = [] if rings else [r for r in rows if not any(is_known(r, one) for one in found)]
    for row in stale:
        if row["tool"] in tools:
            print(f"tools/analyze.toml: nothing finds this any more: {row['file']}: {row['line']}")
    results = [
        {"name": f"{tool} analyzer", "cases": len(files), "survived": len(files) - bad, "lost": bad}
        for tool in tools
        for bad in [len({one.file for one in fresh if one.tool == tool})]
    ]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results) + "\n")
    print(
        f"{len(files)} files, {' and '.join(tools)}: {len(found)} findings, "
        f"{len(found) - len(fresh)} of them explained in tools/analyze.toml"
    )
    return 1 if fresh or stale else 0


if __name__ == "__main__":
    sys.exit(main())
