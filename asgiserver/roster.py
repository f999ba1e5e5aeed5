"""Who is on duty: worker processes, their places, and what they were started with."""

import os
import signal
import time

from . import worker
from .config import Config
from .preload import Nursery
from .sockets import Listeners
from .worker import Child, Job

_SHUTDOWN_TIME = 5.0  # seconds beyond the grace time, for the application's own shutdown
_BACKOFF = (0.1, 30.0)  # seconds before a worker is started again: first, longest
_STEADY = 10.0  # seconds of life after which an end is no sign of trouble
_FOREVER = float("inf")


class Generation:
    """What workers are started with, from one reading of the configuration."""

    def __init__(self, config: Config, listeners: Listeners) -> None:
        self.config, self.listeners = config, listeners
        self.wanted = worker.count(config.workers)
        self.nursery: Nursery | None = None
        self._pid = os.getpid()

    def is_parent(self) -> bool:
        """Whether this is the process that made it, and no child of that."""
        return os.getpid() == self._pid

    def spawn(self, job: Job) -> int:
        """A new worker's process id. Raises ``Child`` in the worker."""
        if self.nursery is not None:
            return self.nursery.spawn(job)
        pid = os.fork()
        if pid == 0:
            raise Child(job)
        return pid

    def close(self, but: "Generation | None" = None) -> None:
        """Sockets that ``but`` uses too stay open."""
        if self.nursery is not None:
            self.nursery.close()
        if self.is_parent():  # a worker serves on them
            self.listeners.close(but=but.listeners if but is not None else None)


class Worker:
    """One process. Times are those of ``time.monotonic()``."""

    def __init__(self, slot: "Slot", generation: Generation, pid: int, pipe: int) -> None:
        self.slot, self.generation, self.pid, self.pipe = slot, generation, pid, pipe
        self.began = self.seen = time.monotonic()
        self.ready = False
        self.silent = False  # the pipe is closed
        self.leaving = False  # it was told to end
        self.hung = False
        self.killed = False  # because it did not end in time
        self.kill_at = _FOREVER

    def send(self, number: int) -> None:
        # It is reaped by this process alone: the id cannot be another's yet.
        os.kill(self.pid, number)

    def leave(self, number: int, now: float) -> None:
        """Tells it to end, within the grace time."""
        config = self.generation.config
        self.leaving = True
        self.kill_at = now + config.shutdown_delay + config.grace + _SHUTDOWN_TIME
        self.send(number)

    def hangs_at(self) -> float:
        """When it is taken for hung, unless it gives a sign of life before."""
        patience = self.generation.config.timeout_worker_healthcheck
        if not patience or not self.ready or self.leaving or self.hung:
            return _FOREVER
        return self.seen + patience


class Slot:
    """A worker's place: who serves, and who is to take over."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: Worker | None = None
        self.successor: Worker | None = None
        self.start_at = 0.0  # a new one does not start before
        self._failures = 0

    def workers(self) -> list[Worker]:
        return [one for one in (self.current, self.successor) if one is not None]

    def count_end(self, one: Worker, now: float) -> None:
        """After an end that nobody asked for the next start waits, longer each time."""
        steady = one.ready and now - one.began >= _STEADY
        self._failures = 0 if steady else self._failures + 1
        first, longest = _BACKOFF
        self.start_at = now if steady else now + min(longest, first * 2 ** (self._failures - 1))


def describe_end(one: Worker, status: int) -> str:
    """How a process ended that was not asked to; a negative status is a signal's number."""
    how = f"ended with status {status}" if status >= 0 else f"was killed by {_name(-status)}"
    if one.hung:
        return f"hung, and {how}"
    return how if one.ready else f"{how} before it was ready"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
