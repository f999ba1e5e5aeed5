"""A wheel in dist that is compiled by the profile of usual requests: `make wheel`.

Three steps: an instrumented build, which is installed into a folder of its own; the requests of bench/ to it,
under both interfaces; the same build again, by the profile that came of them. It is gcc's kind of profile.
What it is worth is in docs/performance.md.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from asbench import harness, load, scenarios
from asbench.harness import APPS, ROOT, BenchError

FOLDER = ROOT / "build" / "wheel"
BUILD, PACKAGE = FOLDER / "build", FOLDER / "package"
PURE = Path(sysconfig.get_path("purelib"))
SCENARIOS = ("plain", "pipelined", "close", "headers", "echo", "large", "stream")
SECONDS = 1.0  # of each


def pip(*words: str, profile: str) -> None:
    """Build with pip, which is silent unless it fails."""
    # The environment's own meson and ninja go first.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", *words]
    command += ["--no-deps", "--no-build-isolation", f"-Cbuild-dir={BUILD}"]
    command += [f"-Csetup-args=-Db_pgo={profile}", str(ROOT)]
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"the build failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def serving(app: str, interface: str) -> Iterator[harness.Server]:
    """The instrumented server; it writes its profile when it ends."""
    port = harness.free_port()
    # Without site, the editable install of this environment is not found.
    command = [sys.executable, "-S", "-P", "-m", "asgiserver", app, "--interface", interface]
    command += ["--port", str(port), "--no-access-log", "--log-level", "warning"]
    folders = os.pathsep.join(map(str, (PACKAGE, PURE, APPS)))
    core = min(os.sched_getaffinity(0))
    with harness.serving("asgiserver", command, port, core, {"PYTHONPATH": folders}) as server:
        yield server


def ask(server: harness.Server, scenario: scenarios.Scenario) -> None:
    """One scenario; a wrong answer is an error."""
    assert isinstance(scenario.answer, bytes)
    core = max(os.sched_getaffinity(0))
    with load.generator(
        server.name, server.port, scenario.load, len(scenario.answer), SECONDS, core
    ) as asking:
        asking.run()


def train() -> None:
    """Everything that is profiled; what the servers leave is in the build's folder."""
    for interface in ("asgi", "wsgi"):
        chosen = [one for one in scenarios.MAIN if one.name in SCENARIOS]
        for app in dict.fromkeys(one.apps[interface] for one in chosen):
            with serving(app, interface) as server:
                for scenario in chosen:
                    if scenario.apps[interface] == app:
                        ask(server, scenario)
    if not list(BUILD.rglob("*http1.c.gcda")):
        raise BenchError("no profile was written: is the compiler gcc?")


def main() -> int:
    """The exit status."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        print("an instrumented build", flush=True)
        pip("install", "--target", str(PACKAGE), profile="generate")
        print("training", flush=True)
        train()
        print("the wheel", flush=True)
        pip("wheel", "--wheel-dir", str(ROOT / "dist"), profile="use")
    except (BenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
