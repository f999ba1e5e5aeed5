"""A server in a thread of its own, seen from the thread that started it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

from .stop import Level, StopRequest


class InThread:
    """Calls ``serve`` in a new thread. ``serve`` is given what it calls when clients can connect.

    ``ready`` is done then, or when that will not come any more; ``ended`` when ``serve`` has
    returned, and holds what it raised.
    """

    def __init__(self, serve: Callable[[Callable[[], None]], None]) -> None:
        self.ready: Future[None] = Future()
        self.ended: Future[None] = Future()
        self._serve = serve
        # A daemon: an application that hangs must not keep the interpreter from its exit.
        self._thread = threading.Thread(target=self._main, name="asgiserver", daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def _main(self) -> None:
        try:
            self._serve(self._started)
        except BaseException as error:  # It belongs to those who wait for the server.
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)
        self._started()

    def _started(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def wait_ready(self) -> None:
        """Raises what prevented the start."""
        self.ready.result()
        if self.ended.done():
            self.join()
            self.ended.result()

    def shutdown(self, stop: StopRequest, patience: float, overtime: float | None) -> None:
        """Asks to drain; after ``patience`` seconds, or when the wait is interrupted, to cut.

        Raises what ended the server, or TimeoutError when it does not end within ``overtime``
        seconds after that.
        """
        stop.ask(Level.DRAIN)
        try:
            wait([self.ended], patience)
        finally:
            stop.ask(Level.CUT)
            wait([self.ended], overtime)
        self.join()
        self.ended.result()

    def join(self) -> None:
        """Leaves nothing of the thread, which has ended. Raises TimeoutError if it has not."""
        if not self.ended.done():
            raise TimeoutError("the application does not return; its thread is left to itself")
        self._thread.join()
