"""Faults of the machine, for a server that has faults.c preloaded: which call fails, how often, and how."""

from __future__ import annotations

import importlib
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# In the order of faults.c.
CALLS = (
    *("accept", "recv", "send", "sendfile", "pread", "write", "open", "bind", "wait", "allocate"),
)
RULE = struct.Struct("iiiiII")  # every, error, most, left, seen, failed
REALTIME = (RULE.size * len(CALLS) + 7) // 8 * 8
SIZE = REALTIME + 8
FOREVER = 2**31 - 1


def library() -> Path:
    """What the build made beside the module that is tested."""
    core = importlib.import_module("asgiserver._core").__file__
    assert core is not None
    return Path(core).resolve().parent.parent / "tests" / "unit" / "libfaults.so"


class Faults:
    """The rules of one server; ``env`` is for its process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "faults"
        self._path.write_bytes(bytes(SIZE))
        with self._path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)

    @property
    def env(self) -> Mapping[str, str]:
        before = os.environ.get("LD_PRELOAD", "")
        return {"FAULTS": str(self._path), "LD_PRELOAD": f"{before} {library()}".strip()}

    def set(
        self, call: str, error: int = 0, *, every: int = 1, most: int = 0, left: int = FOREVER
    ) -> None:
        """Every Nth ``call`` from now on fails with ``error``, or moves at most ``most`` bytes."""
        at = CALLS.index(call) * RULE.size
        RULE.pack_into(self._map, at, 0, error, most, left, 0, 0)
        struct.pack_into("i", self._map, at, every)  # the last one: it makes the rule count

    def clear(self, call: str) -> int:
        """How many calls failed."""
        at = CALLS.index(call) * RULE.size
        failed: int = RULE.unpack_from(self._map, at)[5]
        RULE.pack_into(self._map, at, 0, 0, 0, 0, 0, 0)
        return failed

    def seen(self, call: str) -> int:
        """How many calls there were since ``set``."""
        seen: int = RULE.unpack_from(self._map, CALLS.index(call) * RULE.size)[4]
        return seen

    def set_clock(self, seconds: int) -> None:
        """The time of day is off by so much; the monotonic clock is not."""
        struct.pack_into("q", self._map, REALTIME, seconds)

    @contextmanager
    def during(
        self, call: str, error: int = 0, *, every: int = 1, most: int = 0, left: int = FOREVER
    ) -> Iterator[None]:
        """``set``, and in the end ``clear``: at least one call failed, or the test tests nothing."""
        self.set(call, error, every=every, most=most, left=left)
        yield
        assert self.clear(call) > 0, f"no {call} failed"
