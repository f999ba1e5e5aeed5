"""``run``: a process that serves, from its configuration to its exit status."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import logs, stop
from .checks import check_files
from .config import Config
from .process import Process, exit_status
from .serving import Serving, refuse_in_a_loop
from .signatures import settings_of

if TYPE_CHECKING:
    from . import _core


@settings_of(Config)
def run(*args: Any, **options: Any) -> None:
    """Serves an application until SIGINT or SIGTERM: ``run(app, port=9000)``.

    Takes what ``Config`` takes: an application or where to import it from, and settings. What
    prevents a start is logged, and ends the program with SystemExit: 1, or 3 when the application's
    start-up failed. Raises TypeError or ValueError for wrong settings.
    """
    run_in_program(Config(*args, **options))


def run_in_program(config: Config) -> None:
    """``run_config`` for a program that goes on: SystemExit for any status but 0."""
    refuse_in_a_loop()
    with logs.hold:
        status = run_config(config)
    if status:
        raise SystemExit(status)


def run_config(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Serves until it is stopped; the exit status. What went wrong has been logged.

    ``reread`` makes a new configuration when the server is told to reload, and raises StartError
    for a bad one; None: the configuration stays.
    """

    def serve() -> int:
        check_files(config)
        with Process(config) as process:
            if is_supervised(config):
                from .supervisor import Supervisor  # noqa: PLC0415 (where there are several)

                return Supervisor(config, process, reread or (lambda: config)).run()
            _run_alone(config, process)
        return 0

    return exit_status(serve)


def is_supervised(config: Config) -> bool:
    """Whether workers serve, below a process that starts and replaces them. As process 1 there is
    always one, to wait for orphans without taking the application's own children from it.
    """
    limits = (config.limit_max_requests, config.limit_max_age, config.limit_max_rss)
    several = config.workers != 1 or config.preload or config.reload
    return several or any(limits) or os.getpid() == 1


def _run_alone(config: Config, process: Process) -> None:
    """As the only server of this process, which has a user, a pid file and a service manager."""
    serving = Serving(config)
    renewal = _Renewal(serving)
    with _on_signal(signal.SIGUSR1, logs.reopen), renewal.on_hangup():
        service = replace(
            process.service(), opened=renewal.hold, closing=lambda _: renewal.hold(None)
        )
        serving.run(lambda: process.bind(config), service, process)


class _Renewal:
    """Has the certificates read again at SIGHUP, where the server is alone in its process."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._core: _core.Server | None = None  # while it serves

    @contextmanager
    def on_hangup(self) -> Iterator[None]:
        """Within, SIGHUP has the certificates read again, where there are any."""
        if self._serving.config.ssl_certfile is None:
            yield
            return
        with _on_signal(signal.SIGHUP, self._renew_aside):
            yield

    def hold(self, core: "_core.Server | None") -> None:
        self._core = core

    def _renew_aside(self) -> None:
        """On a thread: the serving one is not kept waiting, nor interrupted within a log's lock."""
        threading.Thread(target=self._renew, name="asgiserver certificates", daemon=True).start()

    def _renew(self) -> None:
        certificates = self._serving.certificates
        if certificates is None or not certificates.refresh():
            return
        core = self._core
        if core is not None:
            core.set_tls(certificates.context)
        certificates.warn()
        logs.error.info("The certificates were read again")


@contextmanager
def _on_signal(number: signal.Signals, action: Callable[[], None]) -> Iterator[None]:
    """Within, the signal does that; outside of the main thread nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, lambda *_: action())
    try:
        yield
    finally:
        stop.restore({number: before})
