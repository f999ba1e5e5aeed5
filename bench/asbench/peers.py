"""Installs what the benchmarks compare with: each of bench/peers.toml in an environment of its own.

    PYTHONPATH=bench python -m asbench.peers [NAME…]

What is there already is left alone. What cannot be installed is named, with the reason, and is left out
of the benchmarks: that is no error.
"""

import argparse
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
FOLDER = ROOT / "build" / "peers"
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
INSTALL_TIMEOUT = 600  # seconds, for one peer
# What is compiled with the interpreter's own flags would warn of, or stop at, a newer compiler.
ENVIRONMENT = {**os.environ, "CFLAGS": "-O2 -Wno-error"}


def wanted() -> dict[str, list[str]]:
    """What pip is told for each environment."""
    table = tomllib.loads((BENCH / "peers.toml").read_text())
    constraints = ["-c", str(CONSTRAINTS.relative_to(ROOT))]
    return {
        name: entry["packages"] + (constraints if entry.get("constrained", True) else [])
        for name, entry in table.items()
    }


def python(name: str) -> Path:
    """The interpreter of a peer's environment."""
    return FOLDER / name / "bin" / "python"


def site_packages(name: str) -> Path:
    """Where a peer's packages are, for another interpreter of the same version."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return FOLDER / name / "lib" / version / "site-packages"


def stamp(name: str) -> Path:
    """Says what was installed, or why that failed."""
    return FOLDER / f"{name}.installed"


def absent(name: str) -> str | None:
    """Why a peer cannot be used, or None if it can."""
    if not stamp(name).exists():
        return "not installed: `make bench-peers` does it"
    said = stamp(name).read_text()
    return None if said == content(name) else said.splitlines()[-1]


def versions(name: str) -> str:
    """The server, and what bench/peers.toml names for its sake, with their versions."""
    words = wanted()[name]
    named = words[: words.index("-c")] if "-c" in words else words[:1]
    first, *others = [word.replace("==", " ") for word in named]
    return first + (f" with {', '.join(others)}" if others else "")


def content(name: str) -> str:
    """What is in the stamp of a finished environment."""
    return f"{sys.version}\n{' '.join(wanted()[name])}\n"


def install(name: str) -> str | None:
    """Make one environment, if it is not there as it should be; why not, or None."""
    if stamp(name).exists() and stamp(name).read_text() == content(name):
        return None
    print(f"installing {name}", file=sys.stderr, flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    make = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(FOLDER / name)]
    pip = [sys.executable, "-m", "pip", "--python", str(python(name)), "--no-input", "-q"]
    get = [*pip, "--disable-pip-version-check", "install", *wanted()[name]]
    why = run(make) or run(get)
    stamp(name).write_text(f"{why}\n" if why else content(name))
    return why


def run(command: list[str]) -> str | None:
    """Run a command; the last thing that it said if it failed."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            env=ENVIRONMENT,
            cwd=ROOT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {INSTALL_TIMEOUT} s"
    return (reason(done.stdout + done.stderr) or "failed") if done.returncode else None


def reason(output: str) -> str:
    """The line of pip's output that says most: a compiler's error before pip's own."""
    lines = [line.strip() for line in output.splitlines()]
    errors = [line for line in lines if "error:" in line.lower()]
    return next(iter(errors or [line for line in lines if line][-1:]), "")


def install_all(names: Iterable[str]) -> dict[str, str]:
    """Install these peers; those that are not there, with the reason."""
    return {name: why for name in names if (why := install(name))}


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *wanted()], metavar="NAME")
    args = parser.parse_args()
    for name, why in install_all(args.names or wanted()).items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
