"""Serving a WSGI application: the core's own loop, and no asyncio in the process."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

from . import _core, forks, logs
from .config import Config
from .service import Service
from .sockets import Listeners
from .stop import Level, StopRequest
from .tls import Certificates
from .tracebacks import end_at_handler


class _Cut(SystemExit):
    """Raised in the application's code, to end a request that was cut while it ran."""


class _Stopper:
    """Carries the stop request to the core.

    Without threads the core runs on one, with the application inline: that thread also runs the
    signal handlers, between two steps of the application or in the middle of one. With threads it
    runs nothing else, and the application cannot be interrupted.
    """

    def __init__(
        self,
        core: _core.Server,
        config: Config,
        listeners: Listeners,
        stop: StopRequest,
        service: Service,
    ) -> None:
        self._core, self._config, self._listeners = core, config, listeners
        self._stop, self._service = stop, service
        self._told = False
        self._idle = service.patience(config.timeout_keep_alive)
        self._thread = threading.get_ident()
        self._timer: threading.Timer | None = None
        self.cut = 0
        self.asked = True  # the cut was: by a second signal, not by the time

    def changed(self, level: Level, frame: FrameType | None) -> None:
        if not self._told:
            self._told = True
            self._service.stopping()
        if level == Level.RETIRE:
            self._drain(self._idle)
            return
        if level == Level.DRAIN:
            self._core.set_healthy(False)
            if self._config.shutdown_delay:
                self._later(self._config.shutdown_delay, self._drain)
            else:
                self._drain()
            return
        self.cut += self._core.abort()
        self._core.stop()
        if frame is not None and not self._config.threads and _is_in_application(frame):
            raise _Cut("the server is stopping")

    def _drain(self, idle: float | None = None) -> None:
        if self._config.threads:
            self._later(0, self._wait)
        else:
            self._later(self._config.grace, self._time_is_over)
        self._core.drain(idle=self._config.last_wait if idle is None else idle)
        self._listeners.stop()

    def _wait(self) -> None:
        """On the timer's thread: a signal may have come in the middle of a line being logged."""
        if requests := self._core.requests:
            logs.say(self._config, "Waiting for running requests: %d (CTRL+C cuts them)", requests)
        self._later(self._config.grace, self._time_is_over)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """On a thread of its own: the serving one may be kept busy by the application."""
        self.cancel()
        self._timer = threading.Timer(seconds, action)
        self._timer.daemon = True
        self._timer.start()

    def _time_is_over(self) -> None:
        """On the timer's thread. The serving one must hear of it, also inside the application."""
        self.asked = False
        # Handlers run on the main thread, which need not be the one that serves.
        if self._stop.taken and self._thread == threading.main_thread().ident:
            self._stop.interrupt(self._thread)
        else:
            self._stop.ask(Level.CUT)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Nothing is left of the timer."""
        while (timer := self._timer) is not None:
            self._timer = None
            timer.cancel()
            with suppress(RuntimeError):  # A second signal came while the first one's started it.
                timer.join()  # It may set the next one.


def _log(level: str, message: str, exception: BaseException | None) -> None:
    if isinstance(exception, _Cut):  # The traceback shows what kept the request.
        level, message = "warning", f"Cut while it ran: {message}"
        exception = end_at_handler(exception)
    logs.log_from_core(level, message, exception)


def _is_in_application(frame: FrameType) -> bool:
    """A signal interrupted the application, rather than the core's wait or a line being logged, out of
    which no exception would come."""
    here: FrameType | None = frame
    depth = 0
    while here is not None and here.f_code is not serve.__code__:
        name = str(here.f_globals.get("__name__"))
        if name == logging.__name__ or name.startswith(logs.__name__):
            return False
        if here.f_code is _log.__code__:
            return False
        here = here.f_back
        depth += 1
    return here is not None and depth > 0


@contextmanager
def _woken_by_signals(core: _core.Server) -> Iterator[None]:
    """A signal ends the core's wait, also one that comes just before it begins."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.set_wakeup_fd(core.wakeup_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)


def serve(
    app: Any,
    config: Config,
    listeners: Listeners,
    stop: StopRequest,
    service: Service,
    certificates: Certificates | None = None,
) -> None:
    """Serves until ``stop`` is asked for; with ``certificates`` over TLS.

    Raises StartError.
    """
    make = partial(
        _core.Server,
        app,
        interface="wsgi",
        limits=config.core_limits(),
        headers=config.core_headers(),
        root_path=config.root_path,
        on_error=_log,
        health_path=config.health_path,
        multiprocess=config.workers != 1,
        proxy=config.core_proxy(),
        threads=config.threads,
    )
    core = logs.attach(config, make)
    stopper = _Stopper(core, config, listeners, stop, service)
    service.opened(core)
    try:
        listeners.listen(config.backlog)
        for sock in listeners.sockets:
            core.listen(sock.fileno(), certificates.context if certificates else None)
        with forks.let_go(core), stop.heard_by(stopper.changed), _woken_by_signals(core):
            core.call_at(service.max_requests, service.exhausted)
            service.started()
            core.run(service.tick, service.interval)
    except _Cut:
        pass
    finally:
        stopper.close()
        logs.log_cut(stopper.cut, config.grace, asked=stopper.asked)
        service.closing(core)
        core.close()
