"""Applications that misbehave (tests/apps/misbehaving.py): whatever they do, others are served, or the process is
replaced; no client waits for ever, and no one gets a wrong answer.

More of the kind is in test_asgi.py, test_wsgi.py (what is raised, lengths that lie) and test_workers.py (hanging).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.client import SLOWNESS, MalformedResponse, Response
from support.load import Load
from support.processes import children, lives, wait_until
from support.server import Server

Factory = Callable[..., Server]

# What is caught, logged and answered; the others end the process, as they would any.
CAUGHT = ["ValueError", "GeneratorExit", "StopIteration", "MemoryError", "RecursionError", "Odd"]
ENDING = ["SystemExit", "KeyboardInterrupt"]


@pytest.fixture
def server(shared: Factory, backend: Any) -> Server:
    found = shared(f"misbehaving:{backend.interface}", **backend.options)
    found.expect_tracebacks()
    return found


@pytest.fixture
def fresh(serve: Factory, backend: Any) -> Callable[..., Server]:
    def start(*words: str) -> Server:
        server = serve(f"misbehaving:{backend.interface}", *words, **backend.options)
        server.expect_tracebacks()
        return server

    return start


def fetch(server: Server, target: str) -> Response:
    with server.raw() as client:
        client.get(target)
        return client.recv_response()


def is_well(server: Server) -> bool:
    return fetch(server, "/ok").status == 200


# --- what is raised ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CAUGHT, "CancelledError"])
def test_raised_before_the_start(server: Server, name: str) -> None:
    assert fetch(server, f"/throw?{name}").status == 500
    assert is_well(server)


@pytest.mark.parametrize("name", CAUGHT)
def test_raised_in_the_body(server: Server, name: str) -> None:
    """The client sees that it is not whole."""
    with pytest.raises((MalformedResponse, ConnectionResetError)):
        fetch(server, f"/late_throw?{name}")
    assert is_well(server)


@pytest.mark.parametrize("deed", ["recurse", "exhaust"])
def test_really_too_much(server: Server, deed: str) -> None:
    if deed == "exhaust" and "ASAN_OPTIONS" in os.environ:
        pytest.skip("the sanitizer ends a process that asks for so much")
    assert fetch(server, f"/{deed}").status == 500
    server.wait_log("RecursionError" if deed == "recurse" else "MemoryError")
    assert is_well(server)


@pytest.mark.parametrize("name", ENDING)
@pytest.mark.parametrize("where", ["", "late_"])
def test_ending_exceptions_end_the_worker_in_order(fresh: Any, where: str, name: str) -> None:
    """Another one takes its place; what else it serves is finished."""
    server = fresh("--workers", "1", "--limit-max-requests", "1000000")
    with server.raw() as client:
        client.get(f"/{where}throw?{name}")
        client.socket.settimeout(20 * SLOWNESS)
        try:
            client.recv_all()
        except ConnectionResetError:
            assert where
    wait_until(lambda: server.log().count("is ready") == 2, 20)
    assert is_well(server)


@pytest.mark.parametrize("where", ["iter", "next", "close"])
@pytest.mark.parametrize("name", CAUGHT)
def test_iterables_that_raise(shared: Factory, where: str, name: str) -> None:
    for threads in (None, 4):
        server = shared("misbehaving:wsgi", interface="wsgi", threads=threads)
        server.expect_tracebacks()
        with server.raw() as client:
            client.get(f"/{where}?{name}")
            if where == "close":
                assert client.recv_response().body == b"onetwo"
            elif (where, name) == ("next", "StopIteration"):
                assert client.recv_response().body == b""  # That is how an iterator ends.
            else:
                assert client.recv_response().status == 500
        assert is_well(server)


# --- processes and threads --------------------------------------------------------------------------------


def test_a_child_that_lives_on_holds_nothing(fresh: Any) -> None:
    """It has copies of all sockets: connections close nevertheless, and so does the port."""
    server = fresh("--timeout-keep-alive", "2", "--timeout-request-head", "2")
    with server.raw() as idle, server.raw() as silent, server.raw() as asking:
        idle.get("/ok")
        assert idle.recv_response().status == 200
        silent.send("GET /ok")
        asking.get("/fork?120")
        child = int(asking.recv_response().text)
        try:
            for client in (idle, silent, asking):
                client.recv_all()  # until it closes
            assert is_well(server)
            with server.raw() as client, pytest.raises((MalformedResponse, ConnectionResetError)):
                client.get("/late_throw?ValueError")
                client.recv_response()
            server.stop()
            with pytest.raises(ConnectionRefusedError):
                server.raw()
            assert lives(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_child_that_ends_at_once(server: Server) -> None:
    with server.raw() as client:
        for _ in range(3):
            client.get("/fork_briefly")
            assert client.recv_response().text == "7"
    assert is_well(server)


@pytest.mark.parametrize("deed", ["fork_and_return", "fork_and_raise", "late_fork_and_return"])
def test_a_child_that_returns(fresh: Any, deed: str) -> None:
    """It does not answer in the server's place, and does not stay."""
    server = fresh()
    with server.raw() as client:
        for _ in range(3):
            client.get(f"/{deed}")
            assert int(client.recv_response().text.removeprefix("part")) > 0
        client.get("/ok")
        assert client.recv_response().text == str(server.pid)
    wait_until(lambda: not any(lives(pid) for pid in children(server.pid)), what="for children")
    assert is_well(server)


