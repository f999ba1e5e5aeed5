"""The command line as a person uses it: what it says, how it starts, how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.client import SLOWNESS
from support.command import assert_line, command
from support.server import APPS, Server, child_environment

from asgiserver import options

Factory = Callable[..., Server]
APP = "cli_apps:app"
WSGI = "cli_wsgi:app"

# --- help and version ---


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_grouped_and_fits_a_terminal(word: str) -> None:
    from asgiserver import options

    done = command(word)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "Usage: asgiserver [OPTIONS] [APP]"
    assert max(len(line) for line in lines) < 80
    groups = [line.partition(" (")[0].rstrip(":") for line in lines if re.match(r"\w.*:$", line)]
    assert groups == [*options.GROUPS, "Other"]


def test_help_names_every_option() -> None:
    text = command("--help").stdout
    for row in options.OPTIONS:
        assert f"\n  {row.spelling}" in text
        assert row.help.split()[0] in text


def test_version() -> None:
    done = command("--version")
    assert re.fullmatch(
        r"asgiserver \d+\.\d+\.\d+ \(CPython 3\.\d+\.\d+\S*, libuv \d+\.\d+\.\d+, llhttp \d+\.\d+\.\d+,"
        r" OpenSSL \d+\.\d+\.\d+, Linux \w+\)\n",
        done.stdout,
    )


# --- wrong options ---


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--prot", "80"], "No such option"),
        (["--prot", "80"], "--port"),
        (["--max-requests", "1"], "--max-requests is spelled --limit-max-requests here."),
        (["-p", "80"], "-p is spelled --port N or --pid FILE here."),
        (["-D"], "-D is left to the service manager"),
        (["-k", "uvicorn.workers.UvicornWorker"], "-k is not needed: --interface auto finds out"),
        (["--timeout", "30"], "--timeout is spelled --timeout-worker-healthcheck here"),
        (["--reload-delay", "1"], "--reload-delay is not needed: the kernel tells of changes."),
        (["--certfile", "x"], "--certfile is spelled --ssl-certfile here."),
        (["--ssl-keyfile", "x"], "--ssl-keyfile: does nothing without --ssl-certfile."),
        (["--ws", "auto"], "'auto' is not one of"),
        (["--no-ws"], "--no-ws is spelled --ws off here."),
        (["--chdir", "x"], "--chdir is spelled --app-dir here."),
        (["--port", "70000"], "'--port': 70000 is more than 65535."),
        (["--port", "http"], "'--port': 'http' is not a whole number."),
        (["--timeout-write", "-1"], "'--timeout-write': -1 is less than 0."),
        (["--uds-mode", "rw"], "'--uds-mode': 'rw' is not an octal number like 660."),
        (["--header", "X"], "'--header': 'X' is not NAME:VALUE."),
        (["--header", "A B: c"], "'--header': 'A B' is not a header name."),
        (["--loop", "trio"], "'trio' is not one of"),
        (["--workers", "many"], "'--workers': 'many' is not a whole number."),
        (["-w", "0"], "--workers': 0 is less than 1."),
        (["a:b", "c:d"], "unexpected extra argument (c:d)"),
    ],
)
def test_wrong_options(args: list[str], text: str) -> None:
    done = command(*args)
    assert done.returncode == 2
    assert text in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ASGISERVER_PORT", "x", "'x' is not a whole number"),
        ("ASGISERVER_ACCESS_LOG", "maybe", "'maybe' is not a valid boolean"),
        ("ASGISERVER_HEADER", "A: b\nnone", "'none' is not NAME:VALUE"),
        # as Kubernetes sets it for a service of that name
        ("ASGISERVER_PORT", "tcp://10.0.0.1:80", "'tcp://10.0.0.1:80' is not a whole number"),
        ("WEB_CONCURRENCY", "many", "'many' is not a whole number"),
    ],
)
def test_wrong_environment(name: str, value: str, text: str) -> None:
    """The variable is named: who has not set it looks in vain for an option."""
    done = command(APP, env={name: value})
    assert done.returncode == 2
    assert f"Invalid value for environment variable {name}: {text}" in done.stdout


# --- what a newcomer does wrong ---


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["cli_aps:app"], f'There is no module "cli_aps" in {APPS}, nor is one installed. '
                          "Did you mean cli_apps?"),
        (["cli_apps:apq"], '"cli_apps" has no attribute "apq". Did you mean app?'),
        (["cli_apps:__name__"], "cli_apps:__name__ is a str, not an application"),
        (["cli_apps:"], '"cli_apps:" does not say which application to serve.'),
        (["cli_apps:create()"], "write --factory cli_apps:create"),
        (["--factory", APP], "leave out --factory"),
        (["--env-file", "none", APP], "--env-file none: there is no such file."),
        (["--log-config", "none.json", APP], "--log-config none.json: there is no such file."),
        (["--env-file", ".", APP], "--env-file .: this is a folder, not a file."),
        (["--log-config", ".", APP], "--log-config .: this is a folder, not a file."),
        (["--app-dir", "none", APP], "--app-dir none: there is no such folder."),
        (["--fd", "99", APP], "--fd 99: the descriptor is not open."),
        (["--uds", "cli_apps.py", APP], "the file exists and is not a socket."),
        (["--host", "192.0.2.1", APP], "Cannot listen at 192.0.2.1:8000: it is no address of"),
    ],
)  # fmt: skip
def test_one_line_and_status_1(args: list[str], text: str) -> None:
    if args[0].startswith("cli_") or args[0] == "--factory":
        args = ["--port", "0", *args]
    assert_line(command(*args), text)


def test_an_exception_in_the_application_shows_its_frames_alone(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def fail():\n    raise LookupError('here')\nfail()\n")
    done = command("--port", "0", "main:app", cwd=tmp_path)
    assert done.returncode == 1
    assert "ERROR:    main failed while it was imported: LookupError: here\n" in done.stdout
    frames = re.findall(r'File "(.+?)", line (\d+)', done.stdout)
    assert frames == [(str(tmp_path / "main.py"), "3"), (str(tmp_path / "main.py"), "2")]


def test_a_port_in_use_is_found_before_the_import(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print('imported', flush=True)\napp = lambda a, b: None\n")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = command("--port", str(port), "main:app", cwd=tmp_path)
    assert_line(
        done, f"Cannot listen at 127.0.0.1:{port}: the port is in use by process {os.getpid()} ("
    )
    assert re.search(r"Free: --port \d+$", done.stdout)


def test_nothing_to_serve(tmp_path: Path) -> None:
    assert_line(command("--port", "0", cwd=tmp_path), "No application was named, and ")


@pytest.mark.parametrize("file", ["main.py", "app.py", "asgi.py", "wsgi.py"])
@pytest.mark.parametrize("name", ["app", "application"])
def test_the_application_is_found(serve: Factory, tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).write_text(f"async def {name}(scope, receive, send): pass\n")
    server = serve(None, "--app-dir", str(tmp_path))
    assert f"Serving {Path(file).stem}:{name} (ASGI 3 on " in server.log()


def test_a_file_is_an_application(serve: Factory) -> None:
    server = serve("cli_apps.py:app", "--root-path", "/a")
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == "/a"
    assert "Serving cli_apps:app " in server.log()


# --- starting ---


def test_banner(serve: Factory) -> None:
    server = serve(APP, loop="asyncio")
    assert re.fullmatch(
        rf"INFO:     asgiserver \S+ on CPython 3\.\S+, process {server.pid}\n"
        r"INFO:     Serving cli_apps:app \(ASGI 3 on asyncio\)\n"
        rf"INFO:     Listening at http://127\.0\.0\.1:{server.port}\n"
        r"INFO:     Press CTRL\+C to quit\n",
        server.wait_log(r"(?s).*quit\n").group(),
    )


def test_banner_of_wsgi(serve: Factory) -> None:
    assert "Serving cli_wsgi:app (WSGI)\n" in serve(WSGI, port_option=True).log()


def test_quiet(serve: Factory, tmp_path: Path) -> None:
    """Nothing is said, but access lines and errors; readiness is seen by connecting."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        process = subprocess.Popen(
            [sys.executable, "-m", "asgiserver", "--quiet", "--fd", str(listener.fileno()), APP],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            cwd=APPS,
            env=child_environment({}),
        )
        try:
            with socket.create_connection(listener.getsockname(), timeout=20 * SLOWNESS) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                while client.recv(65536):
                    pass
            process.terminate()
            output, _ = process.communicate(timeout=20 * SLOWNESS)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    lines = output.decode().splitlines()
    assert sorted(re.sub(r"\d+\.\S+:\d+", "CLIENT", line) for line in lines) == [
        'INFO:     CLIENT - "GET / HTTP/1.1" 200 OK',
        "shut down",
    ]


