"""``Server``: serving inside of a program that goes on."""

import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from . import banner, options, sockets
from .application import Application
from .config import Config
from .service import Service
from .serving import Serving, refuse_in_a_loop
from .signatures import made_with
from .sockets import Listeners
from .stop import Level

if TYPE_CHECKING:
    from .in_loop import InLoop
    from .in_thread import InThread

# Seconds beyond the grace time: for the server to cut by itself, and for a WSGI application that
# was cut to return.
_MARGIN, _OVERTIME = 1.0, 10.0

# Settings of processes, which a server inside of somebody's program does not start, stop or change.
_OF_PROCESSES = (
    "workers", "preload", "reload", "pid", "user", "group", "umask", "limit_max_age",
    "limit_max_rss",
)  # fmt: skip


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
    @made_with(Config)
    def __init__(self, *args: Any, **settings: Any) -> None: ...
    def __init__(self, *args: Any, **settings: Any) -> None:
        config = settings.pop("config", None) if not args else args[0]
        if not isinstance(config, Config):
            config = Config(*args, **settings)
        elif settings or args[1:]:
            raise TypeError("a Config says it all: no application or settings beside it")
        self.config = config
        self._serving = Serving(config)
        self._stop = self._serving.stop
        self._loop: InLoop | None = None
        self._thread: InThread | None = None

    @property
    def started(self) -> bool:
        """Clients can connect, or could until the server began to stop."""
        return self._serving.started

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
        listeners = self._serving.listeners
        return list(listeners.sockets) if listeners is not None else []

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
        return [banner.client_url(sock, self._serving.scheme) for sock in self.sockets]

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
        refuse_in_a_loop()
        self._serving.run(*self._embedded(sockets))

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

        bind, self._serving.service = self._embedded(sockets)
        application = self._serving.prepare(bind)
        if application.interface == "wsgi":
            self._loop = InLoop.thread(self._in_thread(application))
        else:
            self._loop = InLoop.task(lambda started: self._serving.serve_asgi(application, started))
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
        bind, self._serving.service = self._embedded(None)
        thread = self._in_thread(self._serving.prepare(bind))
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
        self._serving.restores_logs = True
        service = Service(
            max_requests=config.limit_max_requests, exhausted=lambda: self._stop.ask(Level.DRAIN)
        )
        return lambda: sockets.bind(config) if given is None else sockets.adopt(given), service

    def _in_thread(self, application: Application) -> "InThread":
        from .in_thread import InThread  # noqa: PLC0415

        self._serving.application = application
        self._thread = InThread(lambda started: self._serving.block(application, started))
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
        wsgi = (
            self._serving.application is not None and self._serving.application.interface == "wsgi"
        )
        return _OVERTIME if wsgi else None
