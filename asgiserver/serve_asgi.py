"""Serving an ASGI application in a running asyncio loop, from start-up to the last connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import FrameType
from typing import Any

from . import _core, forks, logs
from .config import Config
from .interface import ASGI3Application
from .lifespan import Lifespan
from .service import Service
from .sockets import Listeners
from .stop import Level, StopRequest
from .tls import Certificates

_SETTLE = 1.0  # seconds for cut requests to end, and again after they were cancelled


class _Level:
    """The stop request's level, to be awaited in the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events = {level: asyncio.Event() for level in Level if level > Level.RUN}

    def changed(self, level: Level, _frame: FrameType | None) -> None:
        """From any thread or a signal handler."""
        with contextlib.suppress(RuntimeError):  # The loop is closed: everything has ended.
            self._loop.call_soon_threadsafe(self._take, level)

    def _take(self, level: Level) -> None:
        for reached, event in self._events.items():
            if level >= reached:
                event.set()

    async def reaches(self, level: Level) -> None:
        await self._events[level].wait()

    def reached(self, level: Level) -> bool:
        return self._events[level].is_set()


async def serve(
    app: ASGI3Application,
    config: Config,
    listeners: Listeners,
    stop: StopRequest,
    service: Service,
    certificates: Certificates | None = None,
) -> None:
    """Serves until ``stop`` is asked for; with ``certificates`` over TLS.

    Raises StartError. When it is cancelled, connections are cut; the application's shutdown runs
    all the same.
    """
    level = _Level()
    with stop.heard_by(level.changed), _signals_wake(stop):
        lifespan = Lifespan(app, config.lifespan)
        if not await _start(lifespan, level):
            return
        try:
            async with _core_server(app, config, lifespan) as core:
                listeners.listen(config.backlog)
                service.opened(core)
                for sock in listeners.sockets:
                    core.listen(sock.fileno(), certificates.context if certificates else None)
                core.start()
                core.call_at(service.max_requests, service.exhausted)
                service.started()
                async with _ticking(service):
                    await level.reaches(Level.RETIRE)
                    service.stopping()
                    await _until_drained(core, config, listeners, level, service)
                    service.closing(core)
        finally:
            await lifespan.shutdown()


