"""The lifespan protocol, from the server's side."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgiserver import logs
from asgiserver.errors import StartError
from asgiserver.lifespan import Lifespan

App = Callable[..., Awaitable[None]]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged. Another test may have set the logger up, and then it keeps its records."""
    logs.error.parent.propagate = True  # type: ignore[union-attr]
    caplog.set_level(logging.DEBUG, "asgiserver")
    return caplog


def run(app: App, mode: str = "auto") -> Lifespan:
    """Start-up, then shutdown."""

    async def main() -> Lifespan:
        async with asyncio.timeout(20):
            lifespan = Lifespan(app, mode)
            await lifespan.startup()
            await lifespan.shutdown()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return lifespan

    return asyncio.run(main())


def refusal(app: App, mode: str = "auto") -> StartError:
    with pytest.raises(StartError) as caught:
        run(app, mode)
    assert caught.value.exit_code == 3
    return caught.value


async def good(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    scope["state"]["events"] = events = []
    while True:
        event = (await receive())["type"]
        events.append(event)
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_both_events_and_the_state(log: pytest.LogCaptureFixture, mode: str) -> None:
    lifespan = run(good, mode)
    assert lifespan.state == {"events": ["lifespan.startup", "lifespan.shutdown"]}
    assert not log.records


def test_off() -> None:
    assert run(good, "off").state == {}


def test_scope() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await good(scope, receive, send)

    run(app)
    assert seen["type"] == "lifespan"
    assert seen["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert set(seen) == {"type", "asgi", "state"}


def raising(error: BaseException) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    return app


@pytest.mark.parametrize(
    "error",
    [
        AssertionError(),
        NotImplementedError("only http"),
        KeyError("path"),
        ValueError("Django can only handle ASGI/HTTP connections, not lifespan."),
        RuntimeError("unknown scope type"),
    ],
    ids=repr,
)
def test_applications_that_do_not_know_it(
    log: pytest.LogCaptureFixture, error: BaseException
) -> None:
    run(raising(error))
    assert not log.records


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Returns at once."""


def test_an_application_that_returns_at_once(log: pytest.LogCaptureFixture) -> None:
    run(silent)
    assert not log.records
    assert "ended without an answer" in str(refusal(silent, "on"))


@pytest.mark.parametrize("error", [OSError("no database"), KeyError("DATABASE")], ids=repr)
def test_other_errors_are_shown(log: pytest.LogCaptureFixture, error: BaseException) -> None:
    run(raising(error))
    (record,) = log.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_an_error_in_the_startup_is_shown(log: pytest.LogCaptureFixture) -> None:
    """Even one that would be a refusal had it come before the event was taken."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise AssertionError

    run(app)
    assert [record.levelno for record in log.records] == [logging.WARNING]


def test_mode_on_wants_an_answer() -> None:
    error = OSError("no database")
    refused = refusal(raising(error), "on")
    assert "it raised OSError: no database (--lifespan on)" in str(refused)
    assert refused.cause is error


def test_an_application_that_exits() -> None:
    assert "SystemExit" in str(refusal(raising(SystemExit(4))))


def failing(*, then: BaseException | None = None, message: str = "no database") -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": message})
        if then is not None:
            raise then

    return app


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("then", [None, OSError()], ids=repr)
def test_a_failed_startup(
    log: pytest.LogCaptureFixture, mode: str, then: BaseException | None
) -> None:
    refused = refusal(failing(then=then), mode)
    assert str(refused) == "The application's start-up failed. It says: no database"
    assert refused.cause is None
    assert not log.records


def test_a_long_message_begins_on_its_own_line() -> None:
    assert str(refusal(failing(message="a\nb"))).endswith("It says:\na\nb")
    assert str(refusal(failing(message=""))) == "The application's start-up failed."


def at_shutdown(*messages: Any) -> App:
    """Starts, and answers the shutdown with ``messages``; raises the exceptions among them."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for message in messages:
            if isinstance(message, BaseException):
                raise message
            await send(message)

    return app


FAILED = {"type": "lifespan.shutdown.failed", "message": "cannot flush"}
COMPLETE = {"type": "lifespan.shutdown.complete"}


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (at_shutdown(FAILED), ["The application's shutdown failed. It says: cannot flush"]),
        (
            at_shutdown(FAILED, OSError()),
            ["The application's shutdown failed. It says: cannot flush"],
        ),
        (at_shutdown(OSError()), ["The application's shutdown failed."]),
        (at_shutdown(COMPLETE, OSError()), ["The application's shutdown failed."]),
        (at_shutdown(), []),
    ],
)
def test_a_failed_shutdown(log: pytest.LogCaptureFixture, app: App, expected: list[str]) -> None:
    run(app)
    assert [record.getMessage() for record in log.records] == expected


def test_an_application_that_ends_early(log: pytest.LogCaptureFixture) -> None:
    error = OSError("lost")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise error

    run(app)
    (record,) = log.records
    assert record.getMessage() == "The application's lifespan failed."


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"type": "http.response.start"}, "'http.response.start' is not a message of the lifespan"),
        ({"type": "lifespan.startup"}, "'lifespan.startup' is not a message"),
        ({"type": "lifespan.startup.done"}, "'lifespan.startup.done' is not a message"),
        ({"type": None}, "None is not a message"),
        (COMPLETE, "'lifespan.shutdown.complete' was sent before lifespan.shutdown was received"),
    ],
)
def test_wrong_messages(message: dict[str, Any], text: str) -> None:
    raised: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(RuntimeError) as caught:
            await send(message)
        raised.append(str(caught.value))
        await send({"type": "lifespan.startup.complete"})
        with pytest.raises(RuntimeError, match=r"was sent after the startup had ended"):
            await send({"type": "lifespan.startup.complete"})
        await receive()
        await send(COMPLETE)

    run(app, "on")
    assert text in raised[0]


def test_a_cancelled_startup_cancels_the_application(log: pytest.LogCaptureFixture) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append("started")
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    async def main() -> None:
        async with asyncio.timeout(20):
            startup = asyncio.create_task(Lifespan(app, "auto").startup())
            while not seen:
                await asyncio.sleep(0)
            startup.cancel()
            with pytest.raises(asyncio.CancelledError):
                await startup
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert seen == ["started", "cleaned up"]
    assert not log.records
