"""WSGI with --threads: what threads are for, and what must not go wrong with them.

That the rules of PEP 3333 hold as they do without threads is shown by test_wsgi.py, and by all tests that have the
backend wsgi-threads.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.client import SLOWNESS, RawClient, Response, connect
from support.processes import wait_until
from support.server import Server

Factory = Callable[..., Server]
APP = "threads_wsgi:app"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def ask(client: RawClient, name: str, argument: str = "") -> None:
    client.get(f"/{name}" + (f"?{quote(argument, safe='')}" if argument else ""))


def fetch(server: Server, name: str, argument: str = "") -> Response:
    with server.raw() as client:
        ask(client, name, argument)
        return client.recv_response()


def hold(server: Server, client: RawClient, pipe: Path) -> None:
    """Occupies a thread until something is written to ``pipe``."""
    ask(client, "hold", str(pipe))
    server.wait_log("app: holds")


# --- what threads are for --------------------------------------------------------------------------


def test_requests_run_at_the_same_time(shared: Factory) -> None:
    server = shared(APP, threads=4)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(4)]
        for client in clients:
            ask(client, "meet")
        for client in clients:
            assert client.recv_response().text == "hello"


@pytest.mark.parametrize("threads", [1, 4])
def test_they_are_threads_like_others(shared: Factory, threads: int) -> None:
    server = shared(APP, "--threads", str(threads))
    seen = [json.loads(fetch(server, "thread").body) for _ in range(20)]
    names = {each["name"] for each in seen}
    assert names <= {f"asgiserver-{n}" for n in range(threads)}
    assert {each["class"] for each in seen} == {"Thread"}
    assert all(each["daemon"] and not each["main"] for each in seen)
    assert {each["multithread"] for each in seen} == {threads > 1}
    assert max(each["requests"] for each in seen) > 1  # threading.local stays


def test_the_banner(shared: Factory) -> None:
    server = shared(APP, threads=4)
    assert "(WSGI with threads: 4)" in "".join(server._lines)


def test_pipelined_answers_stay_in_order(shared: Factory) -> None:
    server = shared(APP, threads=4)
    naps = ["0.2", "0", "0.1", "0.0", "0.05"]
    with server.raw() as client:
        for nap in naps:
            ask(client, "nap", nap)
        assert [client.recv_response().text for _ in naps] == naps


def test_start_response_belongs_to_its_thread(shared: Factory) -> None:
    assert "on another thread than the application" in fetch(shared(APP, threads=4), "spawn").text


def test_health_while_every_thread_is_held(serve: Factory, pipe: Path) -> None:
    server = serve(APP, "--health-path", "/healthy", threads=1)
    with server.raw() as client:
        hold(server, client, pipe)
        assert fetch(server, "healthy").status == 200
        pipe.write_text("done")
        assert client.recv_response().text == "done"


# --- slow and impatient clients --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["write", "pieces"])
def test_a_client_that_does_not_read_holds_its_thread_alone(serve: Factory, name: str) -> None:
    server = serve(APP, threads=2)
    before = server.rss()
    with server.raw() as client:
        ask(client, name)
        client.recv_exactly(65536)
        for _ in range(20):
            assert fetch(server, "hello").status == 200
        assert server.rss() - before < 10_000_000
        client.recv_exactly(10_000_000)  # and goes on when it is read
        client.reset()


@pytest.mark.parametrize(
    ("name", "line"),
    [("write", "app: write: ClientDisconnected: the client has left"), ("pieces", "app: closed")],
)
def test_a_client_that_leaves_frees_its_thread(serve: Factory, name: str, line: str) -> None:
    server = serve(APP, threads=1)
    with server.raw() as client:
        ask(client, name)
        client.recv_exactly(65536)
        client.reset()
    server.wait_log(line)
    assert fetch(server, "hello").text == "hello"
    assert "Exception in" not in server.log()


def test_who_leaves_while_queued_is_not_served(serve: Factory, pipe: Path) -> None:
    server = serve(APP, "--limit-concurrency", "2", threads=1)
    with server.raw() as first, server.raw() as second:
        hold(server, first, pipe)
        ask(second, "stuck")
        second.socket.settimeout(0.1)
        wait_until(lambda: fetch(server, "hello").status == 503)  # it is queued
        second.reset()
        with server.raw() as third:  # takes its place
            wait_until(lambda: _is_queued(third))
            pipe.write_text("done")
            assert first.recv_response().text == "done"
            assert third.recv_response().text == "hello"
    assert "app: is stuck" not in server.log()


def _is_queued(client: RawClient) -> bool:
    """The request that is sent here is not refused."""
    ask(client, "hello")
    client.socket.settimeout(0.3)
    try:
        client.socket.recv(1)
    except TimeoutError:
        client.socket.settimeout(10 * SLOWNESS)
        return True
    raise AssertionError("refused")


# --- limits ----------------------------------------------------------------------------------------


def test_the_queue_is_limited(serve: Factory, pipe: Path) -> None:
    """One runs and one waits; the third is told when to come again."""
    server = serve(APP, "--limit-concurrency", "2", threads=1)
    with server.raw() as first, server.raw() as second:
        hold(server, first, pipe)
        ask(second, "nap", "0.0")
        refused: list[Response] = []

        def refuse() -> bool:
            refused.append(fetch(server, "hello"))
            return refused[-1].status == 503

        wait_until(refuse)
        assert refused[-1].get("retry-after") == b"1"
        server.wait_log("limit_concurrency reached")
        pipe.write_text("done")
        assert first.recv_response().text == "done"
        assert second.recv_response().text == "0.0"
    assert fetch(server, "hello").status == 200


def test_without_a_limit_requests_wait(serve: Factory, pipe: Path) -> None:
    server = serve(APP, threads=1)
    with ExitStack() as stack:
        first = stack.enter_context(server.raw())
        hold(server, first, pipe)
        others = [stack.enter_context(server.raw()) for _ in range(50)]
        for client in others:
            ask(client, "hello")
        pipe.write_text("done")
        for client in others:
            assert client.recv_response().text == "hello"


# --- stopping --------------------------------------------------------------------------------------


@contextmanager
def told_to_drain(server: Server) -> Iterator[None]:
    """Draining has begun when an idle connection is closed."""
    with server.raw() as idle:
        ask(idle, "hello")
        idle.recv_response()
        yield
        server.signal(signal.SIGTERM)
        assert idle.recv_all() == b""


def test_draining_waits_for_threads(serve: Factory, pipe: Path) -> None:
    server = serve(APP, threads=2)
    with server.raw() as client:
        with told_to_drain(server):
            hold(server, client, pipe)
        assert server.alive()
        server.wait_log(r"Waiting for running requests: 1 \(CTRL\+C cuts them\)")
        pipe.write_text("done")
        response = client.recv_response()
        assert (response.text, response.closes) == ("done", True)
    assert server.wait() == 0


def test_stopping_says_nothing_of_requests_where_there_are_none(serve: Factory) -> None:
    server = serve(APP, threads=2)
    fetch(server, "hello")
    server.stop()
    assert "Waiting for" not in server.log()


def test_draining_waits_for_an_application_whose_client_left(serve: Factory, pipe: Path) -> None:
    server = serve(APP, threads=2)
    with server.raw() as client, told_to_drain(server):
        hold(server, client, pipe)
        client.reset()
    assert server.alive()
    pipe.write_text("done")
    assert server.wait() == 0
    assert "does not end" not in server.log()


@pytest.mark.parametrize("how", ["asleep", "busy"])
def test_a_second_signal_ends_a_stuck_application(serve: Factory, how: str) -> None:
    server = serve(APP, threads=2)
    with server.raw() as client:
        with told_to_drain(server):
            ask(client, "stuck", how)
            server.wait_log("app: is stuck")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "Requests whose application does not end, and are left to it: 1" in server.log()


def test_the_grace_time_ends_a_stuck_application(serve: Factory) -> None:
    server = serve(APP, "--timeout-graceful-shutdown", "1.5", threads=2)
    with server.raw() as client:
        ask(client, "stuck", "asleep")
        server.wait_log("app: is stuck")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began >= 1.4
    assert "Cut requests that did not end within 1.5 s: 1" in server.log()


def test_a_cut_ends_who_waits_for_a_client(serve: Factory) -> None:
    server = serve(APP, threads=2)
    with server.raw() as client:
        ask(client, "pieces")
        client.recv_exactly(65536)
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGINT)
        assert server.wait() == 0
    assert server.log().count("app: closed") == 1
    assert "does not end" not in server.log()


def test_what_waits_in_the_queue_is_cut_as_well(serve: Factory) -> None:
    server = serve(APP, "--timeout-graceful-shutdown", "1.5", threads=1)
    with server.raw() as first, server.raw() as second:
        ask(first, "stuck", "asleep")
        server.wait_log("app: is stuck")
        ask(second, "write")
        server.stop()
    assert "app: write" not in server.log()


def test_an_idle_server_has_nothing_to_do(serve: Factory) -> None:
    server = serve(APP, threads=4)
    fetch(server, "hello")
    before = server.cpu()
    time.sleep(1.5)
    assert server.cpu() - before <= 0.02


# --- memory ----------------------------------------------------------------------------------------


def test_what_was_sent_is_let_go(serve: Factory) -> None:
    """Large bodies are sent from where they are, and need the GIL to be let go."""
    server = serve(APP, threads=2)
    before = int(fetch(server, "references").text)
    for _ in range(20):
        assert len(fetch(server, "large").body) == 3_000_000
    with server.raw() as client:  # one that takes only a part
        ask(client, "large")
        client.recv_exactly(65536)
        client.reset()
    wait_until(lambda: int(fetch(server, "references").text) == before)


# --- together with the rest ------------------------------------------------------------------------


def test_workers_with_threads(serve: Factory) -> None:
    server = serve(APP, "--workers", "2", threads=2)
    for _ in range(10):
        assert fetch(server, "hello").text == "hello"


def test_access_log_through_logging(serve: Factory, tmp_path: Path) -> None:
    """Lines that Python wants reach it from the network's thread."""
    config = tmp_path / "log.json"
    config.write_text(
        json.dumps(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"f": {"format": "seen by logging: %(message)s"}},
                "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
                "root": {"handlers": ["h"], "level": "INFO"},
            }
        )
    )
    server = serve(APP, "--log-config", str(config), threads=2)
    with server.raw() as client:
        for _ in range(100):
            ask(client, "hello")
        for _ in range(100):
            client.recv_response()
    line = re.compile(r'^seen by logging: \S+ - "GET /hello HTTP/1.1" 200$', re.MULTILINE)
    wait_until(lambda: len(line.findall(server.log())) == 100, what="for a line each")


