"""The access log's formats and files, the file of messages, and what happens when they cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest
from support.client import SLOWNESS, connect
from support.server import APPS, Server, child_environment

Factory = Callable[..., Server]

CLF_TIME = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"


@pytest.fixture
def logging_server(serve: Factory, backend: Any) -> Callable[..., Server]:
    """A fresh server of logs_app over the backend."""
    return lambda *args, **options: serve(
        f"logs_app:{backend.interface}", *args, **backend.options, **options
    )


def fetch(server: Server, target: str = "/", *fields: str) -> None:
    with server.raw() as client:
        client.get(target, *fields)
        assert client.recv_response().status == 200


def await_lines(path: Path, n: int) -> list[str]:
    """Lines are written within moments."""
    deadline = time.monotonic() + 15 * SLOWNESS
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= n or time.monotonic() > deadline:
            assert len(lines) == n, lines
            return lines
        time.sleep(0.01)


# --- formats -----------------------------------------------------------------------------------------------

# Each atom, and what it must be for the request of the test.
ATOMS = {
    "%(h)s": r"127\.0\.0\.1",
    "%(l)s": "-",
    "%(u)s": "Aladdin",
    "%(t)s": CLF_TIME,
    "%(r)s": r"GET /a/b\?c=d%20e HTTP/1\.1",
    "%(m)s": "GET",
    "%(U)s": "/a/b",
    "%(q)s": "c=d%20e",
    "%(H)s": r"HTTP/1\.1",
    "%(s)s": "200",
    "%(B)s": "2",
    "%(b)s": "2",
    "%(f)s": r"http://x/\\x22",
    "%(a)s": r"curl\\xe9",
    "%(T)s": r"\d+",
    "%(D)s": r"\d+",
    "%(M)s": r"\d+",
    "%(L)s": r"\d+\.\d{6}",
    "%(p)s": r"<\d+>",
    "%({x-a}i)s": "1, 2",
    "%({X-None}i)s": "-",
    "%({x-b}o)s": "from the application",
    "%({Content-Length}o)s": "2",
    "%({server}o)s": "asgiserver",
    "%({date}o)s": r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT",
    "%({connection}o)s": "-",
    "%({REMOTE_ADDR}e)s": r"127\.0\.0\.1",
    "%({REMOTE_PORT}e)s": r"\d+",
    "%({HTTP_X_A}e)s": "1, 2",
    "%%": "%",
}
FIELDS = (
    "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
    'Referer: http://x/"',
    "User-Agent: curl\xe9",
    "X-A: 1",
    "x-a: 2",
)


def test_every_atom(logging_server: Callable[..., Server]) -> None:
    server = logging_server("--access-log-format", " | ".join(("atoms", *ATOMS)))
    fetch(server, "/a/b?c=d%20e", *FIELDS)
    values = server.wait_log(r"^atoms \| (.*)\n").group(1).split(" | ")
    assert len(values) == len(ATOMS)
    for (atom, pattern), value in zip(ATOMS.items(), values, strict=True):
        assert re.fullmatch(pattern, value), atom
    found = dict(zip(ATOMS, values, strict=True))
    assert found["%(p)s"] == f"<{server.pid}>"
    assert int(found["%(D)s"]) // 1000 == int(found["%(M)s"])


@pytest.mark.parametrize(
    ("preset", "pattern"),
    [
        ("uvicorn", r'INFO:     127\.0\.0\.1:\d+ - "GET /a\?b HTTP/1\.1" 200 OK'),
        ("common", rf'127\.0\.0\.1 - - {CLF_TIME} "GET /a\?b HTTP/1\.1" 200 2'),
        (
            "combined",
            rf'127\.0\.0\.1 - - {CLF_TIME} "GET /a\?b HTTP/1\.1" 200 2 "-" "curl \\x22x\\x22"',
        ),
    ],
)
def test_presets(logging_server: Callable[..., Server], preset: str, pattern: str) -> None:
    server = logging_server("--access-log-format", preset)
    fetch(server, "/a?b", 'User-Agent: curl "x"')
    server.wait_log(rf"^{pattern}\n")


def test_json(logging_server: Callable[..., Server]) -> None:
    server = logging_server("--access-log-format", "json")
    before = datetime.now(UTC)
    fetch(server, '/a"\\?b=%22', "User-Agent: caf\xe9\t\\", "Referer: ")
    record = json.loads(server.wait_log(r"^\{.*\}$").group())
    assert list(record) == [
        "time",
        "client",
        "method",
        "path",
        "query",
        "version",
        "status",
        "bytes",
        "duration_us",
        "referer",
        "user_agent",
    ]
    assert abs((datetime.fromisoformat(record.pop("time")) - before).total_seconds()) < 60
    assert 0 <= record.pop("duration_us") < 60_000_000
    assert record == {
        "client": "127.0.0.1",
        "method": "GET",
        "path": '/a"\\',
        "query": "b=%22",
        "version": "1.1",
        "status": 200,
        "bytes": 2,
        "referer": "",
        "user_agent": "caf\xe9\t\\",
    }


def test_json_on_a_unix_socket(serve: Factory, tmp_path: Path) -> None:
    server = serve("logs_app:asgi", "--access-log-format", "json", uds=tmp_path / "s")
    fetch(server)
    assert json.loads(server.wait_log(r"^\{.*\}$").group())["client"] is None


def test_duration(serve: Factory, loop: str) -> None:
    """From the complete head of the request to the end of the response."""
    server = serve("probe_asgi:app", "--access-log-format", "%(U)s %(D)s", loop=loop)
    with server.raw() as client, server.raw() as opener:
        start = time.monotonic()
        client.get("/wait?name=x")
        while True:
            opener.get("/events")
            if b"waiting x" in opener.recv_response().body:
                break
        time.sleep(0.2)  # what is measured
        opener.get("/open?name=x")
        assert client.recv_response().status == 200
    # The client may see the end before the server looks.
    duration = int(server.wait_log(r"^/wait (\d+)\n").group(1)) / 1e6
    assert 0.2 <= duration <= time.monotonic() - start


def test_bytes_are_those_of_the_body(serve: Factory, backend: Any) -> None:
    server = serve(
        f"probe_{backend.interface}:app", "--access-log-format", "%(m)s %(B)s", **backend.options
    )
    with server.raw() as client:
        client.get("/stream?n=3&size=1000")
        client.recv_response()
        client.get("/hello", method="HEAD")
        client.recv_response(method="HEAD")
    server.wait_log(r"^GET 3000\nHEAD 0\n")


def test_format_through_a_logger(serve: Factory, backend: Any, tmp_path: Path) -> None:
    """With --log-config, lines that have their format are the records' messages."""
    path = tmp_path / "log"
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"own": {"format": "%(name)s <%(message)s>"}},
        "handlers": {
            "file": {"class": "logging.FileHandler", "filename": str(path), "formatter": "own"}
        },
        "loggers": {"asgiserver.access": {"handlers": ["file"], "level": "INFO"}},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    arguments = ("--log-config", str(tmp_path / "config.json"))
    with launch(
        f"logs_app:{backend.interface}",
        *arguments,
        "--access-log-format",
        "%(m)s café 100%% %(s)s",
    ) as server:
        server.ask("/")
        assert await_lines(path, 1) == ["asgiserver.access <GET café 100% 200>"]


