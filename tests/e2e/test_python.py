"""``run``, ``Config`` and ``Server`` in a program: inside its loop, in its threads, with its signals."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.client import SLOWNESS, connect
from support.server import APPS, child_environment

import asgiserver
from asgiserver import Config, Server, StartError

SECONDS = 20 * SLOWNESS
events: list[str] = []
go_on = threading.Event()


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Each copy of libuv (the core's, uvloop's) opens a pipe at its first use, for good."""
    server = make(loop="uvloop")
    server.should_exit = True
    server.run()
    server = make(wsgi)
    server.should_exit = True
    server.run()
    gc.collect()  # What other tests have left behind does not go meanwhile.


ALARM = {signal.SIGALRM}  # pytest-timeout's


def wakeup_fd() -> int:
    """What C's signal handler writes to."""
    found = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(found)
    return found


def footprint() -> dict[str, Any]:
    """What a server must not change for good."""
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "signals": [signal.getsignal(number) for number in signal.valid_signals() - ALARM],
        "wakeup descriptor": wakeup_fd(),
        "loggers": [
            (name, list(logger.handlers), logger.level, logger.propagate)
            for name in ("asgiserver", "asgiserver.error", "asgiserver.access")
            for logger in [logging.getLogger(name)]
        ],
    }


def kernel_threads() -> int:
    """With those that Python does not know."""
    return len(os.listdir("/proc/self/task"))


@pytest.fixture(autouse=True)
def fresh(warm: None) -> Iterator[None]:
    """The process looks afterwards as it did before."""
    events.clear()
    go_on.clear()
    path = list(sys.path)
    before, threads = footprint(), kernel_threads()
    yield
    sys.path[:] = path
    end = time.monotonic() + SECONDS
    while kernel_threads() > threads and time.monotonic() < end:
        time.sleep(0.001)  # The kernel's thread ends a little after Python's.
    assert footprint() == before
    assert kernel_threads() <= threads


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for name in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{name}"
            events.append(name)
            await send({"type": f"lifespan.{name}.complete"})
        return
    if scope["path"] == "/wait":
        events.append("request")
        await asyncio.to_thread(go_on.wait, SECONDS)
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
                assert (await asyncio.to_thread(client.recv_response)).text == "ok"
            with pytest.raises(asyncio.CancelledError):
                await task

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


# --- async with, and with ---


BOTH = pytest.mark.parametrize("application", [app, wsgi])


@BOTH
def test_async_with(application: Any) -> None:
    async def main() -> None:
        async with Server(application, port=0, quiet=True) as server:
            assert server.url == f"http://127.0.0.1:{server.port}"
            assert server.urls == [server.url]
            assert await asyncio.to_thread(fetch, server.port) == "ok"
        assert (server.sockets, server.urls, server.started) == ([], [], True)
        with pytest.raises(RuntimeError, match="does not run"):
            _ = server.url
        await server.shutdown()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_loop(main)
    assert events == (["startup", "shutdown"] if application is app else [])


@BOTH
def test_with_serves_in_a_thread(application: Any) -> None:
    with Server(application, port=0, quiet=True) as server:
        assert fetch(server.port) == "ok"
        assert server.thread in {thread.ident for thread in threading.enumerate()}
    assert server.sockets == []
    assert events == (["startup", "shutdown"] if application is app else [])


@BOTH
def test_with_inside_of_a_loop(application: Any) -> None:
    """As in a notebook, by someone who does not know."""

    async def main() -> None:
        with make(application) as server:
            assert await asyncio.to_thread(fetch, server.port) == "ok"

    in_loop(main)


@BOTH
def test_serve_beside_others(application: Any) -> None:
    async def main() -> None:
        server = make(application)
        async with serving(server):
            assert await asyncio.to_thread(fetch, server.port) == "ok"
            server.should_exit = True

    in_loop(main)


def test_servers_of_all_kinds_at_a_time() -> None:
    async def main() -> None:
        async with make() as one, make(wsgi) as two, make() as three:
            with make() as four, make(wsgi) as five:
                servers = [one, two, three, four, five]
                assert len({server.port for server in servers}) == 5
                await one.shutdown()
                for server in servers[1:]:
                    assert await asyncio.to_thread(fetch, server.port) == "ok"

    in_loop(main)


def test_shutdown_lets_requests_end() -> None:
    async def main() -> None:
        async with make() as server:
            with connect(("127.0.0.1", server.port)) as client:
                client.get("/wait")
                await until(lambda: "request" in events)
                ending = asyncio.create_task(server.shutdown())
                await until(lambda: server.should_exit)
                assert not server.force_exit
                go_on.set()
                assert (await asyncio.to_thread(client.recv_response)).text == "ok"
            await ending

    in_loop(main)


