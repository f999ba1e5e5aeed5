"""Who is on duty: worker processes, their places, and what they were started with."""

import os
import signal
import time

from . import logs, worker
from .config import Config
from .preload import Nursery
from .sockets import Listeners
from .tls import Certificates
from .worker import Child, Job

_SHUTDOWN_TIME = 5.0  # seconds beyond the grace time, for the application's own shutdown
_BACKOFF = (0.1, 30.0)  # seconds before a worker is started again: first, longest
_DOUBLINGS = 16
_ABORT_TIME = 2.0  # seconds for a hung worker to write its traceback
_STEADY = 10.0  # seconds of life after which an end is no sign of trouble
_FOREVER = float("inf")


class Generation:
    """What workers are started with, from one reading of the configuration."""

    def __init__(
        self, config: Config, listeners: Listeners, certificates: Certificates | None
    ) -> None:
        self.config, self.listeners, self.certificates = config, listeners, certificates
        self.wanted = worker.count(config.workers)
        self.nursery: Nursery | None = None  # where the application is imported once
        self.backoff = Backoff()  # for the nursery

    def least(self) -> int:
        """Workers below which something would be left that nobody accepts from."""
        return self.wanted if self.config.reuse_port else 1

    def is_importing(self) -> bool:
        """No worker can be started yet."""
        return self.config.preload and (self.nursery is None or not self.nursery.ready)

    def spawn(self, job: Job) -> int:
        """A new worker's process id. Raises OSError; ``Child`` in the worker."""
        if self.nursery is not None:
            return self.nursery.spawn(job)
        pid = os.fork()
        if pid == 0:
            raise Child(lambda: worker.run(job), job.listeners)
        return pid

    def stop_listening(self) -> None:
        """Only the workers have the sockets then."""
        if self.nursery is not None:
            self.nursery.finish()
        self.listeners.stop()

    def close(self, but: Listeners | None = None, patience: float = 0.0) -> None:
        """Sockets that ``but`` uses too stay open. ``patience`` is the nursery's."""
        if self.nursery is not None:
            self.nursery.close(patience)
            self.nursery = None
        if self.listeners is not but:
            self.listeners.close(but)


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


class Backoff:
    """When to try again what failed: later each time."""

    def __init__(self) -> None:
        self.at = 0.0  # not before
        self._failures = 0

    def failed(self, now: float) -> None:
        first, longest = _BACKOFF
        self.at = now + min(longest, first * 2.0**self._failures)
        self._failures = min(self._failures + 1, _DOUBLINGS)

    def reset(self) -> None:
        self.at, self._failures = 0.0, 0


class Slot:
    """A worker's place: who serves, and who is to take over."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: Worker | None = None
        self.successor: Worker | None = None
        self.due = False  # the current one is to be replaced
        self.backoff = Backoff()

    def workers(self) -> list[Worker]:
        return [one for one in (self.current, self.successor) if one is not None]

    def is_open(self) -> bool:
        """A worker is to be started here."""
        return self.successor is None and (self.current is None or self.due)

    def count_end(self, one: Worker, now: float) -> None:
        """After an end that nobody asked for the next start waits."""
        if one.ready and now - one.began >= _STEADY:
            self.backoff.reset()
        else:
            self.backoff.failed(now)


class Roster:
    """Who is on duty, and who is on the way out."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.leaving: list[Worker] = []

    def workers(self) -> list[Worker]:
        return [one for slot in self.slots for one in slot.workers()] + self.leaving

    def open_slots(self, *, first_alone: bool) -> list[Slot]:
        """Where a worker is to be started; the first of all starts alone."""
        return [slot for slot in (self.slots[:1] if first_alone else self.slots) if slot.is_open()]

    def has_successors(self) -> bool:
        return any(slot.successor is not None for slot in self.slots)

    def all_leave(self, number: int, now: float) -> None:
        for one in self.workers():
            one.leave(number, now)
        for slot in self.slots:
            self.leaving += slot.workers()
            slot.current = slot.successor = None

    def retire(self, one: Worker) -> None:
        """It ends; others serve in its place already. When reloading for a developer, the next
        request is to see the new code, also on a connection that is open."""
        hurry = one.generation.config.reload
        one.leave(signal.SIGTERM if hurry else signal.SIGHUP, time.monotonic())
        self.leaving.append(one)

    def drop_successors(self) -> None:
        """Those that are not ready yet would serve code that is out of date already."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.successor is not None:
                slot.successor.leave(signal.SIGKILL, now)
                self.leaving.append(slot.successor)
                slot.successor = None

    def remove(self, one: Worker) -> None:
        """It has ended without being told to."""
        if one.slot.current is one:
            one.slot.current = None
        else:
            one.slot.successor = None

    def end_overdue(self, now: float) -> None:
        """Kills what does not end in time, and what gives no sign of life."""
        for one in self.workers():
            if now >= one.kill_at:
                one.killed = True
                one.kill_at = _FOREVER
                one.send(signal.SIGKILL)
            elif now >= one.hangs_at():
                logs.error.error(
                    "Worker %d, process %d, gave no sign of life for %.1f s and is killed; "
                    "this is where it was:",
                    one.slot.number + 1, one.pid, now - one.seen,
                )  # fmt: skip
                one.hung = True
                one.kill_at = now + _ABORT_TIME
                one.send(signal.SIGABRT)

    def times(self) -> list[float]:
        """When ``end_overdue`` may have something to do."""
        return [at for one in self.workers() for at in (one.kill_at, one.hangs_at())]


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