def test_refused_requests_are_logged(serve: Factory) -> None:
    server = serve(APP, threads=2)
    with server.raw() as client:
        client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert client.recv_response().status == 400
    server.wait_log(r"request refused \(400\)")


# --- load ------------------------------------------------------------------------------------------


def mixed(server: Server, problems: list[str]) -> None:
    wanted = [
        ("hello", "", b"hello"),
        ("nap", "0.001", b"0.001"),
        ("large", "", None),
        ("spawn", "", None),
    ]
    for round_ in range(15):
        with server.raw() as client:
            for name, argument, _ in wanted:
                ask(client, name, argument)
            if round_ % 5 == 4:
                client.reset()
                continue
            for _, _, body in wanted:
                response = client.recv_response()
                if response.status != 200 or (body is not None and response.body != body):
                    problems.append(f"{response.status} {response.body[:100]!r}")


def test_many_at_a_time(serve: Factory) -> None:
    """Eight threads, sixteen clients, some of which leave."""
    server = serve(APP, "--no-access-log", threads=8)
    problems: list[str] = []
    clients = [threading.Thread(target=mixed, args=(server, problems)) for _ in range(16)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert not problems, problems[:3]
    assert fetch(server, "hello").text == "hello"


# --- in a program ----------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[Any]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_nothing_is_left_in_a_program() -> None:
    """run() in a thread of the program: no thread and no descriptor stays behind."""
    from asgiserver import _core

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"hello"]

    def serve_once() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            core = _core.Server(app, interface="wsgi", threads=3)
            core.listen(listener.fileno())
            runner = threading.Thread(target=core.run)
            runner.start()
            with connect(address) as client:
                client.get("/")
                assert client.recv_response().text == "hello"
            wait_until(lambda: core.connections == 0)
            assert core.requests_total == 1
            core.drain()
            runner.join(15 * SLOWNESS)
            assert not runner.is_alive()
            core.close()

    serve_once()
    gc.collect()  # What other tests have left behind does not go meanwhile.
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        serve_once()
    wait_until(lambda: threading.active_count() <= threads, what="for threads")
    assert len(os.listdir("/proc/self/fd")) <= files