def test_a_program_that_was_started(fresh: Any) -> None:
    """It inherits nothing, although the application left that open."""
    server = fresh("--timeout-keep-alive", "0.5")
    with server.raw() as client:
        client.get("/program?120")
        child = int(client.recv_response().text)
        client.recv_all()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        server.raw()
    os.kill(child, signal.SIGKILL)


def test_a_thread_outlives_its_request(server: Server) -> None:
    assert fetch(server, "/thread").status == 200
    assert is_well(server)
    server.wait_log("the thread is done")


# --- the end of the process -------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["leave?0", "leave?3", "crash"])
def test_a_worker_that_dies_is_replaced(fresh: Any, deed: str) -> None:
    """Others are served meanwhile."""
    server = fresh("--workers", "2")
    server.wait_log("Worker 2 is ready")
    with Load(server.address, "/ok", connections=2) as load:
        load.wait(20)
        server.mark()
        with server.raw() as client:
            client.get(f"/{deed}")
            with pytest.raises((MalformedResponse, ConnectionResetError)):
                client.recv_response()
        server.wait_log("Worker . is ready", 30)
        load.wait(20)
    assert len(load.failures) <= 2, load.failures  # what that one had in hand
    if deed == "crash":
        server.abort_expected = True
        text = server.log()
        assert "Segmentation fault" in text
        assert "in crash" in text
        server.mark()


def test_memory_is_given_back_by_recycling(fresh: Any) -> None:
    """limit_max_rss: no request is lost by it."""
    server = fresh("--workers", "2", "--limit-max-rss", "150000000")
    with Load(server.address, "/grow?2000000", connections=2, pause=0.005) as load:
        load.wait_until(lambda: server.log().count("is replaced") >= 2, 40)
        load.wait(20)
    assert load.failures == []


def test_every_descriptor_closed(fresh: Any) -> None:
    """Nothing is left to serve with: the worker ends, or is found to hang, and is replaced."""
    server = fresh("--workers", "2", "--timeout-worker-healthcheck", "2")
    server.expect_abort()
    server.wait_log("Worker 2 is ready")
    fetch(server, "/ok")
    server.mark()
    with server.raw() as client:
        client.socket.settimeout(20 * SLOWNESS)
        client.get("/close_all")
        try:
            client.recv_all()
        except (ConnectionResetError, TimeoutError):
            pass
    server.wait_log("Worker . is ready", 30)
    for _ in range(10):
        assert is_well(server)


# --- what belongs to the server ---------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["policy", "umask"])
def test_settings_of_the_process(fresh: Any, deed: str) -> None:
    server = fresh()
    fetch(server, f"/{deed}")
    assert is_well(server)
    server.stop()


def test_a_loop_within(server: Server, backend: Any) -> None:
    """asyncio.run: works under WSGI, and raises under ASGI; neither harms the server."""
    for _ in range(3):
        text = fetch(server, "/loops").text
        assert text == "inner" if backend.interface == "wsgi" else "cannot be called" in text
    assert is_well(server)


def test_handlers_of_signals(fresh: Any, backend: Any) -> None:
    """Python lets the main thread alone set them. Then the supervisor still ends the worker."""
    server = fresh("--workers", "2", "--timeout-graceful-shutdown", "0.5")
    response = fetch(server, "/handlers")
    assert response.status == (500 if backend.threads else 200)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 15 * SLOWNESS


def test_a_loop_that_is_stopped(serve: Factory, loop: str) -> None:
    """As if the program were to end: in order."""
    server = serve(
        "misbehaving:asgi", "--workers", "1", "--limit-max-requests", "1000000", loop=loop
    )
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/stop_loop")
        client.socket.settimeout(20 * SLOWNESS)
        client.recv_all()
    wait_until(lambda: server.log().count("is ready") == 2, 20)
    assert is_well(server)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_cancellation_swallowed(serve: Factory, loop: str, workers: str) -> None:
    """The others are served; and the server's end does not wait for ever."""
    server = serve(
        "misbehaving:asgi", "--timeout-cancel", "0.2", "--workers", workers,
        "--timeout-graceful-shutdown", "0.5", loop=loop,
    )  # fmt: skip
    with server.raw() as client:
        client.get("/swallow_cancellation")
        server.wait_log("swallowing")
    server.wait_log("swallowed")
    assert is_well(server)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 12 * SLOWNESS


def test_exceptions_swallowed(serve: Factory) -> None:
    """WSGI, in the thread that serves: only the supervisor can end it."""
    server = serve(
        "misbehaving:wsgi", "--workers", "2", "--timeout-worker-healthcheck", "2", interface="wsgi"
    )
    server.expect_abort()
    with server.raw() as client:
        client.get("/swallow")
        server.wait_log("swallowing")
        server.wait_log("hung, and was killed by SIG", 20)
    server.wait_log("Worker . is ready")
    assert is_well(server)
