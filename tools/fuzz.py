"""Runs fuzz targets one after another, each for some seconds, and says what came of it.

    tools/fuzz.py --build build/fuzz --seconds 60 [TARGET…]

A find stays in the build folder; the last lines name it. The figures of the last run of each target are in
``build/results/fuzz.json``: a list of {name, seconds, executions, edges, crashes}.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "results" / "fuzz.json"
# Bytes of an input: enough for several requests; longer ones only cost time.
MAX_LENGTH = 4096
# Seconds that one input may take, in which it usually takes a thousandth.
TIMEOUT = 20


class Result(TypedDict):
    name: str
    seconds: int
    executions: int
    edges: int
    crashes: int


def targets() -> list[str]:
    return sorted(path.stem.removeprefix("fuzz_") for path in (ROOT / "fuzz").glob("fuzz_*.c"))


def write_seeds(folder: Path) -> None:
    """The raw requests of tests/cases, for three applications of the http1 target."""
    spec = importlib.util.spec_from_file_location("cases", ROOT / "tests" / "support" / "cases.py")
    assert spec is not None
    assert spec.loader is not None
    cases = importlib.util.module_from_spec(spec)
    sys.modules["cases"] = cases  # dataclasses look there
    spec.loader.exec_module(cases)
    for case in cases.load_cases():
        if len(case.raw) > MAX_LENGTH // 4:
            continue
        for choices in (b"\x00\x02\x05\x00", b"\x01\x07\x05\x00", b"\x02\x03\x05\x00"):
            data = choices + case.raw
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def run(name: str, build: Path, seconds: int) -> Result:
    corpus = build / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    if name == "http1" and not any(corpus.iterdir()):
        write_seeds(corpus)
    log = build / f"{name}.log"
    finds = build / "finds"
    finds.mkdir(exist_ok=True)
    before = set(finds.glob(f"{name}-*"))
    command = [
        str(build / "fuzz" / f"fuzz_{name}"),
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LENGTH}",
        f"-timeout={TIMEOUT}",
        "-print_final_stats=1",
        f"-artifact_prefix={finds}/{name}-",
    ]
    dictionary = ROOT / "fuzz" / f"{name}.dict"
    if dictionary.exists():
        command.append(f"-dict={dictionary}")
    command += [str(corpus), str(ROOT / "fuzz" / "corpus" / name)]
    began = time.monotonic()
    with log.open("wb") as output:
        # Reading a large corpus comes on top of the time.
        status = subprocess.run(
            command, stdout=output, stderr=output, timeout=seconds + 600, check=False
        ).returncode
    text = log.read_text("utf-8", "replace")
    executions = re.findall(r"stat::number_of_executed_units: (\d+)", text)
    edges = re.findall(r" cov: (\d+) ", text)
    found = set(finds.glob(f"{name}-*")) - before
    if status != 0:
        print(text[-4000:])
        for path in sorted(found):
            print(f"found: {path}")
    return {
        "name": name,
        "seconds": round(time.monotonic() - began),
        "executions": int(executions[-1]) if executions else 0,
        "edges": int(edges[-1]) if edges else 0,
        "crashes": max(len(found), int(status != 0)),
    }


def remember(result: Result) -> None:
    known: list[Result] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = {row["name"]: row for row in known if row["name"] in targets()}
    rows[result["name"]] = result
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps([rows[name] for name in sorted(rows)], indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of fuzz/fuzz_*.c")
    options = parser.parse_args()
    crashes = 0
    print(f"{'target':16} {'executions':>12} {'seconds':>8} {'edges':>7} {'finds':>6}", flush=True)
    for name in options.targets or targets():
        result = run(name, options.build.resolve(), options.seconds)
        remember(result)
        crashes += result["crashes"]
        row = (result["executions"], result["seconds"], result["edges"], result["crashes"])
        print("{:16} {:12} {:8} {:7} {:6}".format(name, *row), flush=True)
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
