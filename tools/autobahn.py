"""Runs Autobahn|Testsuite's fuzzing client against asgiserver, over each loop (``make autobahn``).

    .venv/bin/python tools/autobahn.py [--loop asyncio] [--cases "1.* 12.1.*"] [--url ws://host:port]

The suite is a program for Python 2.7. It is installed with exact versions (requirements/autobahn.txt) into
.venv-autobahn, a folder of its own: no virtualenv, since Python 2.7 brings none. Its interpreter is
AUTOBAHN_PYTHON, else a python2.7 on the PATH or of pyenv.

Each pattern of cases has a client of its own, of which some run at a time: they need far more of a
processor than the server does. All cases take some eight minutes of one for each loop.

Printed are the verdicts, counted, and each case that is not OK. Any such case fails the run, but for those
whose outcome Autobahn rates INFORMATIONAL. Reports, with all bytes that went over the wire, are left in
build/autobahn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
APP = "websocket_echo:app"
SITE = ROOT / ".venv-autobahn"
REQUIREMENTS = ROOT / "requirements" / "autobahn.txt"
REPORTS = ROOT / "build" / "autobahn"
LOOPS = ("asyncio", "uvloop")
ALL = [f"{n}.*" for n in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
ALL += [*(f"12.{n}.*" for n in range(1, 6)), *(f"13.{n}.*" for n in range(1, 8))]
INSTALL_TIMEOUT = 600.0  # seconds
# Packages of a namespace (zope) are found by a .pth file, hence addsitedir rather than PYTHONPATH.
WSTEST = "import site; site.addsitedir({site!r}); from autobahntestsuite.wstest import run; run()"


Verdicts = dict[str, dict[str, str]]  # by case, as the suite's index has them


class AutobahnError(RuntimeError):
    """There is no verdict: the message says what is missing or went wrong."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default="", help="which cases, such as '1.* 12.1.1' (all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="clients at a time")
    parser.add_argument("--loop", choices=LOOPS, action="append", help="which loop (both)")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds of a client (3600)")
    parser.add_argument("--url", help="test a server that runs already, at this ws:// address")
    args = parser.parse_args()
    cases = list(dict.fromkeys(args.cases.split())) or ALL
    try:
        client = install(find_python())
        if args.url:
            return 0 if judge("url", run_clients(client, "url", args.url, cases, args)) else 1
        passed = True
        for loop in args.loop or LOOPS:
            with serving(loop) as url:
                passed = judge(loop, run_clients(client, loop, url, cases, args)) and passed
    except AutobahnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


# --- the suite -----------------------------------------------------------------------------------


def find_python() -> str:
    """A Python 2.7 that has pip, zlib and ssl."""
    candidates = [os.environ.get("AUTOBAHN_PYTHON"), shutil.which("python2.7")]
    candidates += map(str, (Path.home() / ".pyenv" / "versions").glob("2.7.*/bin/python2.7"))
    look = "import pip, ssl, sys, zlib; sys.exit(sys.version_info[:2] != (2, 7))"
    for candidate in filter(None, candidates):
        with contextlib.suppress(OSError):
            done = subprocess.run([candidate, "-c", look], capture_output=True, check=False)
            if done.returncode == 0:
                return candidate
    raise AutobahnError(
        "Autobahn|Testsuite needs a Python 2.7 with pip, and there is none: `pyenv install 2.7.18` makes "
        "one, and AUTOBAHN_PYTHON=/path/to/python2.7 names one that is elsewhere"
    )