# --- processes whose outputs are not read by the fixtures -------------------------------------------------


class Launched:
    def __init__(self, process: subprocess.Popen[bytes], address: Any, errors: Path) -> None:
        self.process, self.address, self.errors = process, address, errors

    def ask(self, target: str, n: int = 1) -> None:
        """Requests on one connection, answered all."""
        with connect(self.address, 30 * SLOWNESS) as client:
            for _ in range(n):
                client.get(target)
                assert client.recv_response().status == 200

    def stop(self) -> str:
        """Ends it well; what it said."""
        self.process.terminate()
        assert self.process.wait(20 * SLOWNESS) == 0
        return self.errors.read_text()


@contextlib.contextmanager
def launch(app: str, *args: str, stdout: int | IO[bytes] | None = None) -> Iterator[Launched]:
    """A server with an output of its own; the standard error output goes to a file."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        errors = stack.enter_context(open(folder / "stderr", "wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "asgiserver", "--fd", str(listener.fileno()), *args, app],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=errors,
            pass_fds=[listener.fileno()],
            cwd=APPS,
            env=child_environment({}),
        )
        try:
            server = Launched(process, listener.getsockname(), folder / "stderr")
            yield server
            text = server.stop()
            assert "Traceback" not in text, text
        finally:
            process.kill()
            process.wait()


# --- files -------------------------------------------------------------------------------------------------


def test_a_file(logging_server: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "access"
    path.write_text("before\n")
    arguments = ("--access-log-file", str(path), "--access-log-format", "%(U)s")
    server = logging_server(*arguments)
    with server.raw() as client:
        for n in range(100):
            client.get(f"/{n}")
            client.recv_response()
    server.stop()  # What was logged is written by now.
    assert path.read_text().splitlines() == ["before", *(f"/{n}" for n in range(100))]
    assert "/99" not in server.log()


def test_a_file_without_colors(logging_server: Callable[..., Server], tmp_path: Path) -> None:
    server = logging_server("--access-log-file", str(tmp_path / "access"))
    fetch(server)
    server.stop()
    assert (tmp_path / "access").read_text().startswith("INFO:     127.0.0.1:")


def test_dash_is_the_standard_output(logging_server: Callable[..., Server]) -> None:
    server = logging_server("--access-log-file", "-", "--access-log-format", "%(U)s")
    fetch(server, "/here")
    server.wait_log("^/here\n")


def test_no_access_log(logging_server: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "access"
    fetch(logging_server("--no-access-log", "--access-log-file", str(path)))
    assert not path.exists()


def test_a_quiet_log_and_a_file(logging_server: Callable[..., Server], tmp_path: Path) -> None:
    """The level is that of messages: an access log that was asked for by name is written."""
    path = tmp_path / "access"
    with launch("logs_app:asgi", "--log-level", "error", "--access-log-file", str(path)) as server:
        server.ask("/")
        await_lines(path, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_reopening(logging_server: Callable[..., Server], tmp_path: Path, workers: int) -> None:
    """As logrotate does: the files are renamed, and SIGUSR1 is sent, to the supervisor if there is one."""
    access, messages = tmp_path / "access", tmp_path / "messages"
    server = logging_server(
        *("--access-log-file", str(access), "--access-log-format", "%(p)s %(U)s"),
        *("--log-file", str(messages), "--workers", str(workers)),
        wait=False,
    )
    asked = fetch_from_all(server, "/old", access, workers)
    access.rename(tmp_path / "access.1")
    messages.rename(tmp_path / "messages.1")
    fetch(server, "/old")
    await_lines(tmp_path / "access.1", asked + 1)
    server.signal(signal.SIGUSR1)
    fetch_from_all(server, "/new", access, workers)
    # A line in the new access file: that process has opened its message file before.
    fetch(server, "/error")
    server.stop()
    assert "/old" not in access.read_text()
    assert messages.read_text().count("A message\n") == 1
    assert messages.read_text().endswith("Stopped\n")


def fetch_from_all(server: Server, target: str, access: Path, workers: int) -> int:
    """Until each worker has written a line to the file; the number of requests."""
    deadline = time.monotonic() + 20 * SLOWNESS
    asked = 0
    while not access.exists() or len(set(access.read_text().splitlines())) < workers:
        assert time.monotonic() < deadline
        fetch(server, target)
        asked += 1
    return asked


def test_reopening_what_cannot_be_opened(
    logging_server: Callable[..., Server], tmp_path: Path
) -> None:
    """The file that is open stays in use, and the log says why."""
    folder = tmp_path / "logs"
    folder.mkdir()
    server = logging_server(
        "--access-log-file", str(folder / "access"), "--access-log-format", "%(U)s"
    )
    fetch(server, "/before")
    folder.rename(tmp_path / "moved")
    server.signal(signal.SIGUSR1)
    server.wait_log(r"Cannot reopen --access-log-file .*/logs/access: No such file or directory")
    fetch(server, "/after")
    assert await_lines(tmp_path / "moved" / "access", 2) == ["/before", "/after"]


def test_two_processes_and_one_file(serve: Factory, tmp_path: Path) -> None:
    """No line is torn, or mixed with another process's. Not more than the writer holds back, so that a
    disk that is busy loses none."""
    path = tmp_path / "access"
    arguments = ("--access-log-file", str(path), "--access-log-format", "%(p)s %(U)s end")
    servers = [serve("logs_app:asgi", *arguments) for _ in range(2)]
    target = "/" + "x" * 3000
    clients = [server.raw() for server in servers]
    for _ in range(10):
        for client in clients:
            client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
        for client in clients:
            for _ in range(20):
                client.recv_response()
    for client in clients:
        client.close()
    for server in servers:
        server.stop()
    lines = path.read_text().splitlines()
    assert len(lines) == 400
    for server in servers:
        assert lines.count(f"<{server.pid}> {target} end") == 200


def test_messages_in_a_file(serve: Factory, tmp_path: Path) -> None:
    path = tmp_path / "log"
    server = serve("logs_app:asgi", "--log-file", str(path), wait=False)
    fetch(server)
    server.stop()
    text = path.read_text()
    assert re.search(rf"^\S+ \S+ \[{server.pid}\] INFO:     Listening at ", text, re.MULTILINE)
    assert text.endswith("INFO:     Stopped\n")
    assert "Listening" not in server.log()
    assert "GET / HTTP/1.1" in server.log()


# --- what cannot be written --------------------------------------------------------------------------------

LONG = "/" + "x" * 4000  # a line of this is about 4 kB, and 1000 of them more than is kept


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "nonblocking"])
def test_nobody_reads_the_output(backend: Any, blocking: bool) -> None:
    """The service goes on. What could not be kept is counted, in one line, when somebody reads again."""
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    with (
        open(reader, "rb") as output,
        launch(
            f"logs_app:{backend.interface}", "--access-log-format", "%(U)s", stdout=writer
        ) as server,
    ):
        os.close(writer)
        server.ask(LONG, 1000)
        assert "lost" not in server.errors.read_text()
        os.set_blocking(reader, False)
        read, asked = b"", 1000
        deadline = time.monotonic() + 20 * SLOWNESS
        while "lines were lost" not in server.errors.read_text():
            read += output.read() or b""
            server.ask("/more")
            asked += 1
            assert time.monotonic() < deadline
        server.ask("/more")
        asked += 1
        while b"/more\n" not in read:
            assert time.monotonic() < deadline
            time.sleep(0.01)
            read += output.read() or b""
        server.process.terminate()
        os.set_blocking(reader, True)
        read += output.read()  # to its end: the pipe may be full
        said = server.stop()
    # It has said so once; if this process has not read the last lines in time, of them too.
    lost = re.findall(r"Access log: (\d+) lines were lost(?: \((.*)\))?\n", said)
    assert [why for _, why in lost if why] == ["nobody read them"]
    lines = read.decode().splitlines()
    assert set(lines) == {LONG, "/more"}
    assert len(lines) + sum(int(number) for number, _ in lost) == asked
    assert lines.count(LONG) >= 250  # 1 MiB is kept


def test_stopping_while_nobody_reads() -> None:
    """A second's wait, no more, and the loss is told."""
    reader, writer = os.pipe()
    with launch("logs_app:asgi", "--access-log-format", "%(U)s", stdout=writer) as server:
        os.close(writer)
        server.ask(LONG, 100)
        text = server.stop()
    os.close(reader)
    assert re.search(r"Access log: \d+ lines were lost\n.*Stopped\n", text)


