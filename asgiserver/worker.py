"""A worker: one process of several that serve the same sockets, under a supervisor.

It reports over a pipe, one byte for each event: that it is ready, that its loop goes round, and
that it wants to be replaced because of a limit. The supervisor answers with signals: SIGHUP, a new
one serves, end without losing a request; SIGTERM, end; SIGQUIT, end at once; SIGUSR1, open the log
files again.
"""

import contextlib
import ctypes
import faulthandler
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import TYPE_CHECKING, Any

from . import cpus, logs
from .application import Application
from .config import Config
from .process import Process, exit_status
from .service import Service
from .serving import Serving
from .sockets import Listeners
from .stop import WORKER_SIGNALS
from .tls import Certificates

if TYPE_CHECKING:
    from . import _core

READY = b"R"
ALIVE = b"."
# What a worker wants to be replaced for.
LIMITS = {b"n": "limit_max_requests", b"a": "limit_max_age", b"m": "limit_max_rss"}

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SECOND = 1.0
_BEATS = 6  # in the time after which a worker is taken for dead
_PAGE = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is started for. ``pipe`` is the descriptor that it reports to, ``supervisor``
    the process that reads there."""

    config: Config
    listeners: Listeners
    process: Process
    slot: int
    pipe: int
    supervisor: int
    announce: int  # the number of workers, where this one prints the banner; else 0
    certificates: Certificates | None
    shares: mmap | None  # where workers see how many connections the others have
    application: Application | None = None  # where it was imported before the fork


class Child(BaseException):
    """Raised in a process that was forked, to leave the frames of the one that forked it.

    ``work`` is what it is there for, with the exit status; of all that is open, ``listeners`` stay.
    """

    def __init__(self, work: Callable[[], int], listeners: Listeners) -> None:
        super().__init__()
        self.work, self.listeners = work, listeners


def count(workers: int | str) -> int:
    """What ``--workers`` means here."""
    return cpus.usable() if workers == "auto" else int(workers)


def run(job: Job) -> int:
    """Serves until it is told to end; the exit status. In a process of its own."""
    config = job.config
    faulthandler.enable(logs.error_stream(), all_threads=True)  # SIGABRT: it hangs; where?
    for number in (signal.SIGINT, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2):
        signal.signal(number, _ignore)  # the supervisor's; CTRL+C reaches all in the terminal
    signal.signal(signal.SIGUSR1, lambda *_: logs.reopen())
    report = _Report(job)

    def serve() -> int:
        if job.certificates is not None:
            job.certificates.refresh()  # later, nobody may be allowed to read the key
        job.process.drop_privileges()
        _end_with_parent(job.supervisor)
        job.listeners.take_share(job.slot, count(config.workers))
        serving = Serving(config, WORKER_SIGNALS)
        serving.application, serving.certificates = job.application, job.certificates
        serving.workers = job.announce
        serving.run(lambda: job.listeners, report.service())
        return 0

    return exit_status(serve)


def _end_with_parent(parent: int | None) -> None:
    """Asks the kernel for SIGTERM when the parent dies; None: not any more.

    That is for the start, in which nothing else goes round. A change of the user would undo it.
    """
    number = signal.SIGTERM if parent is not None else 0
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if parent is not None and os.getppid() != parent:  # it was quicker
        os.kill(os.getpid(), signal.SIGTERM)


def _ignore(*_: Any) -> None:
    """A handler, where SIG_IGN would be inherited by the programs that the application starts."""


class _Report:
    """The worker's side of the pipe, and the limits that only it can see."""

    def __init__(self, job: Job) -> None:
        config = job.config
        self._config = config
        self._shares = job.shares
        self._pipe = job.pipe
        self._parent = job.supervisor
        self._last_beat = float("-inf")
        self._asked = False
        patience = config.timeout_worker_healthcheck
        self._beat_every = patience / _BEATS if patience else float("inf")
        self._interval = min(_SECOND, patience / 4) if patience else _SECOND
        age = config.limit_max_age
        self._end = time.monotonic() + age * random.uniform(1.0, 1.1) if age else float("inf")

    def service(self) -> Service:
        config = self._config
        extra = random.randint(0, config.limit_max_requests_jitter)
        return Service(
            started=self._started,
            tick=self._tick,
            interval=self._interval,
            max_requests=config.limit_max_requests + extra if config.limit_max_requests else 0,
            exhausted=lambda: self._want_successor(b"n"),
            opened=self._opened,
        )

    def _opened(self, core: "_core.Server") -> None:
        if self._shares is not None:
            core.balance(self._shares)

    def _started(self) -> None:
        _end_with_parent(None)  # the tick sees to it
        self._say(READY)

    def _say(self, byte: bytes) -> None:
        with contextlib.suppress(OSError):  # a full pipe: the supervisor is alive, and busy
            os.write(self._pipe, byte)

    def _want_successor(self, byte: bytes) -> None:
        if not self._asked:
            self._asked = True
            self._say(byte)

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._last_beat >= self._beat_every:
            self._last_beat = now
            self._say(ALIVE)
        if os.getppid() != self._parent:
            logs.error.error("The supervisor has died; this worker ends too.")
            self._parent = os.getppid()
            os.kill(os.getpid(), signal.SIGTERM)
        if now >= self._end:
            self._want_successor(b"a")
        if self._config.limit_max_rss and _resident() > self._config.limit_max_rss:
            self._want_successor(b"m")


def _resident() -> int:
    """Bytes of memory of this process."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