def test_threads_are_for_wsgi() -> None:
    from asgiserver import _core

    with pytest.raises(ValueError, match="interface"):
        _core.Server(print, interface="asgi", loop=object(), threads=1)  # type: ignore[arg-type]


def test_callbacks_come_on_the_thread_of_run(listener: Any) -> None:
    """The network's thread only tells of what happened."""
    from asgiserver import _core

    seen: list[tuple[str, bool]] = []

    def note(what: str) -> None:
        seen.append((what, threading.current_thread() is runner))

    def app(environ: Any, start_response: Any) -> list[bytes]:
        note("app")
        start_response("200 OK", [])
        return []

    core = _core.Server(
        app,
        interface="wsgi",
        threads=2,
        access_log=lambda records: note("log"),
        on_error=lambda level, message, exception: note(level),
    )
    core.listen(listener.fileno())
    core.call_at(1, lambda: note("marked"))
    runner = threading.Thread(target=core.run, args=(lambda: note("tick"), 0.05))
    runner.start()
    with connect(listener.getsockname()) as client:
        client.get("/")
        assert client.recv_response().status == 200
        client.send("GET / HTTP/1.1\r\n\r\n")
        assert client.recv_response().status == 400
    wanted = {("app", False)} | {(what, True) for what in ("tick", "log", "marked", "warning")}
    wait_until(lambda: wanted <= set(seen))
    wait_until(lambda: seen.count(("tick", True)) > 3)
    core.drain(lambda: note("drained"))
    runner.join(15 * SLOWNESS)
    core.close()
    assert set(seen) == wanted | {("drained", True)}


def test_what_a_tick_raises_ends_run(listener: Any) -> None:
    from asgiserver import _core

    def tick() -> None:
        raise RuntimeError("enough")

    core = _core.Server(print, interface="wsgi", threads=2)
    core.listen(listener.fileno())
    with pytest.raises(RuntimeError, match="enough"):
        core.run(tick, 1.0)
    core.close()