def install(python: str) -> list[str]:
    """Makes .venv-autobahn unless it is there as wanted; the words that start the suite's client."""
    stamp, wanted = SITE / "installed", f"{python}\n{REQUIREMENTS.read_text(encoding='utf-8')}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing Autobahn|Testsuite into {SITE.name}", file=sys.stderr)
        shutil.rmtree(SITE, ignore_errors=True)
        pip = [
            python,
            "-m",
            "pip",
            "--no-input",
            "--disable-pip-version-check",
            "install",
            "--quiet",
        ]
        pip += ["--no-deps", "--target", str(SITE), "--requirement", str(REQUIREMENTS)]
        try:
            done = subprocess.run(
                pip, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise AutobahnError(f"pip took longer than {INSTALL_TIMEOUT:.0f} s") from None
        if done.returncode:
            raise AutobahnError(f"cannot install {REQUIREMENTS}:\n{done.stdout}{done.stderr}")
        stamp.write_text(wanted, encoding="utf-8")
    return [python, "-c", WSTEST.format(site=str(SITE)), "--mode", "fuzzingclient"]


def run_clients(
    client: list[str], name: str, url: str, cases: list[str], args: argparse.Namespace
) -> Verdicts:
    """Runs the cases; what was found of each of them."""
    shutil.rmtree(REPORTS / name, ignore_errors=True)
    found: Verdicts = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = [pool.submit(run_client, client, name, url, one, args.timeout) for one in cases]
        try:
            for run in runs:
                found |= run.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def run_client(client: list[str], name: str, url: str, cases: str, timeout: float) -> Verdicts:
    """Runs one pattern of cases."""
    reports = REPORTS / name / (re.sub(r"[^0-9.]", "", cases).strip(".") or "all")
    reports.mkdir(parents=True)
    spec = {
        "outdir": str(reports),
        "servers": [{"agent": name, "url": url}],
        "cases": [cases],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (reports / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    log = reports / "client.log"
    with log.open("wb") as output:
        try:
            subprocess.run(
                [*client, "--spec", str(reports / "spec.json")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=reports,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AutobahnError(f"{name}: {cases}: over {timeout:.0f} s, see {log}") from None
    said = log.read_text(encoding="utf-8", errors="replace")
    selected = re.search(r"will run (\d+) test cases", said)
    try:
        index = json.loads((reports / "index.json").read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError):
        index = {}
    if selected is None or not index or len(index) != int(selected[1]):
        of = selected[1] if selected else "?"
        raise AutobahnError(f"{name}: {cases}: {len(index)} of {of} cases ran:\n{said[-2000:]}")
    for verdict in index.values():
        verdict["reportfile"] = str((reports / verdict["reportfile"]).relative_to(ROOT))
    return dict(index)


# --- the server ----------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(loop: str) -> Iterator[str]:
    """A server of the echo application on a port of the kernel's choice; its URL."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
        tempfile.TemporaryFile() as log,
    ):
        command = [
            sys.executable,
            "-m",
            "asgiserver",
            "--fd",
            str(listener.fileno()),
            "--loop",
            loop,
        ]
        command += ["--no-access-log", "--app-dir", str(ROOT / "tests" / "apps"), APP]
        server = subprocess.Popen(
            command,
            cwd=ROOT,
            pass_fds=(listener.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        port = listener.getsockname()[1]
        listener.close()  # From now on a dead server refuses connections.
        try:
            yield f"ws://127.0.0.1:{port}"
            ended_with = server.poll()
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            log.seek(0)
            said = log.read().decode("utf-8", "replace")
            if "Traceback" in said or sys.exc_info()[0]:
                print(f"the server's log:\n{said[-5000:]}", file=sys.stderr)
        if ended_with is not None or server.returncode != 0:
            raise AutobahnError(
                f"the server ended with status {server.returncode}:\n{said[-5000:]}"
            )
        if "Traceback" in said:
            raise AutobahnError("the server's log has a traceback")


# --- the verdicts --------------------------------------------------------------------------------


def judge(name: str, verdicts: Verdicts) -> bool:
    """Prints what came out; whether all is well."""
    by_number = sorted(verdicts.items(), key=lambda item: [int(n) for n in item[0].split(".")])
    rated = {case: (v["behavior"], v["behaviorClose"]) for case, v in by_number}
    for at, what in enumerate(("behaviour", "closing")):
        counts = Counter(pair[at] for pair in rated.values())
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        print(f"{name}: {len(rated)} cases, {what}: {said}")
    bad, informational = [], []
    for case, pair in rated.items():
        if set(pair) - {"OK", "INFORMATIONAL"}:
            bad.append(case)
        elif "INFORMATIONAL" in pair:
            informational.append(case)
    if informational:
        print(f"{name}: informational: {' '.join(informational)}")
    for case in bad:
        behaviour, closing = rated[case]
        print(f"{name}: {case}: {behaviour}, closing {closing}: {verdicts[case]['reportfile']}")
    return not bad


if __name__ == "__main__":
    sys.exit(main())