async def _start(lifespan: Lifespan, level: _Level) -> bool:
    """The application's start-up; False when it is to stop before that is done."""
    startup = asyncio.create_task(lifespan.startup(), name="asgiserver startup")
    stopped = asyncio.create_task(level.reaches(Level.RETIRE), name="asgiserver stop")
    try:
        await asyncio.wait([startup, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        interrupted = not startup.done()
        startup.cancel()
        stopped.cancel()
        await asyncio.wait([startup, stopped])
    if interrupted:
        return False
    await startup  # raises what it raised
    return True


@asynccontextmanager
async def _core_server(
    app: ASGI3Application, config: Config, lifespan: Lifespan
) -> AsyncIterator[_core.Server]:
    make = partial(
        _core.Server,
        app,
        interface="asgi",
        loop=asyncio.get_running_loop(),
        limits=config.core_limits(),
        headers=config.core_headers(),
        root_path=config.root_path,
        state=lifespan.state if config.lifespan != "off" else None,
        on_error=logs.log_from_core,
        health_path=config.health_path,
        multiprocess=config.workers != 1,
        proxy=config.core_proxy(),
    )
    core = logs.attach(config, make)
    try:
        with forks.let_go(core):
            yield core
    finally:
        # After an orderly end nothing is left. After an exception (a cancellation, SystemExit from
        # the application) everything is cut, as part of the stop and not as so many errors.
        core.drain()
        core.abort()
        await _end_requests()
        core.close()
        for _ in range(2):  # The core's idle tasks end at their next step.
            await asyncio.sleep(0)


@asynccontextmanager
async def _ticking(service: Service) -> AsyncIterator[None]:
    """Within, the service's tick is called again and again, by the loop itself: it stops when the
    loop hangs.
    """
    if service.tick is None:
        yield
        return
    tick, loop = service.tick, asyncio.get_running_loop()
    handle = loop.call_soon(lambda: None)

    def again() -> None:
        nonlocal handle
        handle = loop.call_later(service.interval, again)
        tick()

    again()
    try:
        yield
    finally:
        handle.cancel()


async def _until_drained(
    core: _core.Server, config: Config, listeners: Listeners, level: _Level, service: Service
) -> None:
    """Waits for running requests, no longer than the grace time."""
    drained = asyncio.Event()
    if level.reached(Level.DRAIN):
        await _leave(core, config, level, drained)
    else:
        core.drain(drained.set, idle=service.patience(config.timeout_keep_alive))
    listeners.stop()
    if core.requests:
        logs.say(config, "Waiting for running requests: %d (CTRL+C cuts them)", core.requests)
    await _drain(core, config, level, drained)
    if not drained.is_set():
        logs.log_cut(core.abort(), config.grace, asked=level.reached(Level.CUT))


async def _leave(core: _core.Server, config: Config, level: _Level, drained: asyncio.Event) -> None:
    """Nobody serves in its place: what asks for its health hears of that first."""
    core.set_healthy(False)
    await _first_of(drained.wait(), level.reaches(Level.CUT), timeout=config.shutdown_delay)
    core.drain(drained.set, idle=config.last_wait)


async def _drain(core: _core.Server, config: Config, level: _Level, drained: asyncio.Event) -> None:
    """Until all is drained, the time is over, or the level says so."""
    loop = asyncio.get_running_loop()
    end = loop.time() + config.grace
    patience = loop.time() + min(config.timeout_disconnect, config.grace)
    hurried = level.reached(Level.DRAIN)
    while not drained.is_set() and not level.reached(Level.CUT) and loop.time() < end:
        await _first_of(
            drained.wait(),
            level.reaches(Level.CUT if hurried else Level.DRAIN),
            timeout=max(min(end, patience) - loop.time(), 0.0),
        )
        if level.reached(Level.DRAIN) and not hurried:
            hurried = True
            await _leave(core, config, level, drained)
            end = loop.time() + config.grace
        if loop.time() >= patience:
            patience = end
            core.disconnect()


async def _first_of(*waits: Coroutine[Any, Any, object], timeout: float) -> None:
    """Until one of them is done or the time is over; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _end_requests() -> None:
    """Lets the applications of cut requests see that their clients are gone, then cancels them.

    They end before the application's shutdown takes away what they use.
    """
    running = {task for task in asyncio.all_tasks() if _is_request(task)}
    if running:
        _, running = await asyncio.wait(running, timeout=_SETTLE)
    for task in running:
        task.cancel()
    if running:
        _, running = await asyncio.wait(running, timeout=_SETTLE)
    if running:
        logs.error.warning("Requests that resist being cancelled: %d", len(running))


def _is_request(task: "asyncio.Task[object]") -> bool:
    """The task runs a request: its coroutine is the core's, and stands in an application."""
    coroutine = task.get_coro()
    return (
        type(coroutine).__module__ == _core.__name__
        and getattr(coroutine, "cr_frame", None) is not None
    )


@contextmanager
def _signals_wake(stop: StopRequest) -> Iterator[None]:
    """Signals wake the loop at once, also one that arrives just before the loop begins to wait.

    The loop's own mechanism does that (a descriptor that the C handler writes to); the Python
    handlers stay those of ``stop``, because they also run while the loop is kept busy.
    """
    loop = asyncio.get_running_loop()
    watched = []
    for number in stop.taken:
        try:
            loop.add_signal_handler(number, stop.overlooked, number)
        except (NotImplementedError, RuntimeError, ValueError):
            continue  # A loop without signals.
        watched.append(number)
    stop.install()
    try:
        yield
    finally:
        for number in watched:
            loop.remove_signal_handler(number)
        stop.install()
