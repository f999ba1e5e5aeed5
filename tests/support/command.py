"""The command ``asgiserver``, run to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .client import SLOWNESS
from .server import APPS, child_environment

# Starts the command as the console script does: the current folder is not importable by itself.
SCRIPT = (
    "import sys; sys.path.pop(0); from asgiserver.cli import main; main(prog_name='asgiserver')"
)


def command(
    *args: str, env: dict[str, str] | None = None, cwd: Path = APPS
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, with both outputs in ``stdout``."""
    folders = [path for path in sys.path if path and Path(path, "asgiserver").is_dir()]
    inherited = os.environ.get("PYTHONPATH", "")
    pythonpath = os.pathsep.join(filter(None, [inherited, *folders]))
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=child_environment({"PYTHONPATH": pythonpath, **(env or {})}),
        timeout=30 * SLOWNESS,
        check=False,
    )


def assert_line(done: subprocess.CompletedProcess[str], text: str, status: int = 1) -> None:
    """It said one line, with ``text``, and ended with ``status``."""
    assert done.returncode == status, done.stdout
    assert text in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("ERROR:    ")
