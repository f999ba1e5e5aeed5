"""What clients meet while a server stops: nobody waits for an answer that never comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.client import SLOWNESS
from support.pace import in_time
from support.probes import refuses
from support.processes import wait_until
from support.server import Server

MODES = {
    "alone": (),
    "several": ("--workers", "2"),
    "preloaded": ("--workers", "2", "--preload"),
}
LAST_WAIT = 1.0  # seconds that who has connected has for a request when the server stops, at least
APPS = {"asgi": ("workers_asgi:app", "/forever"), "wsgi": ("workers_wsgi:app", "/sleep")}


@pytest.fixture(params=MODES.values(), ids=MODES.keys())
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    options: tuple[str, ...] = request.param
    return options


def start(serve: Any, app: str, mode: tuple[str, ...], *args: str, **options: Any) -> Server:
    """With all of its workers."""
    server: Server = serve(app, *mode, *args, **options)
    for number in (1, 2) if mode else ():
        server.wait_log(f"Worker {number} is ready")
    return server


@pytest.mark.parametrize(("app", "path"), APPS.values(), ids=APPS.keys())
def test_refused_while_draining(serve: Any, mode: tuple[str, ...], app: str, path: str) -> None:
    """A connection that is made too late is refused, not kept waiting until the process ends."""
    server = start(serve, app, mode)
    server.expect_tracebacks()  # of the request that is cut in the end
    with server.raw() as client:
        client.get(path)
        server.wait_log("^waiting$")
        server.signal(signal.SIGTERM)
        wait_until(lambda: refuses(server), what="for a refusal")
        assert server.alive()
        server.stop()


def test_last_request_on_an_idle_connection(
    serve: Any, backend: Any, mode: tuple[str, ...]
) -> None:
    """With a delay there is a load balancer, which may be sending one while the delay ends."""
    delay = 2.0
    app, options = APPS[backend.interface][0], ("--shutdown-delay", str(delay))

    def attempt() -> bool:
        server = start(serve, app, mode, *options, **backend.options)
        with server.raw() as idle:
            idle.get()
            assert not idle.recv_response().closes
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            wait_until(lambda: refuses(server), what="for a refusal")
            idle.get()
            if time.monotonic() - began > delay + LAST_WAIT:
                return False
            response = idle.recv_response()
            assert (response.status, response.closes) == (200, True)
        assert server.wait() == 0
        return True

    in_time(attempt)


def test_first_request_of_a_connection(serve: Any, backend: Any, mode: tuple[str, ...]) -> None:
    """Who has connected is served, though his request comes when the server stops already."""

    def attempt() -> bool:
        server = start(serve, APPS[backend.interface][0], mode, **backend.options)
        began = time.monotonic()
        with server.raw() as client:
            server.signal(signal.SIGTERM)
            wait_until(lambda: refuses(server), what="for a refusal")
            client.get()
            if time.monotonic() - began > LAST_WAIT:
                return False
            response = client.recv_response()
            assert (response.status, response.closes) == (200, True)
        assert server.wait() == 0
        return True

    in_time(attempt)


def test_who_comes_while_the_nursery_still_has_the_sockets(serve: Any) -> None:
    """It has a second to let go of them. Until then the workers serve: else nobody would."""

    def attempt() -> bool:
        server = start(serve, APPS["asgi"][0], MODES["preloaded"])
        nursery = int(server.wait_log(r"imported by (\d+)")[1])
        began = time.monotonic()
        os.kill(nursery, signal.SIGSTOP)
        server.signal(signal.SIGTERM)
        while time.monotonic() - began < 0.5:
            with server.raw() as client:
                connected = time.monotonic()
                client.get("/", "Connection: close")
                if connected - began > 1:
                    break
                assert client.recv_response().status == 200
        os.kill(nursery, signal.SIGCONT)
        assert server.wait() == 0
        return connected - began < 1

    in_time(attempt)


HASTY = """
import os, signal, threading

def end():
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass

class Timer(threading.Timer):
    def start(self):
        end()  # within the handler of the first one
        super().start()

threading.Timer = Timer

def app(environ, start_response):
    end()
    raise AssertionError("it goes on")
"""


def test_a_second_signal_while_the_first_is_handled(serve: Any, tmp_path: Path) -> None:
    """It cuts the application, wherever the first one's handler was."""
    (tmp_path / "main.py").write_text(HASTY)
    server = serve("main:app", "--app-dir", str(tmp_path), interface="wsgi")
    server.expect_tracebacks()  # of where the request was cut
    with server.raw() as client:
        client.get()
        assert server.wait() == 0
    assert "it goes on" not in server.log()
    assert server.log().endswith("Stopped\n")


STARTING = """
import os, signal, threading

class Thread(threading.Thread):
    def start(self):
        super().start()
        if self.name != "asgiserver-0":
            return
        try:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                for _ in range(1000):
                    pass
        except BaseException as error:
            print("interrupted by", repr(error))
            raise

threading.Thread = Thread

def app(environ, start_response):
    raise AssertionError("nobody asks")
"""


def test_a_second_signal_while_threads_start(serve: Any, tmp_path: Path) -> None:
    """There is no application to cut: what starts them is not interrupted, and ends in order."""
    (tmp_path / "main.py").write_text(STARTING)
    args = ("main:app", "--app-dir", str(tmp_path), "--threads", "4")
    server = serve(*args, interface="wsgi", wait=False)
    assert server.wait() == 0
    assert "interrupted" not in server.log()
    assert server.log().endswith("Stopped\n")


LAST = """
import os, signal

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        for _ in range(3):
            kill(os.getpid() if os else pid, number)

last = Last()

def app(environ, start_response):
    raise AssertionError("nobody asks")
"""


def test_signals_while_the_interpreter_ends(serve: Any, tmp_path: Path) -> None:
    """A process that has stopped in order ends so, whoever is impatient."""
    (tmp_path / "main.py").write_text(LAST)
    server = serve("main:app", "--app-dir", str(tmp_path), interface="wsgi")
    server.stop()
    assert server.log().endswith("Stopped\n")


EARLY = """
import asyncio, os, signal
from asgiserver import Config, Server
from asgiserver.stop import StopRequest

install = StopRequest.install

def late(self):
    if asyncio._get_running_loop() is not None and self.level == 0:
        os.kill(os.getpid(), signal.SIGTERM)  # while the handler is the event loop's own
        for _ in range(1000):
            pass
    install(self)

async def app(scope, receive, send):
    raise AssertionError

StopRequest.install = late
Server(Config(app, uds={path!r}, loop={loop!r}, lifespan="off")).run()
"""


def test_a_signal_while_the_handlers_change(loop: str, tmp_path: Path) -> None:
    code = EARLY.format(path=str(tmp_path / "s"), loop=loop)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=20 * SLOWNESS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("Stopped\n")