@pytest.mark.parametrize("how", ["grace", "force_exit"])
def test_shutdown_cuts(how: str) -> None:
    async def main() -> None:
        async with make(timeout_disconnect=SECONDS) as server:
            with connect(("127.0.0.1", server.port)) as client:
                client.get("/forever")
                await until(lambda: "request" in events)
                if how == "grace":
                    await server.shutdown(grace=0)
                else:
                    server.force_exit = True
                    await server.wait_closed()
                assert server.force_exit
                with pytest.raises(ConnectionResetError):
                    client.recv_all()
        with pytest.raises(ValueError, match="cannot be taken up again"):
            server.force_exit = False

    in_loop(main)
    assert events == ["startup", "request", "shutdown"]


def test_a_wsgi_application_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgiserver.server._OVERTIME", 0.05)
    running, end = threading.Event(), threading.Event()

    def hanging(environ: Any, start_response: Any) -> list[bytes]:
        running.set()
        end.wait(SECONDS)
        return wsgi(environ, start_response)

    async def main() -> None:
        server = make(hanging)
        await server.startup()
        with connect(("127.0.0.1", server.port)) as client:
            client.get("/")
            await asyncio.to_thread(running.wait, SECONDS)
            with pytest.raises(TimeoutError, match="does not return"):
                await server.shutdown(grace=0)
            end.set()
            await server.wait_closed()

    in_loop(main)


def test_an_exception_in_the_body_stops_the_server() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with make() as server:
                _ = 1 / 0
        assert server.sockets == []

    in_loop(main)
    with pytest.raises(ZeroDivisionError), make():
        _ = 1 / 0
    assert events == ["startup", "shutdown"] * 2


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


@pytest.mark.parametrize(
    ("application", "text"),
    [
        (refusing, "no database"),
        ("no_such_module_here:app", "There is no module"),
        (1, "not an application"),
    ],
)
@pytest.mark.parametrize("how", ["async with", "serve", "with", "run", "thread"])
def test_what_prevents_a_start_is_raised(how: str, application: Any, text: str) -> None:
    async def main() -> None:
        if how == "serve":
            await server.serve()
        else:
            async with server:
                pytest.fail("it started")

    def act() -> None:
        if how == "with":
            with server:
                pytest.fail("it started")
        elif how in ("run", "thread"):
            server.run()
        else:
            in_loop(main)

    caught: list[BaseException] = []

    def in_thread() -> None:
        try:
            act()
        except StartError as error:
            caught.append(error)

    server = make(application)
    if how == "thread":
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join(SECONDS)
    else:
        in_thread()
    assert text in str(caught[0])
    assert server.sockets == []
    assert not server.started


def test_an_address_in_use_is_found_before_the_import() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = Config("no_such_module_here:app", port=taken.getsockname()[1], quiet=True)

        async def main() -> None:
            with pytest.raises(StartError, match="the port is in use"):
                async with Server(config):
                    pytest.fail("it started")

        in_loop(main)
        with pytest.raises(StartError, match="the port is in use"), Server(config):
            pytest.fail("it started")


