"""Several workers, or one that is replaced: the process that starts them and never serves itself.

It binds the sockets once; workers inherit them, so that clients are accepted as long as one worker
lives. Each worker reports over a pipe (worker.py). One is replaced when it dies, when it gives no
sign of life, and when it asks for it because a limit was reached; in that case, and for a reload,
the new one listens before the old one drains, so that no request is lost.

Everything happens in one loop: signals, reports, deaths and times, one after the other.
"""

import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable

from . import logs, notify, preload, tls, watch, worker
from .config import Config
from .errors import LIFESPAN_FAILED, USAGE, StartError
from .options import BY_NAME
from .process import Process
from .roster import Generation, Roster, Slot, Worker, describe_end
from .signal_queue import SignalQueue
from .sockets import Listeners
from .starter import Starter
from .worker import Child

_LATE = 1.0  # seconds
_AT_ONCE = 2  # times that it was told to stop
_PATIENCE = 2.0  # seconds for the last process to end
# Settings that are taken once, when this process starts.
_OF_THIS_PROCESS = ("pid", "user", "group", "umask", "reload")
_FOREVER = float("inf")


class Supervisor:
    """Runs until it is stopped; ``reread`` reads the configuration again, for a reload."""

    def __init__(self, config: Config, process: Process, reread: Callable[[], Config]) -> None:
        self._config, self._process, self._reread = config, process, reread
        self._ticket_key = tls.new_ticket_key()  # all workers take up each other's sessions
        self._generation: Generation | None = None
        self._next: Generation | None = None  # during a reload
        self._rolling: deque[Slot] = deque()  # those that the reload has not come to yet
        self._roster = Roster()
        self._stops = 0  # how often it was told to stop
        self._booted = False  # a worker has been ready
        self._status = 0
        self._watcher: watch.Watcher | None = None
        self._watchdog = notify.watchdog_interval()
        self._watchdog_at = 0.0 if self._watchdog is not None else _FOREVER
        self._selector = selectors.DefaultSelector()
        self._signals = SignalQueue()
        self._starter = Starter(process, self._selector, self._on_report, self._on_nursery)

    def run(self) -> int:
        """The exit status. Raises StartError."""
        logs.configure(self._config)
        try:
            return self._supervise()
        except Child as child:
            work = child.work
        while True:  # a process that was forked, and may fork others
            try:
                return work()
            except Child as child:
                work = child.work

    def _supervise(self) -> int:
        config = self._config
        certificates = tls.load(config, self._ticket_key)
        listeners = self._process.bind(config, worker.count(config.workers))
        self._generation = Generation(config, listeners, certificates)
        try:
            if config.reload:
                self._watch()
            self._signals.open()
            self._selector.register(self._signals, selectors.EVENT_READ, self._signals.clear)
            self._resize(self._generation.wanted)
            self._fill()
            while not (self._stops and not self._roster.workers()):
                self._turn()
        except Child as child:
            self._forget(child.listeners)
            raise
        except BaseException:
            self._close()
            raise
        self._close()
        if self._booted:
            logs.say(self._config, "Stopped")
        return self._status

    def _turn(self) -> None:
        patience, began = self._time_left(), time.monotonic()
        for key, _ in self._selector.select(patience):
            key.data()
        for number in self._signals.take():
            self._on_signal(number)
        self._reap()
        now = time.monotonic()
        if now - began > (patience or 0.0) + _LATE:
            self._forgive(now)
        self._look_at_the_clock(now)

    def _forgive(self, now: float) -> None:
        """It was this process that did not run: stopped by CTRL+Z, perhaps, with the workers."""
        for one in self._roster.workers():
            one.seen = now

    def _close(self) -> None:
        """Everything has ended, or shall."""
        if self._watcher is not None:
            self._watcher.close()
        for generation in self._generations():
            generation.close(patience=_PATIENCE)
        self._free()

    def _forget(self, listeners: Listeners) -> None:
        """Leaves nothing of the supervisor's in a process that was forked, but ``listeners``."""
        for generation in self._generations():
            if generation.nursery is not None:
                generation.nursery.forget()
            if generation.listeners is not listeners:
                generation.listeners.close(listeners)
        if self._watcher is not None:
            self._watcher.forget()
        self._free()

    def _free(self) -> None:
        for one in self._roster.workers():
            os.close(one.pipe)
        self._selector.close()
        self._signals.close()

    def _generations(self) -> list[Generation]:
        return [one for one in (self._generation, self._next) if one is not None]

    # --- signals ---

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGINT | signal.SIGTERM | signal.SIGQUIT:
                self._stop(number)
            case signal.SIGHUP:
                self._reload()
            case signal.SIGTTIN:
                self._resize(len(self._roster.slots) + 1)
            case signal.SIGTTOU:
                self._resize(len(self._roster.slots) - 1)
            case signal.SIGUSR1:
                logs.reopen()
                for one in self._roster.workers():
                    one.send(signal.SIGUSR1)
            case signal.SIGUSR2:
                logs.error.warning(_NO_UPGRADE)

    def _stop(self, number: int) -> None:
        """The first time in order, the second time at once, the third time without their help."""
        self._stops += 1 if number != signal.SIGQUIT else max(1, _AT_ONCE - self._stops)
        notify.stopping()
        self._rolling.clear()
        how = (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL)[min(self._stops, 3) - 1]
        # Clients are refused as soon as the workers listen no more. These accept who has connected
        # before they let go: nobody is to be in a queue that is the supervisor's alone.
        for generation in self._generations():
            generation.stop_listening()
        self._roster.all_leave(how, time.monotonic())
        if not self._booted or self._stops > _AT_ONCE:
            self._status = 128 + number

    # --- starting ---

    def _on_nursery(self, generation: Generation) -> None:
        """It has imported the application, or died."""
        if generation.nursery is not None and generation.nursery.read():
            generation.backoff.reset()
            self._roll()
            return
        self._starter.drop_nursery(generation)
        if self._stops:
            return
        if generation is self._next:
            self._give_up_reload("the application cannot be imported")
        elif not self._booted:
            self._status = LIFESPAN_FAILED
            self._stops = 3
        else:
            generation.backoff.failed(time.monotonic())
            logs.error.error("%s; it is imported again", preload.GONE.capitalize())

    def _start(self, slot: Slot, generation: Generation) -> bool:
        # The first of all prints the banner, and alone, so that what is wrong is said once.
        return self._starter.start(slot, generation, 0 if self._booted else generation.wanted)

    def _open_slots(self) -> list[Slot]:
        return self._roster.open_slots(first_alone=not self._booted)

    def _fill(self) -> None:
        """A worker for each place that needs one, and for which the time has come."""
        generation, now = self._generation, time.monotonic()
        assert generation is not None
        if generation.config.preload and generation.nursery is None:
            if now >= generation.backoff.at:
                self._starter.import_for(generation)
            return
        if generation.is_importing():
            return
        for slot in self._open_slots():
            if slot.backoff.at <= now:
                self._start(slot, generation)

    def _resize(self, wanted: int) -> None:
        if self._stops or self._generation is None:
            return
        if wanted < self._generation.least():
            logs.error.warning("There are no fewer workers than %d", len(self._roster.slots))
            return
        while len(self._roster.slots) > wanted:
            slot = self._roster.slots.pop()
            if slot in self._rolling:
                self._rolling.remove(slot)
            for one in slot.workers():
                self._roster.retire(one)
        while len(self._roster.slots) < wanted:
            self._roster.slots.append(Slot(len(self._roster.slots)))

    # --- reports ---

    def _on_report(self, one: Worker) -> None:
        try:
            said = os.read(one.pipe, 4096)
        except BlockingIOError:
            return
        one.seen = time.monotonic()
        if not said:
            self._selector.unregister(one.pipe)
            one.silent = True
        if worker.READY in said:
            self._on_ready(one)
        for byte, limit in worker.LIMITS.items():
            if byte in said:
                self._recycle(one, limit)

    def _on_ready(self, one: Worker) -> None:
        slot = one.slot
        one.ready = True
        if one.leaving:
            return
        logs.say(self._config, "Worker %d is ready: process %d", slot.number + 1, one.pid)
        old, slot.current, slot.successor = slot.current, one, None
        slot.due = False
        if old is not None:
            self._roster.retire(old)
        if not self._booted:
            self._booted = True
            notify.ready(f"{len(self._roster.slots)} workers")
        self._roll()

    def _recycle(self, one: Worker, limit: str) -> None:
        """It has reached a limit: another one takes over first."""
        slot = one.slot
        if slot.current is one:
            logs.error.info(
                "Worker %d has reached %s and is replaced: process %d",
                slot.number + 1, limit, one.pid,
            )  # fmt: skip
            slot.due = True

    # --- reloading ---

    def _watch(self) -> None:
        self._watcher = watch.start(self._config)
        self._selector.register(self._watcher, selectors.EVENT_READ, self._on_change)

    def _on_change(self) -> None:
        assert self._watcher is not None
        try:
            paths = self._watcher.read_changes()
        except StartError as problem:
            logs.error.error("%s", problem)
            self._selector.unregister(self._watcher)
            return
        if paths and not self._stops:
            logs.error.warning("Reloading for %s", ", ".join(sorted(paths)[:3]))
            self._roster.drop_successors()
            for slot in self._roster.slots:
                slot.backoff.reset()
            self._rolling = deque(self._roster.slots)
            self._roll()

    def _reload(self) -> None:
        """New workers with the configuration as it is now; what is wrong with it changes nothing."""
        if self._stops or self._generation is None or not self._booted:
            return
        notify.reloading()
        logs.error.info("Reloading")
        self._abandon_reload()
        try:
            config = self._reread()
            certificates = tls.load(config, self._ticket_key)
            listeners = self._process.bind(
                config, worker.count(config.workers), self._generation.listeners
            )
        except (StartError, ValueError, TypeError) as problem:
            self._give_up_reload(str(problem))
            return
        self._say_what_stays(config)
        self._next = Generation(config, listeners, certificates)
        self._rolling = deque(self._roster.slots)
        if config.preload:
            try:
                self._starter.import_for(self._next)
            except OSError as problem:
                self._give_up_reload(str(problem))
        else:
            self._roll()

    def _say_what_stays(self, config: Config) -> None:
        for name in _OF_THIS_PROCESS:
            if getattr(config, name) != getattr(self._config, name):
                logs.error.warning("--%s takes effect at the next start", BY_NAME[name].word)

    def _abandon_reload(self) -> None:
        self._rolling.clear()
        self._roster.drop_successors()
        if self._next is not None and self._generation is not None:
            self._starter.drop_nursery(self._next)
            self._next.close(but=self._generation.listeners)
            self._next = None

    def _give_up_reload(self, why: str) -> None:
        """What serves goes on; places that the reload has come to already go back."""
        self._abandon_reload()
        logs.error.error("Nothing is reloaded: %s", why)
        self._rolling.extend(
            slot
            for slot in self._roster.slots
            if slot.current is not None and slot.current.generation is not self._generation
        )
        self._ready_again()
        self._roll()

    def _roll(self) -> None:
        """The next place's turn; one at a time, so that the others go on serving."""
        if self._generation is None or self._roster.has_successors():
            return
        if self._next is not None and self._next.is_importing():
            return
        if self._rolling:
            if not self._start(self._rolling.popleft(), self._next or self._generation):
                self._on_failed_successor()
        elif self._next is not None:
            old, self._generation, self._next = self._generation, self._next, None
            self._starter.drop_nursery(old)
            old.close(but=self._generation.listeners)
            self._config = self._generation.config
            self._resize(self._generation.wanted)
            logs.error.info("Reloaded")
            self._ready_again()

    def _ready_again(self) -> None:
        notify.ready(f"{len(self._roster.slots)} workers")

    # --- ends ---

    def _reap(self) -> None:
        """Also children that are not ours: process 1 of a container inherits orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for one in self._roster.workers():
                if one.pid == pid:
                    self._on_end(one, os.waitstatus_to_exitcode(status))

    def _on_end(self, one: Worker, status: int) -> None:
        if not one.silent:
            self._on_report(one)  # what it said last
        if not one.silent:
            self._selector.unregister(one.pipe)
        os.close(one.pipe)
        if one.leaving:
            self._roster.leaving.remove(one)
            if one.killed:
                logs.error.warning("Process %d did not end in time and was killed", one.pid)
            return
        slot = one.slot
        self._roster.remove(one)
        slot.count_end(one, time.monotonic())
        if not self._booted:
            self._on_failed_boot(slot, status)
            return
        logs.error.error(
            "Worker %d, process %d, %s", slot.number + 1, one.pid, describe_end(one, status)
        )
        if one.ready:
            self._roll()
        elif self._watcher is not None:
            self._await_change(slot)
        elif one.generation is self._next or self._rolling:
            self._on_failed_successor()

    def _on_failed_boot(self, slot: Slot, status: int) -> None:
        """Nothing has ever worked: trying again would not help, unless somebody mends the code."""
        if self._watcher is not None:
            self._await_change(slot)
            return
        if status < 0:
            self._status = 128 - status
        else:
            self._status = USAGE if status == USAGE else LIFESPAN_FAILED
        self._stops = 3

    def _await_change(self, slot: Slot) -> None:
        slot.backoff.at = _FOREVER
        logs.error.warning("Waiting for a file to change")

    def _on_failed_successor(self) -> None:
        if self._next is not None:
            self._give_up_reload("a new worker could not start; the old ones go on")
        else:
            self._rolling.clear()

    # --- times ---

    def _look_at_the_clock(self, now: float) -> None:
        if now >= self._watchdog_at and self._watchdog is not None:
            notify.alive()
            self._watchdog_at = now + self._watchdog
        self._roster.end_overdue(now)
        if not self._stops:
            self._fill()

    def _time_left(self) -> float | None:
        """Seconds until the next time that matters; None: only an event can matter."""
        times = [self._watchdog_at, *self._roster.times()]
        if not self._stops and self._generation is not None:
            if self._generation.is_importing():
                if self._generation.nursery is None:
                    times.append(self._generation.backoff.at)
            else:
                times += [slot.backoff.at for slot in self._open_slots()]
        first = min(times)
        return None if first == _FOREVER else max(0.0, first - time.monotonic())


_NO_UPGRADE = "SIGUSR2 is not supported: SIGHUP loads new code; for a new Python, see docs/decisions/upgrade.md"
