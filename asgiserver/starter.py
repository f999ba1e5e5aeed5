"""Starting processes for a supervisor: workers, and the one that imports the application for them."""

import os
import selectors
import time
from collections.abc import Callable
from mmap import PAGESIZE, mmap

from . import logs, preload, worker
from .process import Process
from .roster import Generation, Slot, Worker
from .signal_queue import signals_held
from .worker import Child


class Starter:
    """Registers what it starts at ``selector``, to be told of by ``on_report`` and ``on_nursery``."""

    def __init__(
        self,
        process: Process,
        selector: selectors.BaseSelector,
        on_report: Callable[[Worker], None],
        on_nursery: Callable[[Generation], None],
    ) -> None:
        self._process, self._selector = process, selector
        self._on_report, self._on_nursery = on_report, on_nursery
        self._shares = mmap(-1, PAGESIZE)  # all workers see who has how many connections

    def import_for(self, generation: Generation) -> None:
        """Has the application imported, where that is done once. Raises OSError."""
        with signals_held():
            job = self._job(generation, slot=0, pipe=-1, announce=0)
            generation.nursery = preload.start(job)
        self._selector.register(
            generation.nursery, selectors.EVENT_READ, lambda: self._on_nursery(generation)
        )

    def drop_nursery(self, generation: Generation) -> None:
        if generation.nursery is not None:
            self._selector.unregister(generation.nursery)
            generation.nursery.close()
            generation.nursery = None

    def start(self, slot: Slot, generation: Generation, announce: int) -> bool:
        """Whether there is a new process for the place. ``announce``: of how many workers it tells in
        the banner; 0: it shows none."""
        try:
            slot.successor = self._spawn(slot, generation, announce)
        except OSError as problem:
            logs.error.error("Worker %d cannot be started: %s", slot.number + 1, problem)
            self.drop_nursery(generation)
            slot.backoff.failed(time.monotonic())
            return False
        return True

    def _spawn(self, slot: Slot, generation: Generation, announce: int) -> Worker:
        ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with signals_held():
                pid = generation.spawn(self._job(generation, slot.number, theirs, announce))
        except Child:
            os.close(ours)
            raise
        except BaseException:
            os.close(ours)
            os.close(theirs)
            raise
        os.close(theirs)
        one = Worker(slot, generation, pid, ours)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_report(one))
        return one

    def _job(self, generation: Generation, slot: int, pipe: int, announce: int) -> worker.Job:
        return worker.Job(
            generation.config,
            generation.listeners,
            self._process,
            slot,
            pipe,
            os.getpid(),
            announce,
            generation.certificates,
            None if generation.config.reuse_port else self._shares,
        )