def test_a_start_that_is_cancelled() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        events.append("starting")
        await asyncio.Event().wait()

    async def main() -> None:
        server = make(slow)
        task = asyncio.create_task(server.startup())
        await until(lambda: "starting" in events, task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.sockets == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_loop(main)


def test_a_program_that_forgets_to_stop_it(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio.run cancels every task at the end, also those of the server."""
    logger = logging.getLogger("asgiserver")

    async def main() -> None:
        server = make()
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started, task)

    logger.addHandler(caplog.handler)
    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(caplog.handler)
    assert events == ["startup"]
    assert {(record.getMessage(), record.exc_info) for record in caplog.records} == {
        ("The application's lifespan was cancelled.", None)
    }


def test_settings_or_a_config() -> None:
    config = Config(app, port=0)
    assert Server(config).config is config
    assert Server(config=config).config is config
    assert Server(app, port=0).config == config
    assert Server(app=app, port=0).config == config
    with pytest.raises(TypeError, match="no application or settings beside it"):
        Server(config, port=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'prot'"):
        Server(app, prot=1)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 2), ("workers", "auto"), ("preload", True), ("pid", "x.pid"), ("user", "nobody"),
        ("group", "nogroup"), ("umask", 0o77), ("limit_max_age", 1.0), ("limit_max_rss", 1),
    ],
)  # fmt: skip
def test_settings_of_processes_are_refused(name: str, value: Any) -> None:
    server = make(**{name: value})
    with pytest.raises(ValueError, match=rf"^{name}: is for asgiserver\.run\(\)"):
        server.run()
    with pytest.raises(ValueError, match=rf"^{name}: "), server:
        pass


def test_an_application_that_is_an_object_cannot_be_reloaded() -> None:
    with pytest.raises(ValueError, match=r"^reload: .*by its name"):
        Config(app, reload=True)
    Config("module:app", reload=True)


@BOTH
def test_a_limit_of_requests_ends_it(application: Any) -> None:
    async def main() -> None:
        server = make(application, limit_max_requests=2)
        async with serving(server) as task:
            for _ in range(2):
                assert await asyncio.to_thread(fetch, server.port) == "ok"
            await task

    in_loop(main)


def test_an_application_that_ends_the_program() -> None:
    async def leaving(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            raise SystemExit(7)

    with pytest.raises(SystemExit) as caught, make(leaving, lifespan="off") as server:
        fetch(server.port)
    assert caught.value.code == 7


# --- sockets ---


@pytest.mark.parametrize("how", ["serve", "run"])
@BOTH
def test_sockets_that_exist_already(application: Any, how: str) -> None:
    first, second = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    ports = [sock.getsockname()[1] for sock in (first, second)]
    answers: list[str] = []

    def client() -> None:
        answers.extend(fetch(port) for port in ports)
        server.should_exit = True

    server = make(application)
    thread = threading.Thread(target=client)
    thread.start()
    if how == "run":
        server.run(sockets=[first, second])
    else:
        in_loop(lambda: server.serve(sockets=[first, second]))
    thread.join(SECONDS)
    assert answers == ["ok", "ok"]
    assert first.fileno() == second.fileno() == -1, "they are the server's, which closes them"


def test_a_socket_that_cannot_be_listened_on() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(StartError, match=r"sockets: .* not a TCP or Unix stream socket"):
            make().run(sockets=[datagrams])
        assert datagrams.fileno() != -1


def test_the_url_of_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "an app.sock"
    with Server(app, uds=str(path), quiet=True) as server:
        assert server.url == f"http+unix://{quote(str(path), safe='')}"
        assert server.port is None
        with connect(str(path)) as client:
            client.get("/")
            assert client.recv_response().text == "ok"
    assert not path.exists()


def test_run_says_so_in_a_loop() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"await server\.serve\(\)"):
            make().run()

    in_loop(main)


# --- logging ---


def test_handlers_of_the_program_stay(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("asgiserver")
    logger.addHandler(caplog.handler)
    try:
        with Server(app, port=0) as server:
            assert logger.handlers == [caplog.handler]
            with make(log_level="debug"):
                assert logger.level == logging.DEBUG
            assert fetch(server.port) == "ok"
    finally:
        logger.removeHandler(caplog.handler)
    assert "Listening at" in caplog.text
    assert "CTRL+C" not in caplog.text  # which is the program's


@BOTH
def test_log_files(application: Any, tmp_path: Path) -> None:
    messages, lines = tmp_path / "messages", tmp_path / "lines"
    with Server(application, port=0, log_file=str(messages), access_log_file=str(lines)) as server:
        assert fetch(server.port) == "ok"
    assert "Stopped" in messages.read_text()
    assert '"GET / HTTP/1.1" 200' in lines.read_text()


def test_the_last_of_several_servers_tidies_up() -> None:
    logger = logging.getLogger("asgiserver")
    second = make()
    with make():
        second.__enter__()
        assert len(logger.handlers) == 1
    assert len(logger.handlers) == 1
    assert fetch(second.port) == "ok"
    second.__exit__(None, None, None)
    assert logger.handlers == []


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


CTRL_C = """
import asyncio
from asgiserver import Server

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for name in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{name}.complete"})
        print("shut down", flush=True)
        return
    print("request", flush=True)
    while not (server.should_exit if scope["path"] == "/drained" else server.force_exit):
        await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

server = Server(app, port=0, timeout_disconnect=20)
try:
    asyncio.run(server.serve())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(("path", "signals"), [("/drained", 1), ("/cut", 2)])
def test_ctrl_c_under_asyncio_run(path: str, signals: int) -> None:
    """The first one lets requests end, the second cuts them; the program sees KeyboardInterrupt."""
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=child_environment({}),
        text=True,
    )
    lines: list[str] = []

    def wait_for(text: str) -> str:
        assert process.stdout is not None
        while text not in (line := process.stdout.readline()):
            assert line, "".join(lines)
            lines.append(line)
        return line

    try:
        port = int(wait_for("Listening at").rpartition(":")[2])
        with connect(("127.0.0.1", port)) as client:
            client.get(path)
            wait_for("request")
            process.send_signal(signal.SIGINT)
            if signals > 1:
                wait_for("Waiting for running requests")
                process.send_signal(signal.SIGINT)
            if path == "/drained":
                assert client.recv_response().text == "ok"
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        with process:
            pass
    output = "".join(lines) + output
    assert process.returncode == 0, output
    assert "interrupted\n" in output
    assert "Traceback" not in output
    if path == "/drained":
        assert "shut down\n" in output


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
