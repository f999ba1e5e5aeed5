"""Asking a server to stop: from a signal, from another thread, or by ``Server.should_exit``.

The first SIGINT or SIGTERM drains: no new connections, running requests end. The second cuts what
still runs, and so does the first SIGQUIT. Both let the application shut down in order. A third
signal ends the process on the spot. A worker retires at SIGHUP, since another one serves already.
"""

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
WORKER_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


class Level(IntEnum):
    """How urgently. RETIRE: another process goes on serving here, so no request under way may be
    lost; DRAIN: nobody does, so idle connections close at once; CUT: running requests are cut.
    """

    RUN = 0
    RETIRE = 1
    DRAIN = 2
    CUT = 3


class Interrupted(KeyboardInterrupt):
    """A signal came before there was anything to drain. ``exit_code`` is the shell's for it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.exit_code = 128 + number


_CUT = 2  # signals that cut: one drains, three end the process

# Called on every change, with the frame that was interrupted where a signal caused it.
Listener = Callable[[Level, FrameType | None], None]


class StopRequest:
    """How urgently the server is to stop, and who must hear of it."""

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self.level = Level.RUN
        self._signals_wanted = signals
        self.number = 0  # of the last signal
        self.taken: list[signal.Signals] = []  # signals whose handler this object is
        self._listener: Listener | None = None
        self._interrupting = True  # as long as nobody listens
        self._cut_asked = False
        self._seen: set[int] = set()  # signals whose handler has been called
        # A signal's handler can be interrupted by the next signal's at any point: they are counted
        # in one step of the interpreter, or two that come together might pass for one.
        self._signals = itertools.count(1)
        self._head_start = 0  # signals that the program's own request stands for

    def ask(self, level: Level) -> None:
        """The program's own request, from any thread. A lower level than the present one changes
        nothing; the next signal asks for the level above."""
        self._head_start = max(self._head_start, level - Level.RETIRE)
        self._raise(level, None)

    def _raise(self, level: Level, frame: FrameType | None) -> None:
        if level > self.level:
            self.level = level
            if self._listener is not None:
                self._listener(level, frame)

    def remember(self) -> None:
        """From now on signals wait for a listener: where an event loop runs, an exception out of
        nowhere would end in one task or another."""
        self._interrupting = False

    @contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """Within, signals are requests; outside, while the server only starts, they interrupt.

        The listener is told at once what was asked before.
        """
        self._listener = listener
        if self.level > Level.RUN:
            listener(self.level, None)
        try:
            yield
        finally:
            self._listener = None

    @contextmanager
    def on_signals(self, *, keep_set: bool = False) -> Iterator[None]:
        """SIGINT and SIGTERM ask this object to stop. Outside of the main thread this does nothing.

        ``keep_set`` leaves a signal alone that the program has a handler of its own for.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in self._signals_wanted}
        self.taken = [n for n in before if not (keep_set and _is_own_handler(before[n]))]
        try:
            with _swallowing_in_silence():
                self.install()
                yield
        finally:
            restore({number: before[number] for number in self.taken})
            self.taken = []

    def install(self) -> None:
        """Sets the handlers; again, where an event loop put its own over them."""
        for number in self.taken:
            signal.signal(number, self._on_signal)

    def overlooked(self, number: int) -> None:
        """From an event loop that has been woken by a signal: another handler may have been in the
        place of ours just then."""
        if number not in self._seen:
            self._on_signal(number, None)

    def interrupt(self, thread: int) -> None:
        """From another thread: asks for the cut inside of ``thread``, where the handlers run."""
        self._cut_asked = True
        signal.pthread_kill(thread, self.taken[-1])

    def _interrupts(self) -> bool:
        return self._interrupting and self._listener is None and self.level == Level.RUN

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._seen.add(number)
        if self._cut_asked:  # not somebody's signal, but ours
            self._cut_asked = False
            self._head_start = _CUT
            self._raise(Level.CUT, frame)
            return
        if number == signal.SIGHUP and not self._interrupts():
            self._raise(Level.RETIRE, frame)
            return
        self.number = number
        if number == signal.SIGQUIT and self.level < Level.CUT:
            # Not counted: a SIGTERM that came before may have its handler called behind this one's.
            wanted = _CUT
        else:
            wanted = next(self._signals) + self._head_start
            wanted += _CUT if number == signal.SIGQUIT else 0
        if wanted > _CUT:
            # The interrupted code may be inside a lock of logging or of a stream: write past them.
            os.write(2, b"Stopped at once, as asked for the third time.\n")
            os._exit(128 + number)
        interrupts = self._interrupts()
        self._raise(Level.CUT if wanted == _CUT else Level.DRAIN, frame)
        if interrupts:
            # Within a weak reference's callback or a __del__ it comes to nothing: the level stays.
            raise Interrupted(number)


@contextmanager
def _swallowing_in_silence() -> Iterator[None]:
    """Within a weak reference's callback or a __del__, as of an import, Interrupted comes to nothing, which Python
    says. The server knows what was asked for, and ends."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Interrupted):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


def end_process(number: int, _frame: FrameType | None = None) -> None:
    """The handler of a process that is there for the server alone, before the server's own: what the system does
    without one. An exception can be swallowed on its way, as from a callback within an import."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def restore(handlers: Mapping[int, Any]) -> None:
    """Puts back the handlers that were there before the server's. Where that is ``end_process`` the
    process ends now anyway: one more signal is not to make a stop in order look like a death."""
    for number, handler in handlers.items():
        if handler is end_process:
            handler = _ignore_once  # noqa: PLW2901
        # None: not set from Python, which thus cannot restore it.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _ignore_once(number: int, _frame: FrameType | None) -> None:
    """What still runs are the application's ``atexit`` functions, which may hang."""
    signal.signal(number, signal.SIG_DFL)


def ignore_signals() -> None:
    """When nothing but the interpreter's own end is left: it takes handlers off, and a process that
    has ended in order would be killed there by one more signal."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _is_own_handler(handler: object) -> bool:
    """Somebody set it: not Python's default, nor that by which asyncio.run cancels its task."""
    defaults = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, end_process, None)
    if handler in defaults:
        return False
    return getattr(getattr(handler, "func", None), "__name__", "") != "_on_sigint"
