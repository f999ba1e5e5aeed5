"""The worker classes. They are made in gunicorn's master, before the fork, and live in a child."""

import asyncio
import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from mmap import PAGESIZE, mmap
from types import FrameType
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.util import make_fail_app
from gunicorn.workers.base import Worker

from .. import _core, importer, interface, logs, loops, serve_asgi, serve_wsgi, tls
from ..errors import StartError
from ..interface import Receive, Scope, Send
from ..service import Service
from ..sockets import Listeners
from ..stop import Level, StopRequest
from . import requests
from .settings import Interface, Refused, Settings, WorkerConfig, to_config

_SECOND = 1.0
_IDLE = (1.0, 2.0)  # least and most seconds for a request under way to an old worker
# Made by the master: workers, and those that come after them, take up each other's sessions.
_TICKET_KEY = tls.new_ticket_key()
# Likewise: workers see who has how many connections.
_SHARES = mmap(-1, PAGESIZE)
_FLUSH = 0.1  # seconds for other threads, behind worker_int: gunicorn's


class _Stop(StopRequest):
    """The stop request of a worker: what a signal means is the worker's affair."""

    def __init__(self, handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], None]]):
        super().__init__(tuple(handlers))
        self._handlers = handlers

    @property
    def heard(self) -> bool:
        """The server runs, and acts on what is asked."""
        return self._listener is not None

    def cut(self, frame: FrameType | None) -> None:
        """From a signal's handler."""
        self._raise(Level.CUT, frame)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._cut_asked:
            super()._on_signal(number, frame)
        else:
            self._handlers[signal.Signals(number)](number, frame)


class _Inherited(Listeners):
    """The master's sockets, which listen already."""

    def __init__(self, sockets: list[Any]) -> None:
        super().__init__([])
        self._inherited: list[socket.socket] = [one.sock for one in sockets]

    @property
    def sockets(self) -> list[socket.socket]:
        return [sock for sock in self._inherited if sock.fileno() >= 0]

    def stop(self) -> None:
        for sock in self._inherited:
            sock.close()

    def listen(self, backlog: int) -> None:
        pass


