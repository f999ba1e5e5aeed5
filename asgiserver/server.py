"""``Server`` and ``run``: the steps from a configuration to serving, and back."""

import inspect
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, overload

from . import banner, importer, interface, logs, options, sockets, tls, watch
from ._version import __version__
from .config import Config
from .errors import USAGE, StartError
from .interface import TITLES, Interface
from .process import Process
from .service import Service
from .sockets import Listeners
from .stop import WORKER_SIGNALS, Interrupted, Level, StopRequest
from .tls import Certificates

if TYPE_CHECKING:
    from . import _core
    from .in_loop import InLoop
    from .in_thread import InThread

P = ParamSpec("P")

# Seconds beyond the grace time: for the server to cut by itself, and for a WSGI application that
# was cut to return.
_MARGIN, _OVERTIME = 1.0, 10.0

_BLOCKS = (
    "run() blocks, and an asyncio loop runs in this thread: use `await server.serve()` or "
    "`async with server:` here"
)

# Settings of processes, which a server inside of somebody's program does not start, stop or change.
_OF_PROCESSES = (
    "workers", "preload", "reload", "pid", "user", "group", "umask", "limit_max_age",
    "limit_max_rss",
)  # fmt: skip


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
    tls.load(config, tls.new_ticket_key())
    return load(config)


def settings_of(
    config: Callable[P, object],
) -> Callable[[Callable[..., None]], Callable[P, None]]:
    """Gives a function the parameters of a configuration, for type checkers and ``help()``."""

    def decorate(function: Callable[..., None]) -> Callable[P, None]:
        signature = inspect.signature(config).replace(return_annotation=None)
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return decorate


