"""Looking at processes: who is whose child, and whether it is there at all."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from .client import SLOWNESS


def foreign_environment() -> dict[str, str]:
    """For a program that is not ours: the sanitizers stay out of it, if the tests run with them."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def children(pid: int) -> list[int]:
    """Direct ones, zombies included."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # That thread has ended.
            found += [int(word) for word in (task / "children").read_text().split()]
    return sorted(found)


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [one for child in found for one in descendants(child)]


def state(pid: int) -> str:
    """A letter as ps shows it; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def lives(pid: int) -> bool:
    return state(pid) not in ("", "Z", "X")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def run_first(*pids: int) -> None:
    """They run as soon as they are woken, whatever else this machine does. Only root may."""
    for pid in pids:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def wakings(pid: int, seconds: float) -> int:
    """How often one of its threads ended a wait meanwhile."""

    def count() -> int:
        texts = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for text in texts)

    before = count()
    time.sleep(seconds)  # The time is what is measured.
    return count() - before


def await_quiet(pid: int, most: int, seconds: float = 2) -> None:
    """Until it wakes up no more than `most` times in so many seconds."""
    wait_until(lambda: wakings(pid, seconds) <= most, what="for an idle process")


def wait_until(condition: Callable[[], object], timeout: float = 30, what: str = "") -> None:
    """For what nobody tells: looks again and again."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while not condition():
        assert time.monotonic() < deadline, f"time is over {what}"
        time.sleep(0.01)


def await_end(*pids: int, timeout: float = 30) -> None:
    wait_until(lambda: not any(lives(pid) for pid in pids), timeout, f"for the end of {pids}")
