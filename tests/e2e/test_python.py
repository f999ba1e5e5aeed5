"""``run``, ``Config`` and ``Server`` in a program: inside its loop, in its threads, with its signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.client import SLOWNESS, connect
from support.server import APPS, child_environment

import asgiserver
from asgiserver import Config, Server, StartError

SECONDS = 20 * SLOWNESS
events: list[str] = []
go_on = asyncio.Event()


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Each copy of libuv (the core's, uvloop's) opens a pipe at its first use, for good."""
    server = make(loop="uvloop")
    server.should_exit = True
    server.run()
    server = make(wsgi)
    server.should_exit = True
    server.run()


@pytest.fixture(autouse=True)
def fresh(warm: None) -> Iterator[None]:
    """The process looks afterwards as it did before."""
    events.clear()
    go_on.clear()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    files = len(os.listdir("/proc/self/fd"))
    path = list(sys.path)
    yield
    sys.path[:] = path
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len(os.listdir("/proc/self/fd")) == files


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for name in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{name}"
            events.append(name)
            await send({"type": f"lifespan.{name}.complete"})
        return
    if scope["path"] == "/wait":
        events.append("request")
        await go_on.wait()
    if scope["path"] == "/forever":
        events.append("request")
        await asyncio.Event().wait()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def make(application: Any = app, **settings: Any) -> Server:
    return Server(Config(application, port=0, quiet=True, **settings))


def fetch(port: int | None) -> str:
    with connect(("127.0.0.1", port)) as client:
        client.get("/")
        return client.recv_response().text


