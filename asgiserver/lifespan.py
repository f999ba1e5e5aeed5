"""The lifespan protocol of ASGI, version 2.0: the application's start-up and shutdown."""

import asyncio
from typing import Any, NamedTuple

from . import logs
from .errors import LIFESPAN_FAILED, StartError
from .interface import ASGI3Application
from .tracebacks import trim

_END = (
    5.0  # seconds for the application to return once its shutdown is complete or it was cancelled
)

# What an application looks for in the scope of a request; when that fails, it does not know
# lifespan.
_REQUEST_KEYS = frozenset(
    ("method", "path", "raw_path", "headers", "query_string", "client", "server", "scheme")
)


class _Outcome(NamedTuple):
    """How a phase ended. ``said`` is the application's message with "failed"; "ended" means that it
    returned or raised and said nothing."""

    kind: str  # complete | failed | ended
    said: str = ""


class Lifespan:
    """One run of the protocol. Make it inside of the event loop that serves.

    ``mode`` is the option's value. ``state`` is the application's, copied into each request's
    scope.
    """

    def __init__(self, app: ASGI3Application, mode: str) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        loop = asyncio.get_running_loop()
        self._startup: asyncio.Future[_Outcome] = loop.create_future()
        self._shutdown: asyncio.Future[_Outcome] = loop.create_future()
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._received: list[str] = []  # types of the events that the application took
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._supported = False
        self._cancelled = False

    async def startup(self) -> None:
        """Returns when the application is ready, or (mode auto) when it does not know the protocol.

        Raises StartError with exit status 3. Cancelling this cancels the application's start-up.
        """
        if self._mode == "off":
            return
        self._task = asyncio.create_task(self._run(), name="asgiserver lifespan")
        self._events.put_nowait({"type": "lifespan.startup"})
        try:
            outcome = await asyncio.shield(self._startup)
        except asyncio.CancelledError:
            await self._cancel()
            raise
        if outcome.kind == "failed":
            text = f"The application's start-up failed.{_quoted(outcome.said)}"
            raise StartError(text, exit_code=LIFESPAN_FAILED)
        if outcome.kind == "ended":
            self._judge_end()
        self._supported = outcome.kind == "complete"

    async def shutdown(self) -> None:
        """Lets the application shut down. Its errors are logged."""
        if self._task is None or not self._supported or self._shutdown.done():
            return
        self._events.put_nowait({"type": "lifespan.shutdown"})
        try:
            outcome = await asyncio.shield(self._shutdown)
            await asyncio.wait([self._task], timeout=_END)
        finally:
            await self._cancel()
        if outcome.kind == "failed":
            logs.error.error("The application's shutdown failed.%s", _quoted(outcome.said))

    # --- the application's side ---

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as error:
            # Also SystemExit and a cancellation: raised further, they would end the event loop
            # itself, or say nothing to those who wait for this application.
            self._error = trim(error)
        self._app_ended()

    def _app_ended(self) -> None:
        if not self._startup.done():
            self._startup.set_result(_Outcome("ended"))
        elif self._startup.result().kind == "complete":
            told = self._shutdown.done() and self._shutdown.result().kind == "failed"
            if self._error is not None and not self._cancelled and not told:
                phase = "shutdown" if "lifespan.shutdown" in self._received else "lifespan"
                if isinstance(self._error, asyncio.CancelledError):  # as at the end of asyncio.run
                    logs.error.warning("The application's %s was cancelled.", phase)
                else:
                    logs.error.error("The application's %s failed.", phase, exc_info=self._error)
        if not self._shutdown.done():
            self._shutdown.set_result(_Outcome("ended"))

    async def _receive(self) -> dict[str, Any]:
        event = await self._events.get()
        self._received.append(event["type"])
        return event

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        scope, _, rest = str(kind).partition(".")
        phase, _, outcome = rest.partition(".")
        futures = {"startup": self._startup, "shutdown": self._shutdown}
        if scope != "lifespan" or phase not in futures or outcome not in ("complete", "failed"):
            raise RuntimeError(f"{kind!r} is not a message of the lifespan protocol")
        if futures[phase].done():
            raise RuntimeError(f"{kind!r} was sent after the {phase} had ended")
        if phase == "shutdown" and "lifespan.shutdown" not in self._received:
            raise RuntimeError(f"{kind!r} was sent before lifespan.shutdown was received")
        futures[phase].set_result(_Outcome(outcome, str(message.get("message", ""))))

    # --- an application that ends instead of answering ---

    def _judge_end(self) -> None:
        """The specification wants an application that raises here to be served without lifespan.
        One that does not know the protocol is left in peace; for any other error, somebody must see
        it.
        """
        error = self._error
        if self._mode == "on" or isinstance(error, SystemExit):
            text = (
                "ended without an answer"
                if error is None
                else f"raised {type(error).__name__}: {error}"
            )
            raise StartError(
                f"The application's start-up failed: it {text} (--lifespan {self._mode}).",
                exit_code=LIFESPAN_FAILED,
                cause=error,
            )
        if error is not None and not (self._is_refusal(error) and not self._received):
            logs.error.warning(
                "The application failed in its start-up and is served without lifespan events. "
                "--lifespan on would make this an error, --lifespan off leave them out.",
                exc_info=error,
            )

    def _is_refusal(self, error: BaseException) -> bool:
        """``error`` says that the scope is unknown, or comes from taking it for a request's."""
        if isinstance(error, AssertionError | NotImplementedError):
            return True
        if isinstance(error, KeyError):
            return bool(error.args) and error.args[0] in _REQUEST_KEYS
        if not isinstance(error, ValueError | TypeError | RuntimeError):
            return False
        text = str(error).lower()
        return "lifespan" in text or "scope" in text

    async def _cancel(self) -> None:
        """Ends the application's task, if it has not ended; gives up on one that resists."""
        if self._task is not None and not self._task.done():
            self._cancelled = True
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_END)


def _quoted(text: str) -> str:
    return f" It says:\n{text}" if "\n" in text else f" It says: {text}" if text else ""
