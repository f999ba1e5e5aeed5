"""How many processors this process may use: its affinity, and its control group's quota."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def usable(groups: Path = _GROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """At least 1. A quota of 1.5 processors counts as 2: workers also wait."""
    count = len(os.sched_getaffinity(0))
    for quota in _quotas(groups, membership):
        count = min(count, max(1, math.ceil(quota)))
    return count


def _quotas(groups: Path, membership: Path) -> Iterator[float]:
    """Processors that each group around this process allows, where it says so."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _unified(groups, path)
        elif "cpu" in controllers.split(","):
            for folder in {"cpu", controllers}:  # usually a link from one to the other
                yield from _legacy(groups / folder, path)


def _folders(root: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it. In a container the path may be the host's: then only the
    root is there, and is this container's own.
    """
    here = root / path.lstrip("/")
    while here != root:
        yield here
        here = here.parent
    yield root


def _unified(root: Path, path: str) -> Iterator[float]:
    for folder in _folders(root, path):
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            yield int(words[0]) / int(words[1])


def _legacy(root: Path, path: str) -> Iterator[float]:
    for folder in _folders(root, path):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
