"""ASGI applications as a whole: lifespan 2.0, and what counts as an application."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from support.server import Server

Factory = Callable[..., Server]


# --- lifespan ----------------------------------------------------------------------------------------------


def finished(server: Server, number: int = signal.SIGTERM) -> tuple[int, str]:
    server.signal(number)
    return server.wait(), server.log()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", ["auto", "on"])
def test_lifespan(serve: Factory, loop: str, number: int, mode: str) -> None:
    server = serve("lifespan_asgi:app", "--lifespan", mode, interface="asgi", loop=loop)
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == "['startup']"
    status, log = finished(server, number)
    assert status == 0
    assert log.index("startup seen") < log.index("shutdown seen")
    assert log.count("shutdown seen") == 1


def test_lifespan_off(serve: Factory, loop: str) -> None:
    server = serve("lifespan_asgi:app", "--lifespan", "off", interface="asgi", loop=loop)
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == "[]"
    status, log = finished(server)
    assert status == 0
    assert "startup seen" not in log
    assert "shutdown seen" not in log


def test_lifespan_failed(serve: Factory, loop: str) -> None:
    """The application's own message, exit status 3, and never a request."""
    server = serve("lifespan_asgi:failed", interface="asgi", loop=loop, wait=False)
    assert server.wait() == 3
    assert "the database is away" in server.log().splitlines()[-1]
    assert "Traceback" not in server.log()


def test_lifespan_raises_when_on(serve: Factory, loop: str) -> None:
    server = serve(
        "lifespan_asgi:raising", "--lifespan", "on", interface="asgi", loop=loop, wait=False
    )
    server.expect_tracebacks()
    assert server.wait() == 3
    assert "ZeroDivisionError" in server.log()


def test_lifespan_unknown_is_fine_in_auto(serve: Factory, loop: str) -> None:
    """An early refusal of the scope's type is no error, and leaves no trace."""
    server = serve("lifespan_asgi:without", interface="asgi", loop=loop)
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == "without"
    assert finished(server)[0] == 0
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("name", ["raising", "raising_late"])
def test_lifespan_error_is_told_in_auto(serve: Factory, loop: str, name: str) -> None:
    """Any other error is no reason to stop, but may be why nothing works later: it is shown with its trace."""
    server = serve(f"lifespan_asgi:{name}", interface="asgi", loop=loop)
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == "raising"
    assert finished(server)[0] == 0
    assert "ZeroDivisionError" in server.log()


def test_lifespan_shutdown_failed(serve: Factory, loop: str) -> None:
    server = serve("lifespan_asgi:failing_at_the_end", interface="asgi", loop=loop)
    server.expect_tracebacks()
    server.signal(signal.SIGTERM)
    server.wait()
    assert "cannot stop" in server.log()


def test_lifespan_shutdown_waits_for_requests(serve: Factory, loop: str) -> None:
    """Running requests end before the shutdown event."""
    server = serve("lifespan_asgi:app", interface="asgi", loop=loop)
    with server.raw() as client:
        client.get("/slow")
        server.wait_log("slow begins")
        server.signal(signal.SIGTERM)
        assert client.recv_response().text == "slow"
    assert server.wait() == 0
    log = server.log()
    assert log.index("slow ends") < log.index("shutdown seen")


def test_lifespan_context_does_not_reach_requests(serve: Factory, loop: str) -> None:
    server = serve("lifespan_asgi:contexts", interface="asgi", loop=loop)
    with server.raw() as client:
        for _ in range(2):
            client.get("/")
            assert client.recv_response().text == "unset"


# --- kinds of applications ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "function",
        "instance",
        "instance.method",
        "Class.static",
        "partial",
        "plain",
        "awaitable",
        "wrapped",
    ],
)
@pytest.mark.parametrize("interface", ["auto", "asgi", "asgi3"])
def test_kinds_of_callables(serve: Factory, name: str, interface: str) -> None:
    if interface == "auto" and name in ("plain", "awaitable"):
        pytest.skip("nothing tells that it is ASGI")
    server = serve(f"kinds_asgi:{name}", interface=interface, loop="asyncio")
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == name


@pytest.mark.parametrize("name", ["double_class", "double_function"])
@pytest.mark.parametrize("interface", ["auto", "asgi2"])
def test_asgi_2(serve: Factory, loop: str, name: str, interface: str) -> None:
    server = serve(f"kinds_asgi:{name}", interface=interface, loop=loop)
    with server.raw() as client:
        for _ in range(2):
            client.get("/")
            assert client.recv_response().text == name


@pytest.mark.parametrize("name", ["factory", "wsgi_factory"])
def test_factory(serve: Factory, name: str) -> None:
    server = serve(f"kinds_asgi:{name}", "--factory")
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == name


def test_auto_finds_wsgi(serve: Factory) -> None:
    server = serve("kinds_asgi:wsgi", interface="auto")
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == "wsgi"
    assert "wsgi" in server.log().lower()
