"""``Server`` and ``run``: the steps from a configuration to serving, and back."""

import inspect
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec

from . import banner, importer, interface, logs, sockets, watch
from ._version import __version__
from .config import Config
from .errors import USAGE, StartError
from .interface import TITLES, Interface
from .process import Process
from .service import Service
from .sockets import Listeners
from .stop import WORKER_SIGNALS, Interrupted, Level, StopRequest

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Application:
    """What is served."""

    app: Any
    name: str
    interface: Interface


def load(config: Config) -> Application:
    """Imports the application that ``config`` names, or makes it. Raises StartError."""
    if config.env_file is not None:
        importer.load_env_file(config.env_file)
    if config.app is None or isinstance(config.app, str):
        app, name = importer.load(config.app, config.app_dir)
    else:
        app, name = config.app, _name(config.app)
    if config.factory:
        app = importer.call_factory(app, name)
    elif interface.is_factory(app):
        logs.error.warning("%s is a factory, and was called; say so with --factory.", name)
        app = importer.call_factory(app, name)
    importer.check_callable(app, name)
    found, warning = interface.resolve(app, config.interface, name)
    if warning:
        logs.error.warning("%s", warning)
    if config.threads and found != "wsgi":
        raise StartError(
            f"--threads: is for WSGI applications; {name} is {TITLES[found]}.", exit_code=USAGE
        )
    return Application(app, name, found)


def check_files(config: Config) -> None:
    """Raises StartError for what can be seen without binding anything or running the application:
    files and folders that are missing or cannot be read, libraries that are not installed.
    """
    if config.env_file is not None:
        importer.check_env_file(config.env_file)
    if isinstance(config.log_config, str):
        importer.check_readable("--log-config", config.log_config)
    importer.check_folder(config.app_dir)
    if config.reload:
        watch.check(config)


def check(config: Config) -> Application:
    """Everything up to the application's import that binds nothing. Raises StartError."""
    check_files(config)
    logs.configure(config)
    _check_core()
    return load(config)


class Server:
    """One server, to be run once.

    ``run()`` blocks, and is for programs that do nothing else. ``await serve()`` serves inside of a
    running asyncio loop, beside whatever else runs there. Both bind the sockets, import the
    application, let it start up and only then listen. In the main thread they stop at SIGINT and
    SIGTERM: running requests end, at most ``timeout_graceful_shutdown`` seconds later they are cut;
    a second signal cuts them at once; a third ends the process.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._stop = StopRequest()
        self._listeners: Listeners | None = None
        self._used = False
        self._started = False
        self._service = Service()
        self._application: Application | None = None  # imported before the start
        self._announced: int | None = None  # number of workers; None: this is no worker

    @property
    def started(self) -> bool:
        """Clients can connect, or could until the server began to stop."""
        return self._started

    @property
    def should_exit(self) -> bool:
        """The server is to stop. Set it to True, from any thread, to stop the server as SIGTERM
        does.
        """
        return self._stop.level > Level.RUN

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._stop.ask(Level.DRAIN)
        elif self.should_exit:
            raise ValueError("a server that is stopping cannot be told to go on")

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets, empty when the server does not run."""
        return list(self._listeners.sockets) if self._listeners is not None else []

    @property
    def port(self) -> int | None:
        """The TCP port, chosen by the kernel for port 0; None without one."""
        for sock in self.sockets:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                port: int = sock.getsockname()[1]
                return port
        return None

    def run(self) -> None:
        """Serves until it is stopped.

        Raises StartError when the server cannot start, ``Interrupted`` (a KeyboardInterrupt) when a
        signal stopped it before it had started.
        """
        self._run(lambda: sockets.bind(self.config), Service())

    def run_alone(self, process: Process) -> None:
        """The same as the only server of this process, which has a user, a pid file and a service
        manager."""
        with _reopening_logs():
            self._run(lambda: process.bind(self.config), process.service(), process)

    def work(
        self, listeners: Listeners, service: Service, application: Application | None, announce: int
    ) -> None:
        """The same as one of several workers: on sockets that are bound, perhaps with an application
        that is imported already. ``announce``: the number of workers, for the banner; 0: none.
        """
        self._stop = StopRequest(WORKER_SIGNALS)
        self._application, self._announced = application, announce
        self._run(lambda: listeners, service)

    def _run(
        self, bind: Callable[[], Listeners], service: Service, process: Process | None = None
    ) -> None:
        self._service = service
        with self._stop.on_signals():
            application = self._prepare(bind, process)
            try:
                if application.interface == "wsgi":
                    self._run_wsgi(application)
                else:
                    self._run_asgi(application)
            finally:
                self._end()
            if not self._started and self._stop.number:
                raise Interrupted(self._stop.number)

    async def serve(self) -> None:
        """Serves an ASGI application in the running asyncio loop until it is stopped or cancelled.

        Signals for which the program has set handlers are left to it. Raises StartError when the
        server cannot start, also for a WSGI application: that has no loop, use ``run()``.
        """
        with self._stop.on_signals(keep_set=True):
            application = self._prepare(lambda: sockets.bind(self.config))
            try:
                if application.interface == "wsgi":
                    raise StartError(
                        f"{application.name} is a WSGI application, which is served without "
                        "asyncio. Use Server.run()."
                    )
                await self._serve_asgi(application)
            finally:
                self._end()

    # --- the steps ---

    def _prepare(
        self, bind: Callable[[], Listeners], process: Process | None = None
    ) -> Application:
        """Everything up to the application's start-up. Cheap checks come before the import."""
        if self._used:
            raise RuntimeError("a Server runs once; make another one")
        self._used = True
        check_files(self.config)
        logs.configure(self.config)
        _check_core()
        self._listeners = bind()
        try:
            if process is not None:
                process.drop_privileges()
            return self._application or load(self.config)
        except BaseException:
            self._end()
            raise

    def _run_wsgi(self, application: Application) -> None:
        from . import serve_wsgi  # noqa: PLC0415 (the core, and only what this mode needs)

        assert self._listeners is not None
        serve_wsgi.serve(
            application.app,
            self.config,
            self._listeners,
            self._stop,
            self._service.preceded_by(lambda: self._announce(application, None)),
        )

    def _run_asgi(self, application: Application) -> None:
        # asyncio stays out of a process that serves WSGI.
        import asyncio  # noqa: PLC0415

        from .loops import loop_factory  # noqa: PLC0415

        async def wait(task: asyncio.Task[None]) -> None:
            await asyncio.shield(task)

        with asyncio.Runner(loop_factory=loop_factory(self.config.loop)) as runner:
            serving = runner.get_loop().create_task(self._serve_asgi(application))
            try:
                runner.run(wait(serving))
            except (SystemExit, KeyboardInterrupt):
                # The application ended the program, which stops the loop in mid-air: go on, in order.
                self._stop.ask(Level.DRAIN)
                runner.run(wait(serving))
                raise

    async def _serve_asgi(self, application: Application) -> None:
        import asyncio  # noqa: PLC0415

        from . import serve_asgi  # noqa: PLC0415
        from .loops import loop_name  # noqa: PLC0415
        from .trace import trace  # noqa: PLC0415

        assert self._listeners is not None
        app = application.app
        if application.interface == "asgi2":
            app = interface.adapt_asgi2(app)
        if logs.error.isEnabledFor(logs.TRACE):
            app = trace(app)
        loop = loop_name(asyncio.get_running_loop())
        await serve_asgi.serve(
            app,
            self.config,
            self._listeners,
            self._stop,
            self._service.preceded_by(lambda: self._announce(application, loop)),
        )

    def _announce(self, application: Application, loop: str | None) -> None:
        self._started = True
        if self._announced == 0:
            return
        for line in banner.lines(
            version=__version__,
            app=application.name,
            interface=TITLES[application.interface],
            loop=loop,
            sockets=self.sockets,
            workers=self._announced,
        ):
            logs.say(self.config, "%s", line)

    def _end(self) -> None:
        if self._listeners is not None:
            self._listeners.close()
        if self._started and self._announced is None:
            logs.say(self.config, "Stopped")