def test_environment(serve: Factory) -> None:
    server = serve(
        None,
        env={
            "ASGISERVER_APP": APP,
            "ASGISERVER_ACCESS_LOG": "off",
            "ASGISERVER_SERVER_HEADER": "0",
            "ASGISERVER_HEADER": "X-One: a b\nX-Two: c",
            "ASGISERVER_ROOT_PATH": "/from-the-environment",
        },
    )
    with server.raw() as client:
        client.get("/")
        response = client.recv_response()
    assert response.text == "/from-the-environment"
    assert (response.get("x-one"), response.get("x-two")) == (b"a b", b"c")
    assert response.get("server") is None
    server.stop()
    assert "GET" not in server.log()


def test_the_command_line_wins(serve: Factory) -> None:
    server = serve(APP, "--root-path", "/a", env={"ASGISERVER_ROOT_PATH": "/b"})
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == "/a"


def test_env_file(serve: Factory, tmp_path: Path) -> None:
    pytest.importorskip("dotenv")
    (tmp_path / "main.py").write_text(
        "import os\nassert os.environ['P_SECRET'] == 'x y'\napp = lambda a, b: None\n"
    )
    (tmp_path / "env").write_text("P_SECRET='x y'\n")
    serve("main:app", "--app-dir", str(tmp_path), "--env-file", str(tmp_path / "env"))