async def until(condition: Callable[[], bool], *tasks: asyncio.Task[Any]) -> None:
    """Lets the loop run until ``condition``; raises what one of ``tasks`` raises before."""
    while not condition():
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(server: Server, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(server.serve(**options))
    await until(lambda: server.started, task)
    yield task
    await asyncio.wait([task])
    assert asyncio.all_tasks() == {asyncio.current_task()}


def in_loop(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await main()

    asyncio.run(bounded())


# --- inside a loop ---


def test_serve_in_the_callers_loop() -> None:
    async def main() -> None:
        server = make()
        async with serving(server) as task:
            assert await asyncio.to_thread(fetch, server.port) == "ok"
            assert [sock.getsockname()[1] for sock in server.sockets] == [server.port]
            assert not server.should_exit
            server.should_exit = True
            await task
        assert server.should_exit
        assert (server.sockets, server.port) == ([], None)

    in_loop(main)
    assert events == ["startup", "shutdown"]


def test_two_servers_in_one_loop() -> None:
    async def main() -> None:
        first, second = make(), make()
        one, two = asyncio.create_task(first.serve()), asyncio.create_task(second.serve())
        await until(lambda: first.started and second.started, one, two)
        assert await asyncio.to_thread(fetch, first.port) == "ok"
        first.should_exit = True
        await one
        assert await asyncio.to_thread(fetch, second.port) == "ok"
        second.should_exit = True
        await two

    in_loop(main)


def test_should_exit_from_a_thread() -> None:
    async def main() -> None:
        server = make()
        async with serving(server):
            stopper = threading.Thread(target=setattr, args=(server, "should_exit", True))
            stopper.start()
        stopper.join()

    in_loop(main)


def test_should_exit_before_the_start() -> None:
    async def main() -> None:
        server = make()
        server.should_exit = True
        await server.serve()
        assert not server.started

    in_loop(main)


def test_stopping_cannot_be_taken_back() -> None:
    server = make()
    server.should_exit = False
    server.should_exit = True
    with pytest.raises(ValueError, match="cannot be told to go on"):
        server.should_exit = False


def test_a_cancelled_server_drains() -> None:
    """As CTRL+C in asyncio.run does it: the request that runs is answered."""

    async def main() -> None:
        server = make()
        async with serving(server) as task:
            with connect(("127.0.0.1", server.port)) as client:
                client.get("/wait")
                await until(lambda: "request" in events, task)
                task.cancel()
                await until(lambda: server.should_exit)
                go_on.set()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert client.recv_response().text == "ok"

    in_loop(main)
    assert events == ["startup", "request", "shutdown"]


def test_a_server_that_is_cancelled_twice_cuts() -> None:
    async def main() -> None:
        server = make(timeout_disconnect=SECONDS)
        async with serving(server) as task:
            with connect(("127.0.0.1", server.port)) as client:
                client.get("/forever")
                await until(lambda: "request" in events, task)
                task.cancel()
                await until(lambda: server.should_exit)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                with pytest.raises(ConnectionResetError):
                    client.recv_all()

    in_loop(main)
    assert events == ["startup", "request", "shutdown"]


def test_a_failed_start_is_raised() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        server = make(failing)
        with pytest.raises(StartError, match="no database") as caught:
            await server.serve()
        assert caught.value.exit_code == 3
        assert server.sockets == []

    in_loop(main)


def test_a_server_runs_once() -> None:
    async def main() -> None:
        server = make()
        server.should_exit = True
        await server.serve()
        with pytest.raises(RuntimeError, match="runs once"):
            await server.serve()

    in_loop(main)


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_it_in_the_callers_loop(number: int) -> None:
    async def main() -> None:
        async with serving(make(), signals=True):
            os.kill(os.getpid(), number)

    in_loop(main)
    assert events == ["startup", "shutdown"]


def test_the_programs_own_handlers_stay() -> None:
    async def main() -> None:
        server = make()

        def stop() -> None:
            events.append("mine")
            server.should_exit = True

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        try:
            async with serving(server, signals=True):
                os.kill(os.getpid(), signal.SIGTERM)
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    in_loop(main)
    assert events == ["startup", "mine", "shutdown"]


# --- run() ---


@pytest.mark.parametrize("application", [app, wsgi])
def test_run_in_a_thread(application: Any) -> None:
    server = make(application)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(int(SECONDS * 1000)):
            if server.started or not thread.is_alive():
                break
            thread.join(0.001)
        assert fetch(server.port) == "ok"
    finally:
        server.should_exit = True
        thread.join(SECONDS)
    assert not thread.is_alive()


@pytest.mark.parametrize("application", [app, wsgi])
def test_run_in_the_main_thread_is_stopped_by_another(application: Any) -> None:
    server = make(application)
    answers = []

    def client() -> None:
        for _ in range(int(SECONDS * 1000)):
            if server.started:
                break
            threading.Event().wait(0.001)
        answers.append(fetch(server.port))
        server.should_exit = True

    thread = threading.Thread(target=client)
    thread.start()
    server.run()
    thread.join(SECONDS)
    assert answers == ["ok"]


@pytest.mark.parametrize(
    ("application", "status", "text"),
    [
        ("no_such_module_here:app", 1, "There is no module"),
        (f"{__name__}:{{}}", 1, "is not a name"),
        (1, 1, "builtins:int is an int, not an application"),
    ],
)
def test_run_ends_the_program(
    application: Any, status: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    logger = logging.getLogger("asgiserver")
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(SystemExit) as caught:
            asgiserver.run(application, port=0)
    finally:
        logger.removeHandler(caplog.handler)
    assert caught.value.code == status
    assert text in caplog.text


def test_a_program_that_calls_run() -> None:
    """From the outside, as documented: stopped by SIGTERM, exit status 0, code behind ``run`` runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = (
            "import asgiserver, cli_apps, sys\n"
            f"asgiserver.run(cli_apps.app, fd={listener.fileno()})\n"
            "print('behind run', flush=True)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            cwd=APPS,
            env=child_environment({}),
        )
        try:
            with connect(listener.getsockname(), timeout=20) as client:
                client.get("/")
                assert client.recv_response().status == 200
            process.terminate()
            output, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert output.decode().endswith("INFO:     Stopped\nbehind run\n")
