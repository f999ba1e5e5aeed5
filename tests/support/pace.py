"""For tests of what happens in time: this process may not run for a second or more, now and then, and
what it was too late for tells nothing about the server."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Tells the longest time between two steps: the beginning is one, and so is the present."""

    def __init__(self) -> None:
        self._longest, self._last = 0.0, time.monotonic()

    def step(self) -> None:
        self._longest, self._last = self.longest, time.monotonic()

    @property
    def longest(self) -> float:
        """Seconds."""
        return max(self._longest, time.monotonic() - self._last)


def in_time(attempt: Callable[[], bool]) -> None:
    """Until somebody was quick enough: an attempt that is False was too late to tell anything."""
    assert any(attempt() for _ in range(8)), "nothing happens in time here"
