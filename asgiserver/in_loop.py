"""A server beside whatever else runs in an asyncio loop, seen from another task of that loop."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from .in_thread import InThread
from .stop import Level, StopRequest


class InLoop:
    """A server in a task of the running loop, or in a thread next to it.

    The waits can be cancelled without harm to what they wait for.
    """

    def __init__(
        self,
        ready: asyncio.Future[None],
        ended: asyncio.Future[None],
        thread: InThread | None = None,
    ) -> None:
        self._ready, self._ended, self._thread = ready, ended, thread

    @classmethod
    def task(cls, serve: Callable[[Callable[[], None]], Coroutine[Any, Any, None]]) -> "InLoop":
        """``serve`` is given what it calls when clients can connect."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        return cls(
            ready, loop.create_task(serve(lambda: ready.set_result(None)), name="asgiserver")
        )

    @classmethod
    def thread(cls, thread: InThread) -> "InLoop":
        ready, ended = asyncio.wrap_future(thread.ready), asyncio.wrap_future(thread.ended)
        return cls(ready, ended, thread)

    async def wait_ready(self) -> None:
        """Raises what prevented the start."""
        await asyncio.wait([self._ready, self._ended], return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            self._finish()

    async def wait_closed(self) -> None:
        """Until the server has ended; raises what ended it."""
        await asyncio.wait([self._ended])
        self._finish()

    async def shutdown(self, stop: StopRequest, patience: float, overtime: float | None) -> None:
        """Asks to drain; after ``patience`` seconds, or when the wait is cancelled, to cut.

        Raises what ended the server, or TimeoutError when it does not end within ``overtime``
        seconds after that.
        """
        stop.ask(Level.DRAIN)
        try:
            await asyncio.wait([self._ended], timeout=patience)
        except asyncio.CancelledError:  # which is what is raised, and not what ended the server
            stop.ask(Level.CUT)
            try:
                await self._settle(overtime)
            finally:
                with contextlib.suppress(BaseException):
                    self._finish()
            raise
        if not self._ended.done():
            stop.ask(Level.CUT)
            await self._settle(overtime)
        self._finish()

    def _finish(self) -> None:
        """Leaves nothing of the thread, and raises what ended the server."""
        if self._thread is not None:
            self._thread.join()
        self._ended.result()

    async def _settle(self, seconds: float | None) -> None:
        """Until it has ended, also when this is cancelled meanwhile: what was cut ends soon, and
        the application's shutdown is never left out.
        """
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        cancelled = None
        while not self._ended.done() and (end is None or loop.time() < end):
            try:
                await asyncio.wait([self._ended], timeout=end and end - loop.time())
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