def test_a_reader_that_left() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with launch("logs_app:asgi", stdout=writer) as server:
        os.close(writer)
        server.ask("/", 10)
        text = server.stop()
    assert re.search(r"Access log: (Broken pipe; lines are lost|10 lines were lost)", text)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_full_disk(backend: Any) -> None:
    """Told once, when it begins; requests are answered; the sum is told at the end."""
    with launch(f"logs_app:{backend.interface}", "--access-log-file", "/dev/full") as server:
        server.ask("/", 50)
        deadline = time.monotonic() + 15 * SLOWNESS
        told = "Access log: No space left on device; lines are lost until it can be written"
        while told not in server.errors.read_text():
            assert time.monotonic() < deadline
            server.ask("/")
        server.ask("/", 50)
        text = server.stop()
    assert text.count("No space left") == 1
    assert int(re.findall(r"Access log: (\d+) lines were lost\n", text)[0]) >= 100


# --- refused requests --------------------------------------------------------------------------------------


def test_refusals_are_logged_at_a_limited_rate(serve: Factory, backend: Any) -> None:
    """A scanner does not fill the disk; how much it tried is told all the same."""
    server = serve(f"logs_app:{backend.interface}", **backend.options)
    began = time.monotonic()
    for _ in range(400):
        with server.raw() as client:
            client.send("NONSENSE\r\n\r\n")
            client.recv_response()
    took = time.monotonic() - began
    server.wait_log("more refused requests and cut connections were not logged")
    server.stop()
    refused = server.log().count("request refused")
    hidden = re.findall(r"WARNING:  (\d+) more refused requests", server.log())
    assert 100 <= refused <= 100 + 10 * (took + 1)
    assert refused + sum(map(int, hidden)) == 400


