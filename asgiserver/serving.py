"""From a configuration to serving, and back."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import banner, interface, logs, tls
from ._version import __version__
from .application import Application, load
from .checks import check_core, check_files
from .config import Config
from .interface import TITLES
from .process import Process
from .service import Service
from .sockets import Listeners
from .stop import SIGNALS, Interrupted, Level, StopRequest
from .tls import Certificates

if TYPE_CHECKING:
    import signal


_BLOCKS = (
    "run() blocks, and an asyncio loop runs in this thread: use `await server.serve()` or "
    "`async with server:` here"
)


def refuse_in_a_loop() -> None:
    """Raises RuntimeError in a thread in which an asyncio loop runs."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise RuntimeError(_BLOCKS)


class Serving:
    """One way to start and one to end, whatever drives it; for one time.

    ``prepare`` binds and imports, on the caller's thread, so that errors are raised there. Then
    ``block`` serves on a thread, or ``serve_asgi`` in a loop. Both finish in ``end``, which leaves
    nothing behind. ``run`` is all of it on this thread.

    To be set before: ``application`` and ``certificates`` where they were loaded already, ``service``,
    ``workers``, and ``restores_logs`` for a server inside of somebody's program.
    """

    def __init__(self, config: Config, signals: "Sequence[signal.Signals]" = SIGNALS) -> None:
        self.config = config
        self.stop = StopRequest(signals)
        self.service = Service()
        self.listeners: Listeners | None = None
        self.application: Application | None = None
        self.certificates: Certificates | None = None
        # For the banner; 0: there is none to be shown; None: this is no worker.
        self.workers: int | None = None
        self.restores_logs = False
        self.started = False
        self._used = False

    @property
    def scheme(self) -> str:
        return "http" if self.config.ssl_certfile is None else "https"

    def prepare(self, bind: Callable[[], Listeners], process: Process | None = None) -> Application:
        """Everything up to the application's start-up. Cheap checks come before the import."""
        if self._used:
            raise RuntimeError("a Server runs once; make another one")
        self._used = True
        check_files(self.config)
        if self.restores_logs:
            logs.hold.take()
        try:
            logs.configure(self.config)
            check_core()
            if self.certificates is None:
                self.certificates = tls.load(self.config, tls.new_ticket_key())
            self.listeners = bind()
            if process is not None:
                process.drop_privileges()
            return self.application or load(self.config)
        except BaseException:
            self.end()
            raise

    def run(
        self, bind: Callable[[], Listeners], service: Service, process: Process | None = None
    ) -> None:
        self.service = service
        with self.stop.on_signals():
            application = self.prepare(bind, process)
            if self.stop.number:  # swallowed by the application's code
                self.end()
            else:
                self.block(application)
            if not self.started and self.stop.number:
                raise Interrupted(self.stop.number)

    def block(self, application: Application, *hear: Callable[[], None]) -> None:
        """Serves on this thread. ``hear`` are called when clients can connect."""
        try:
            if application.interface == "wsgi":
                self._run_wsgi(application, *hear)
            else:
                self._run_asgi(application, *hear)
        finally:
            self.end()

    def _run_wsgi(self, application: Application, *hear: Callable[[], None]) -> None:
        from . import serve_wsgi  # noqa: PLC0415 (the core, and only what this mode needs)

        assert self.listeners is not None
        serve_wsgi.serve(
            application.app,
            self.config,
            self.listeners,
            self.stop,
            self.service.followed_by(lambda: self._announce(application, None, *hear)),
            self.certificates,
        )

    def _run_asgi(self, application: Application, *hear: Callable[[], None]) -> None:
        # asyncio stays out of a process that serves WSGI.
        import asyncio  # noqa: PLC0415

        from . import loops  # noqa: PLC0415

        async def wait(task: asyncio.Task[None]) -> None:
            await asyncio.shield(task)

        make_loop = loops.loop_factory(self.config.loop)
        self.stop.remember()
        runner = asyncio.Runner(loop_factory=make_loop)
        serving = runner.get_loop().create_task(self.serve_asgi(application, *hear))
        try:
            runner.run(wait(serving))
        except (SystemExit, KeyboardInterrupt):
            # The application ended the program, which stops the loop in mid-air: go on, in order.
            self.stop.ask(Level.DRAIN)
            runner.run(wait(serving))
            raise
        finally:
            loops.close(runner)

    async def serve_asgi(self, application: Application, *hear: Callable[[], None]) -> None:
        """Serves in the running loop."""
        import asyncio  # noqa: PLC0415

        from . import serve_asgi  # noqa: PLC0415
        from .loops import loop_name  # noqa: PLC0415
        from .trace import trace  # noqa: PLC0415

        assert self.listeners is not None
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
                self.listeners,
                self.stop,
                self.service.followed_by(lambda: self._announce(application, loop, *hear)),
                self.certificates,
            )
        finally:
            self.end()

    def _announce(
        self, application: Application, loop: str | None, *hear: Callable[[], None]
    ) -> None:
        self.started = True
        for tell in hear:
            tell()
        if self.workers == 0:
            return
        for line in banner.lines(
            version=__version__,
            app=application.name,
            interface=TITLES[application.interface],
            loop=loop,
            sockets=self.listeners.sockets if self.listeners is not None else [],
            scheme=self.scheme,
            threads=self.config.threads,
            workers=self.workers,
            signals=bool(self.stop.taken),
        ):
            logs.say(self.config, "%s", line)

    def end(self) -> None:
        """Leaves nothing behind. Idempotent."""
        if self.listeners is not None:
            self.listeners.close()
            self.listeners = None
            if self.started and self.workers is None:
                logs.say(self.config, "Stopped")
        logs.close_files()
        if self.restores_logs:
            self.restores_logs = False
            logs.hold.release()