@pytest.mark.parametrize(
    ("app", "args", "line"),
    [
        ("cli_apps:create", ["--factory"], "Serving cli_apps:create (ASGI 3 on"),
        ("cli_apps:create", [], "WARNING:  cli_apps:create is a factory, and was called;"),
        (WSGI, ["--interface", "wsgi"], "Serving cli_wsgi:app (WSGI)"),
    ],
)
def test_kinds_of_applications(serve: Factory, app: str, args: list[str], line: str) -> None:
    server = serve(app, *args)
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().status == 200
    assert line in server.log()


def test_wsgi_runs_without_asyncio(serve: Factory) -> None:
    with serve(WSGI).raw() as client:
        client.get("/")
        assert client.recv_response().text == "none"


def test_trace(serve: Factory) -> None:
    server = serve(APP, "--log-level", "trace")
    with server.raw() as client:
        client.get("/traced")
        client.recv_response()
    server.stop()
    log = server.log()
    assert "TRACE:    [1] receive {'type': 'lifespan.startup'}\n" in log
    assert re.search(r"TRACE:    \[2\] started \{.*'path': '/traced'", log)
    assert "TRACE:    [2] send {'type': 'http.response.body', 'body': '<0 bytes>'}\n" in log
    assert "TRACE:    [2] finished\n" in log