# --- configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (
            ("--access-log-format", "combind"),
            2,
            "ERROR:    --access-log-format: combind is none of uvicorn, common, combined and json, and "
            "has no %(…)s in it.",
        ),
        (("--access-log-format", "%(x)s"), 2, "ERROR:    --access-log-format: there is no %(x)s."),
        (
            ("--log-file", "x", "--log-config", "y"),
            2,
            "ERROR:    --log-file: not together with --log-config.",
        ),
        (
            ("--log-file", "/nowhere/x"),
            1,
            "ERROR:    --log-file /nowhere/x: No such file or directory",
        ),
        (
            ("--access-log-file", "/nowhere/x"),
            1,
            "ERROR:    --access-log-file /nowhere/x: No such file or directory",
        ),
        (("--access-log-file", "/"), 1, "ERROR:    --access-log-file /: Is a directory"),
    ],
)
def test_refused_at_start(args: tuple[str, ...], status: int, text: str, tmp_path: Path) -> None:
    """One line, before anything is bound: the address is one that nobody can bind."""
    done = subprocess.run(
        [sys.executable, "-m", "asgiserver", "--uds", "/nowhere/s", *args, "logs_app:asgi"],
        capture_output=True,
        text=True,
        cwd=APPS,
        env=child_environment({"NO_COLOR": "1"}),
        timeout=30 * SLOWNESS,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr == f"{text}\n"


def test_environment(serve: Factory) -> None:
    server = serve("logs_app:asgi", env={"ASGISERVER_ACCESS_LOG_FORMAT": "%(m)s %(U)s"})
    fetch(server, "/x")
    server.wait_log("^GET /x\n")