def _made_with(
    _config: Callable[P, Config],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """The same for a method."""
    return lambda method: method


class Server:
    """One server, to be run once: ``Server(Config(app, port=0))``, or ``Server(app, port=0)``.

    ``run()`` blocks, and is for programs that do nothing else. ``await serve()``, or ``async with
    server:``, serves inside of a running asyncio loop, beside whatever else runs there; ``with
    server:`` in a thread of its own. All bind the sockets, import the application, let it start up
    and only then listen, and raise StartError when one of these fails.

    A server that is stopped lets running requests end; at most ``timeout_graceful_shutdown`` seconds
    later they are cut. Only ``run()`` handles signals unasked.
    """

    @overload
    def __init__(self, config: Config) -> None: ...
    @overload
    @_made_with(Config)
    def __init__(self, *args: Any, **settings: Any) -> None: ...
    def __init__(self, *args: Any, **settings: Any) -> None:
        config = settings.pop("config", None) if not args else args[0]
        if not isinstance(config, Config):
            config = Config(*args, **settings)
        elif settings or args[1:]:
            raise TypeError("a Config says it all: no application or settings beside it")
        self.config = config
        self._stop = StopRequest()
        self._listeners: Listeners | None = None
        self._used = False
        self._started = False
        self._service = Service()
        self._application: Application | None = None  # imported before the start
        self._certificates: Certificates | None = None
        self._core: _core.Server | None = None  # while it serves, where SIGHUP has a meaning
        self._announced: int | None = None  # number of workers; None: this is no worker
        self._restores_logs = False
        self._loop: InLoop | None = None
        self._thread: InThread | None = None

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
    def force_exit(self) -> bool:
        """Running requests are to be cut. Set it to True, from any thread, to do so."""
        return self._stop.level >= Level.CUT

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        if value:
            self._stop.ask(Level.CUT)
        elif self.force_exit:
            raise ValueError("requests that were cut cannot be taken up again")

    @property
    def thread(self) -> int | None:
        """The identifier of the thread that serves, where the server has one of its own."""
        return self._thread.ident if self._thread is not None else None

    # --- where it is ---

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

    @property
    def urls(self) -> list[str]:
        """Where clients on this machine find the server: ``http://127.0.0.1:8000`` for each socket,
        ``http+unix://%2Frun%2Fapp.sock`` for a Unix one; ``https`` with TLS. Empty when the server
        does not run.
        """
        return [banner.client_url(sock, self._scheme) for sock in self.sockets]

    @property
    def _scheme(self) -> str:
        return "http" if self.config.ssl_certfile is None else "https"

    @property
    def url(self) -> str:
        """The first of ``urls``. Raises RuntimeError when the server does not run."""
        if not self.sockets:
            raise RuntimeError("the server does not run, and is nowhere to be found")
        return self.urls[0]

    # --- all at once ---

    def run(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Serves until it is stopped. In the main thread, SIGINT and SIGTERM stop it: running
        requests end, a second signal (or SIGQUIT) cuts them, a third ends the process.

        ``sockets`` are bound ones to listen on instead of those that the settings name; the server
        closes them in the end. Raises StartError when the server cannot start, ``Interrupted`` (a
        KeyboardInterrupt) when a signal stopped it before it had started.
        """
        if _in_a_loop():
            raise RuntimeError(_BLOCKS)
        bind, service = self._embedded(sockets)
        self._run(bind, service)

    def run_alone(self, process: Process) -> None:
        """The same as the only server of this process, which has a user, a pid file and a service
        manager."""
        with _on_signal(signal.SIGUSR1, logs.reopen), self._hangup_renews():
            service = replace(
                process.service(), opened=self._hold_core, closing=lambda _: self._hold_core(None)
            )
            self._run(lambda: process.bind(self.config), service, process)

    def work(
        self,
        listeners: Listeners,
        service: Service,
        application: Application | None,
        announce: int,
        certificates: Certificates | None,
    ) -> None:
        """The same as one of several workers: on sockets that are bound, perhaps with an application
        that is imported already. ``announce``: the number of workers, for the banner; 0: none.
        """
        self._stop = StopRequest(WORKER_SIGNALS)
        self._application, self._announced = application, announce
        self._certificates = certificates
        self._run(lambda: listeners, service)

    async def serve(
        self, sockets: Sequence[socket.socket] | None = None, *, signals: bool = False
    ) -> None:
        """Serves in the running asyncio loop until it is stopped; a WSGI application in a thread
        beside it.

        Cancelled, as by CTRL+C in ``asyncio.run``, it lets running requests end, and cuts them when
        it is cancelled again. With ``signals``, in the main thread, SIGINT and SIGTERM stop it,
        except those for which the program has set handlers. ``sockets`` is as for ``run``. Raises
        StartError when the server cannot start.
        """
        with self._stop.on_signals(keep_set=True) if signals else nullcontext():
            await self.startup(sockets)
            try:
                await self.wait_closed()
            finally:
                await self.shutdown()

    # --- step by step, in a loop ---

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Returns when clients can connect. ``sockets`` is as for ``run``. Raises StartError.
        Cancelled, it ends what has begun.
        """
        import asyncio  # noqa: PLC0415

        from .in_loop import InLoop  # noqa: PLC0415

        bind, self._service = self._embedded(sockets)
        application = self._prepare(bind)
        if application.interface == "wsgi":
            self._loop = InLoop.thread(self._in_thread(application))
        else:
            self._loop = InLoop.task(lambda started: self._serve_asgi(application, started))
        try:
            await self._loop.wait_ready()
        except asyncio.CancelledError:  # Clients may have come nevertheless: in order.
            with suppress(Exception):
                await self.shutdown()
            raise

    async def wait_closed(self) -> None:
        """Returns when the server has been stopped, by whatever means."""
        if self._loop is not None:
            await self._loop.wait_closed()

    async def shutdown(self, grace: float | None = None) -> None:
        """Stops the server and returns when nothing is left of it. Idempotent.

        Running requests are cut after ``grace`` seconds where that is less than
        ``timeout_graceful_shutdown``, and when this is cancelled. Raises what ended the server
        before, and TimeoutError when a WSGI application that was cut does not return.
        """
        if self._loop is not None:
            await self._loop.shutdown(self._stop, self._patience(grace), self._overtime())

    async def __aenter__(self) -> Self:
        await self.startup()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()

    # --- in a thread ---

    def __enter__(self) -> Self:
        bind, self._service = self._embedded(None)
        thread = self._in_thread(self._prepare(bind))
        try:
            thread.wait_ready()
        except KeyboardInterrupt:
            with suppress(Exception):
                self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None
        self._thread.shutdown(self._stop, self._patience(None), self._overtime())

    # --- the steps ---

    def _prepare(
        self, bind: Callable[[], Listeners], process: Process | None = None
    ) -> Application:
        """Everything up to the application's start-up. Cheap checks come before the import."""
        if self._used:
            raise RuntimeError("a Server runs once; make another one")
        self._used = True
        check_files(self.config)
        if self._restores_logs:
            logs.hold.take()
        try:
            logs.configure(self.config)
            _check_core()
            if self._certificates is None:
                self._certificates = tls.load(self.config, tls.new_ticket_key())
            self._listeners = bind()
            if process is not None:
                process.drop_privileges()
            return self._application or load(self.config)
        except BaseException:
            self._end()
            raise

    def _run(
        self, bind: Callable[[], Listeners], service: Service, process: Process | None = None
    ) -> None:
        self._service = service
        with self._stop.on_signals():
            application = self._prepare(bind, process)
            if self._stop.number:  # swallowed by the application's code
                self._end()
            else:
                self._block(application)
            if not self._started and self._stop.number:
                raise Interrupted(self._stop.number)

    def _block(self, application: Application, *hear: Callable[[], None]) -> None:
        """Serves on this thread. ``hear`` are called when clients can connect."""
        try:
            if application.interface == "wsgi":
                self._run_wsgi(application, *hear)
            else:
                self._run_asgi(application, *hear)
        finally:
            self._end()

    def _run_wsgi(self, application: Application, *hear: Callable[[], None]) -> None:
        from . import serve_wsgi  # noqa: PLC0415 (the core, and only what this mode needs)

        assert self._listeners is not None
        serve_wsgi.serve(
            application.app,
            self.config,
            self._listeners,
            self._stop,
            self._service.followed_by(lambda: self._announce(application, None, *hear)),
            self._certificates,
        )

    def _run_asgi(self, application: Application, *hear: Callable[[], None]) -> None:
        # asyncio stays out of a process that serves WSGI.
        import asyncio  # noqa: PLC0415

        from . import loops  # noqa: PLC0415

        async def wait(task: asyncio.Task[None]) -> None:
            await asyncio.shield(task)

        make_loop = loops.loop_factory(self.config.loop)
        self._stop.remember()
        runner = asyncio.Runner(loop_factory=make_loop)
        serving = runner.get_loop().create_task(self._serve_asgi(application, *hear))
        try:
            runner.run(wait(serving))
        except (SystemExit, KeyboardInterrupt):
            # The application ended the program, which stops the loop in mid-air: go on, in order.
            self._stop.ask(Level.DRAIN)
            runner.run(wait(serving))
            raise
        finally:
            loops.close(runner)

    async def _serve_asgi(self, application: Application, *hear: Callable[[], None]) -> None:
        """Serves in the running loop."""
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
        try:
            await serve_asgi.serve(
                app,
                self.config,
                self._listeners,
                self._stop,
                self._service.followed_by(lambda: self._announce(application, loop, *hear)),
                self._certificates,
            )
        finally:
            self._end()

    def _embedded(
        self, given: Sequence[socket.socket] | None
    ) -> tuple[Callable[[], Listeners], Service]:
        """How a server inside of somebody's program binds, and what it does at its limit of
        requests. Raises ValueError for settings that are not for such a server.
        """
        config = self.config
        for name in _OF_PROCESSES:
            if getattr(config, name) != options.BY_NAME[name].default:
                raise ValueError(f"{name}: is for asgiserver.run(), which starts processes")
        self._restores_logs = True
        service = Service(
            max_requests=config.limit_max_requests, exhausted=lambda: self._stop.ask(Level.DRAIN)
        )
        return lambda: sockets.bind(config) if given is None else sockets.adopt(given), service

    def _in_thread(self, application: Application) -> "InThread":
        from .in_thread import InThread  # noqa: PLC0415

        self._application = application
        self._thread = InThread(lambda started: self._block(application, started))
        return self._thread

    def _patience(self, grace: float | None) -> float:
        """Seconds after which requests are cut if the server has not done so itself."""
        if grace is not None:
            return grace
        return self.config.grace + self.config.shutdown_delay + _MARGIN

    def _overtime(self) -> float | None:
        """Seconds for what was cut to end. An ASGI application's requests are cancelled; its
        shutdown takes the time that it needs.
        """
        wsgi = self._application is not None and self._application.interface == "wsgi"
        return _OVERTIME if wsgi else None

    def _announce(
        self, application: Application, loop: str | None, *hear: Callable[[], None]
    ) -> None:
        self._started = True
        for tell in hear:
            tell()
        if self._announced == 0:
            return
        for line in banner.lines(
            version=__version__,
            app=application.name,
            interface=TITLES[application.interface],
            loop=loop,
            sockets=self.sockets,
            scheme=self._scheme,
            threads=self.config.threads,
            workers=self._announced,
            signals=bool(self._stop.taken),
        ):
            logs.say(self.config, "%s", line)

    @contextmanager
    def _hangup_renews(self) -> Iterator[None]:
        """Within, SIGHUP has the certificates read again, where there are any."""
        if self.config.ssl_certfile is None:
            yield
            return
        with _on_signal(signal.SIGHUP, self._renew_aside):
            yield

    def _hold_core(self, core: "_core.Server | None") -> None:
        self._core = core

    def _renew_aside(self) -> None:
        """On a thread: the serving one is not kept waiting, nor interrupted within a log's lock."""
        threading.Thread(target=self._renew, name="asgiserver certificates", daemon=True).start()

    def _renew(self) -> None:
        if self._certificates is None or not self._certificates.refresh():
            return
        core = self._core
        if core is not None:
            core.set_tls(self._certificates.context)
        self._certificates.warn()
        logs.error.info("The certificates were read again")

    def _end(self) -> None:
        """Leaves nothing behind. Idempotent."""
        if self._listeners is not None:
            self._listeners.close()
            self._listeners = None
            if self._started and self._announced is None:
                logs.say(self.config, "Stopped")
        logs.close_files()
        if self._restores_logs:
            self._restores_logs = False
            logs.hold.release()


def is_supervised(config: Config) -> bool:
    """Whether workers serve, below a process that starts and replaces them. As process 1 there is
    always one, to wait for orphans without taking the application's own children from it.
    """
    limits = (config.limit_max_requests, config.limit_max_age, config.limit_max_rss)
    several = config.workers != 1 or config.preload or config.reload
    return several or any(limits) or os.getpid() == 1


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
        # None: not set from Python, which thus cannot restore it.
        signal.signal(number, signal.SIG_DFL if before is None else before)


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


def _in_a_loop() -> bool:
    """An asyncio loop runs in this thread."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


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
    if _in_a_loop():
        raise RuntimeError(_BLOCKS)
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
                from .supervisor import Supervisor  # noqa: PLC0415 (which needs this module)

                return Supervisor(config, process, reread or (lambda: config)).run()
            Server(config).run_alone(process)
        return 0

    return exit_status(serve)


def exit_status(serve: Callable[[], int]) -> int:
    """What a process ends with: ``serve``'s result, or what stands for why it did not start, which
    is logged.
    """
    try:
        return serve()
    except StartError as problem:
        logs.report(problem)
        return problem.exit_code
    except Interrupted as interrupted:
        return interrupted.exit_code