class _ToGunicorn(logging.Handler):
    """Hands our messages to gunicorn's logger, by its methods: a logger class may have its own."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower() if record.levelno >= logging.DEBUG else "debug"
        getattr(self._log, level)("%s", record.getMessage(), exc_info=record.exc_info)


class _Worker(Worker):
    """What both have in common.

    ``CONFIG_KWARGS`` of a subclass are options of ``asgiserver.Config``, which win over what
    gunicorn's settings say.
    """

    interface: ClassVar[Interface]
    CONFIG_KWARGS: ClassVar[Mapping[str, Any]] = {}
    _certificates: ClassVar[tls.Certificates | None] = None  # the last good ones

    # --- in the master ---

    @classmethod
    def check_config(cls, cfg: Settings, log: Any) -> None:
        """At start, before any worker is made. RuntimeError is gunicorn's way to end in a line."""
        try:
            cls._load_certificates(to_config(cfg, cls.interface, cls.CONFIG_KWARGS))
        except (Refused, StartError) as problem:
            raise RuntimeError(str(problem)) from None

    @classmethod
    def _load_certificates(cls, config: WorkerConfig) -> tls.Certificates | None:
        """From the files as they are now, which only the master may be allowed to read. Raises
        StartError."""
        _Worker._certificates = tls.load(config, _TICKET_KEY)
        return _Worker._certificates

    def __init__(
        self, age: int, ppid: int, sockets: Any, app: Any, timeout: float, cfg: Settings, log: Any
    ) -> None:
        try:
            self.config = to_config(cfg, self.interface, self.CONFIG_KWARGS)
        except Refused as problem:  # The configuration was read again, and has changed.
            raise HaltServer(str(problem), 1) from None
        self.certificates = self._newest_certificates(log)
        self._stop = _Stop(
            {
                signal.SIGINT: self.handle_quit,
                signal.SIGQUIT: self.handle_quit,
                signal.SIGUSR1: self.handle_usr1,
                signal.SIGWINCH: self.handle_winch,
                signal.SIGTERM: self.handle_exit,
            }
        )
        self._core: _core.Server | None = None
        self._seen = 0
        super().__init__(age, ppid, sockets, app, timeout, cfg, log)

    def _newest_certificates(self, log: Any) -> tls.Certificates | None:
        """Bad files do not end a master whose workers serve: the last good ones are used on."""
        last = _Worker._certificates
        try:
            return self._load_certificates(self.config)
        except StartError as problem:
            if last is None:
                raise HaltServer(str(problem), 1) from None
            log.error("The certificates stay as they were: %s", problem)
            return last

    # --- what gunicorn's base class and hooks look at ---

    @property
    def alive(self) -> bool:
        return self._stop.level == Level.RUN

    @alive.setter
    def alive(self, value: bool) -> None:
        """False, from any thread, and be it the reloader's: the worker ends, losing no request."""
        if not value:
            self._stop.ask(Level.RETIRE)

    @property
    def nr(self) -> int:
        """Requests so far."""
        return self._core.requests_total if self._core is not None else self._seen

    @nr.setter
    def nr(self, value: int) -> None:
        """gunicorn's base class sets it to 0; it is the core that counts."""

    # --- in the worker ---

    def init_signals(self) -> None:
        faulthandler.disable()  # Its handlers would be lost, and not made again.
        super().init_signals()
        self._watch_faults()

    def _watch_faults(self) -> None:
        """SIGABRT is how the master ends a worker that hangs: where? The answer comes from the
        signal's C handler, which is heard also when Python is not.
        """
        with contextlib.suppress(OSError, ValueError):  # A log that is no file.
            faulthandler.enable(_error_stream(self.log), all_threads=True)

    def load_wsgi(self) -> None:
        try:
            self.wsgi = self._checked(self.app.wsgi())
        except StartError as problem:
            self._fail(problem)
        except SyntaxError as problem:
            if not self.cfg.reload:
                raise
            self.log.exception("%s", problem)
            if self.reloader is not None and problem.filename is not None:
                self.reloader.add_extra_file(problem.filename)
            self.wsgi = self._page("".join(traceback.format_exception(problem)))

    def _page(self, text: str) -> Any:
        """An application that shows why there is none."""
        raise NotImplementedError

    def _checked(self, app: Any) -> Any:
        """The application, in the form that the core calls. Raises StartError."""
        name = str(self.cfg.settings["default_proc_name"].get())
        if self.config.factory:
            app = importer.call_factory(app, name)
        found, _ = interface.resolve(app, self.config.interface, name)
        if (found == "wsgi") != (self.interface == "wsgi"):
            right = "WSGIWorker" if found == "wsgi" else "ASGIWorker"
            raise StartError(
                f"{name} is an {interface.TITLES[found]} application: "
                f"use asgiserver.gunicorn.{right}."
            )
        return interface.adapt_asgi2(app) if found == "asgi2" else app

    def _fail(self, problem: StartError) -> None:
        """Ends the worker, and with it the master: trying again would not help."""
        self.log.error("%s", problem, exc_info=problem.cause)
        raise SystemExit(Arbiter.WORKER_BOOT_ERROR)

    def run(self) -> None:
        self._set_up_logging()
        try:
            with self._stop.on_signals():
                self._serve(_Inherited(self.sockets), self._service())
        except StartError as problem:
            self._fail(problem)

    def _set_up_logging(self) -> None:
        """Access lines by the core, where it can; all else through gunicorn's logger."""
        for name, value in requests.core_access_log(self.cfg, self.log).items():
            setattr(self.config, name, value)
        logs.configure(self.config)
        logger = logging.getLogger("asgiserver")
        logger.handlers = [_ToGunicorn(self.log)]
        logger.setLevel(self.log.error_log.level)

    def _serve(self, listeners: Listeners, service: Service) -> None:
        raise NotImplementedError

    def _service(self) -> Service:
        return Service(
            started=self._tick,
            tick=self._tick,
            # gunicorn's `timeout` here is half of the setting's.
            interval=max(min(_SECOND, self.timeout / 2), 0.1) if self.timeout else _SECOND,
            max_requests=self.max_requests if self.max_requests < sys.maxsize else 0,
            exhausted=self._exhausted,
            opened=self._opened,
            closing=self._closing,
            idle=min(max(self.config.timeout_keep_alive, _IDLE[0]), _IDLE[1]),
        )

    def _opened(self, core: _core.Server) -> None:
        self._core = core
        core.balance(_SHARES)

    def _closing(self, core: _core.Server) -> None:
        self._core, self._seen = None, core.requests_total

    def _tick(self) -> None:
        self.notify()
        if self.alive and self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def _exhausted(self) -> None:
        if self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    # --- signals ---

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        self.cfg.worker_int(self)
        if self._stop.heard:
            self._stop.cut(frame)
            return
        time.sleep(_FLUSH)
        raise SystemExit(0)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        self.aborted = True
        self.cfg.worker_abort(self)
        raise SystemExit(1)

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        super().handle_usr1(sig, frame)
        logs.reopen()
        self._watch_faults()


def _leave(*_kept: object) -> None:
    """Ends the process of an aborted worker, once gunicorn's hooks have run. What its loop was at is
    kept until then: it could only be taken apart by running it.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(1)


def _error_stream(log: Any) -> Any:
    """The stream of the error log, if it has one."""
    for handler in log.error_log.handlers:
        if isinstance(handler, logging.StreamHandler):
            return handler.stream
    return sys.stderr


class WSGIWorker(_Worker):
    """``gunicorn -k asgiserver.gunicorn.WSGIWorker``, for WSGI applications."""

    interface = "wsgi"

    def _page(self, text: str) -> Any:
        return make_fail_app(text)

    def _serve(self, listeners: Listeners, service: Service) -> None:
        app = requests.adapt_wsgi(self.wsgi, self)
        serve_wsgi.serve(app, self.config, listeners, self._stop, service, self.certificates)


class ASGIWorker(_Worker):
    """``gunicorn -k asgiserver.gunicorn.ASGIWorker``, for ASGI applications."""

    interface = "asgi"

    def _page(self, text: str) -> Any:
        async def page(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                raise NotImplementedError
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 500, "headers": headers})
            await send({"type": "http.response.body", "body": text.encode()})

        return page

    def _serve(self, listeners: Listeners, service: Service) -> None:
        app = requests.adapt_asgi(self.wsgi, self)
        runner = asyncio.Runner(loop_factory=loops.loop_factory(self.config.loop))
        serving = runner.get_loop().create_task(
            serve_asgi.serve(app, self.config, listeners, self._stop, service, self.certificates)
        )

        async def wait() -> None:
            await asyncio.shield(serving)

        try:
            runner.run(wait())
        except SystemExit:
            if self.aborted:
                atexit.register(_leave, runner, serving)
            else:  # The application ended the program: go on, in order.
                self._stop.ask(Level.RETIRE)
                runner.run(wait())
            raise
        loops.close(runner)