def is_supervised(config: Config) -> bool:
    """Whether workers serve, below a process that starts and replaces them. As process 1 there is
    always one, to wait for orphans without taking the application's own children from it.
    """
    limits = (config.limit_max_requests, config.limit_max_age, config.limit_max_rss)
    several = config.workers != 1 or config.preload or config.reload
    return several or any(limits) or os.getpid() == 1


@contextmanager
def _reopening_logs() -> Iterator[None]:
    """Within, SIGUSR1 opens log files again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, lambda *_: logs.reopen())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _check_core() -> None:
    """Raises StartError where the C core is not built, or not for this Python."""
    try:
        from . import _core  # noqa: F401, PLC0415
    except ImportError as error:
        raise StartError(
            f"The C core of asgiserver cannot be loaded ({error}). Install asgiserver again."
        ) from None


def _name(app: Any) -> str:
    """What to call an application that was not imported by name."""
    kind = app if hasattr(app, "__qualname__") else type(app)
    return f"{kind.__module__}:{kind.__qualname__}"


def _with_parameters_of(
    config: Callable[P, Config],
) -> Callable[[Callable[..., None]], Callable[P, None]]:
    """Gives a function the parameters of ``Config``, for type checkers and for ``help()``."""

    def decorate(function: Callable[..., None]) -> Callable[P, None]:
        signature = inspect.signature(config)
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            return_annotation=None
        )
        return function

    return decorate


@_with_parameters_of(Config)
def run(*args: Any, **options: Any) -> None:
    """Serves an application until SIGINT or SIGTERM: ``run(app, port=9000)``.

    Takes what ``Config`` takes: an application or where to import it from, and settings. What
    prevents a start is logged, and ends the program with SystemExit: 1, or 3 when the application's
    start-up failed. Raises TypeError or ValueError for wrong settings.
    """
    status = run_config(Config(*args, **options))
    if status:
        raise SystemExit(status)


def run_config(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Serves until it is stopped; the exit status. What went wrong has been logged.

    ``reread`` makes a new configuration when the server is told to reload, and raises StartError
    for a bad one; None: the configuration stays.
    """
    try:
        check_files(config)
        with Process(config) as process:
            if is_supervised(config):
                from .supervisor import Supervisor  # noqa: PLC0415 (which needs this module)

                return Supervisor(config, process, reread or (lambda: config)).run()
            Server(config).run_alone(process)
    except StartError as problem:
        logs.report(problem)
        return problem.exit_code
    except Interrupted as interrupted:
        return interrupted.exit_code
    return 0