def test_log_config_gets_access_records(serve: Factory, tmp_path: Path) -> None:
    (tmp_path / "log.ini").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=out\n[formatters]\nkeys=short\n"
        "[logger_root]\nlevel=INFO\nhandlers=out\n"
        "[handler_out]\nclass=StreamHandler\nformatter=short\nargs=(sys.stdout,)\n"
        "[formatter_short]\nformat=<%(name)s> %(message)s\n"
    )
    server = serve(APP, "--log-config", str(tmp_path / "log.ini"))
    with server.raw() as client:
        client.get("/path?q=1")
        client.recv_response()
    server.wait_log(r'<asgiserver\.access> 127\.0\.0\.1:\d+ - "GET /path\?q=1 HTTP/1\.1" 200\n')


# --- listening ---


def test_a_unix_socket_comes_and_goes(serve: Factory, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = serve(APP, "--uds-mode", "600", uds=path)
    assert path.stat().st_mode & 0o777 == 0o600
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().status == 200
    server.stop()
    assert not path.exists()


def test_a_killed_servers_unix_socket_is_taken_over(serve: Factory, tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = serve(APP, uds=path)
    assert_line(command("--uds", str(path), APP), f"it is in use by process {first.pid} (")
    first.signal(signal.SIGKILL)
    first.wait()
    assert path.exists()
    with serve(APP, uds=path).raw() as client:
        client.get("/")
        assert client.recv_response().status == 200


def test_clients_are_refused_until_the_startup_is_complete(serve: Factory, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = serve("cli_apps:stubborn_start", uds=path, wait=False)
    server.wait_log("starting")
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(path))
    server.signal(signal.SIGTERM)
    assert server.wait() == 143


# --- stopping ---

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def finished(server: Server) -> tuple[int, str]:
    return server.wait(), server.log()


@BOTH
def test_an_idle_server_stops(serve: Factory, backend: Any, number: int) -> None:
    server = serve(WSGI if backend.interface == "wsgi" else APP, **backend.options)
    with server.raw() as client:  # An idle connection does not hold it.
        client.get("/")
        client.recv_response()
        server.signal(number)
        status, log = finished(server)
    assert status == 0
    assert log.endswith("INFO:     Stopped\n")
    assert "Traceback" not in log


@BOTH
def test_a_signal_during_the_startup(serve: Factory, loop: str, number: int) -> None:
    server = serve("cli_apps:stubborn_start", loop=loop, wait=False)
    server.wait_log("starting")
    server.signal(number)
    status, log = finished(server)
    assert status == 128 + number
    assert log == "starting\n"


WEAK = """
import os, signal, weakref

class Something:
    pass

def gone(_reference):
    os.kill(os.getpid(), signal.SIGTERM)

something = Something()
reference = weakref.ref(something, gone)
del something  # what is raised here is printed, and that is all

def app(environ, start_response):
    raise AssertionError
"""


def test_a_signal_whose_exception_comes_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "weak.py").write_text(WEAK)
    done = command("--uds", str(tmp_path / "s"), "--app-dir", str(tmp_path), "weak:app")
    assert done.returncode == 143
    assert "Exception ignored" not in done.stdout  # nothing is wrong
    assert "Serving" not in done.stdout


def test_a_signal_during_the_import(serve: Factory, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(600)\n"
    )
    server = serve("main:app", "--app-dir", str(tmp_path), wait=False)
    server.wait_log("importing")
    server.signal(signal.SIGTERM)
    status, log = finished(server)
    assert status == 143
    assert log == "importing\n"


@pytest.mark.parametrize("app", ["app", "stubborn_request"])
def test_requests_are_cut_when_the_time_is_over(serve: Factory, loop: str, app: str) -> None:
    server = serve(f"cli_apps:{app}", "--timeout-graceful-shutdown", "0.2", loop=loop)
    with server.raw() as client:
        client.get("/forever")
        server.wait_log("waiting")
        server.signal(signal.SIGTERM)
        status, log = finished(server)
    assert status == 0
    assert "INFO:     Waiting for running requests: 1 (CTRL+C cuts them)\n" in log
    assert "WARNING:  Cut requests that did not end within 0.2 s: 1\n" in log
    assert ("shut down" if app == "app" else "cancelled") in log
    assert "Traceback" not in log


def test_a_second_signal_cuts_and_lets_the_application_shut_down(serve: Factory, loop: str) -> None:
    server = serve(APP, loop=loop)
    with server.raw() as client:
        client.get("/forever")
        server.wait_log("waiting")
        server.signal(signal.SIGTERM)
        server.wait_log("Waiting for running requests")
        server.signal(signal.SIGINT)
        status, log = finished(server)
    assert status == 0
    assert log.index("Cut requests as asked for: 1") < log.index("shut down")


def test_a_third_signal_ends_the_process(serve: Factory, loop: str) -> None:
    server = serve("cli_apps:stubborn_end", loop=loop)
    server.signal(signal.SIGTERM)
    server.wait_log("hanging")
    server.signal(signal.SIGTERM)
    # Two of the same number that come together count once: the third is another one.
    server.signal(signal.SIGINT)
    status, log = finished(server)
    assert status in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "Stopped at once, as asked for the third time.\n" in log


def test_a_blocked_loop_can_be_ended(serve: Factory, loop: str) -> None:
    server = serve(APP, loop=loop)
    with server.raw() as client:
        client.get("/blocked")
        server.wait_log("waiting")
        for _ in range(100):
            server.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(0.1)  # Signals of one number that come together are one.
                break
        assert "as asked for the third time" in finished(server)[1]


@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.parametrize("app", [APP, WSGI])
def test_a_signal_behind_the_stop_is_no_death(
    serve: Factory, tmp_path: Path, app: str, count: str
) -> None:
    """The second SIGTERM of an impatient service manager finds a server that ends already."""
    (tmp_path / "sitecustomize.py").write_text(_SIGNAL_AT_EXIT)
    server = serve(app, "--workers", count, env={"PYTHONPATH": f"{tmp_path}:{APPS}"})
    server.stop()
    assert "Stopped" in server.log()


_SIGNAL_AT_EXIT = """
import atexit, os, signal
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
"""


@pytest.mark.parametrize("second", [True, False])
def test_a_blocked_wsgi_application_is_cut(serve: Factory, second: bool) -> None:
    seconds = "30" if second else "0.2"
    server = serve(WSGI, "--timeout-graceful-shutdown", seconds)
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/forever")
        server.wait_log("waiting")
        server.signal(signal.SIGTERM)
        if second:
            server.signal(signal.SIGINT)
        status, log = finished(server)
    assert status == 0
    assert "WARNING:  Cut while it ran: " in log
    assert re.findall(r'File "(.+)", line', log) == [str(APPS / "cli_wsgi.py")]


def test_a_cut_while_a_line_is_logged(serve: Factory, tmp_path: Path) -> None:
    """No exception would come out of what the core calls for it."""
    (tmp_path / "sitecustomize.py").write_text(_SIGNALS_WHILE_IT_LOGS)
    server = serve(WSGI, env={"PYTHONPATH": f"{tmp_path}:{APPS}"})
    with server.raw() as client:
        client.send("NONSENSE\r\n\r\n")
        status, log = finished(server)
    assert status == 0
    assert log.count("request refused") == 1


_SIGNALS_WHILE_IT_LOGS = """
import os, signal
from asgiserver import logs

def log_from_core(*words, log=logs.log_from_core):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    log(*words)

logs.log_from_core = log_from_core
"""


def test_an_application_that_exits(serve: Factory, loop: str) -> None:
    server = serve(APP, loop=loop)
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/exit")
        status, log = finished(server)
    assert status == 5
    assert "shut down" in log


def test_leftover_tasks_end_quietly(serve: Factory, loop: str) -> None:
    server = serve("cli_apps:leftover", loop=loop)
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().text == "left"
    server.stop()
    assert "Traceback" not in server.log()
