"""Signals as events of a loop that takes one thing after the other."""

import os
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import stop

_SIGNALS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
)  # fmt: skip


class SignalQueue:
    """Those that a supervisor takes. Its descriptor is readable when there are some."""

    def __init__(self) -> None:
        self._numbers: deque[int] = deque()
        self._handlers: dict[int, Any] = {}  # those before ours
        self._pid = os.getpid()
        self._wakeup: tuple[int, int] = (-1, -1)

    def open(self) -> None:
        """From now on signals come here."""
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._handlers[number] = signal.getsignal(number)
            signal.signal(number, lambda number, _frame: self._numbers.append(number))

    def fileno(self) -> int:
        return self._wakeup[0]

    def clear(self) -> None:
        """It has woken who waited for it."""
        os.read(self._wakeup[0], 4096)

    def take(self) -> Iterator[int]:
        """Those that have come, and those that come meanwhile."""
        while self._numbers:
            yield self._numbers.popleft()

    def close(self) -> None:
        """Puts the handlers back; in a process that was forked, the defaults."""
        if self._wakeup[0] < 0:
            return
        signal.set_wakeup_fd(-1)
        for end in self._wakeup:
            os.close(end)
        if os.getpid() == self._pid:
            stop.restore(self._handlers)
        else:
            stop.restore(dict.fromkeys(self._handlers, signal.SIG_DFL))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextmanager
def signals_held() -> Iterator[None]:
    """A process that is forked within gets signals when it has its own handlers."""
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        if os.getpid() == parent:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
