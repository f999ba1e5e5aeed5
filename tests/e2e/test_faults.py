"""Faults of the machine under a running server: descriptors, memory, disks, clocks and sockets that fail.

What holds in all of them: an answer is right, or it is seen to be none; the server goes on; no descriptor is
lost; and the log says what is wrong, once. The faults are made by tests/support/faults.c.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.client import MalformedResponse, RawClient, Response
from support.command import assert_line, command
from support.faults import Faults
from support.processes import wait_until
from support.server import FORBIDDEN, Server
from support.websocket import BINARY, TEXT, WebSocket, frame

Factory = Callable[..., Server]

pytestmark = pytest.mark.plain("the calls that fail are those of plain sockets")

LARGE = bytes(range(256)) * 2000
MANY = b"".join(b"%d," % i * 50 for i in range(200))
BODY = bytes(range(251)) * 4000  # a megabyte: above limit_body_memory
RESULTS = Path(__file__).resolve().parents[2] / "build" / "results"


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path)


@pytest.fixture
def server(serve: Factory, backend: Any, faults: Faults, tmp_path: Path) -> Server:
    spilled = tmp_path / "spilled"
    spilled.mkdir()
    return serve(
        f"faults_app:{backend.interface}",
        *("--access-log-file", str(tmp_path / "access.log"), "--timeout-keep-alive", "60"),
        env={**faults.env, "TMPDIR": str(spilled)},
        **backend.options,
    )


def get(client: RawClient, path: str) -> bytes:
    client.get(path)
    response = client.recv_response()
    assert response.status == 200, response
    assert response.get_all("x-path") == [path.partition("?")[0].encode()]
    return response.body


def post(client: RawClient, body: bytes) -> Response:
    client.post("/digest", body)
    return client.recv_response()


def check_all(server: Server) -> None:
    """Every kind of answer, on one connection."""
    digest = hashlib.sha256(BODY).hexdigest()
    with server.raw() as client:
        assert get(client, "/hello") == b"hello"
        assert get(client, "/large") == LARGE
        assert post(client, BODY).text == digest
        assert get(client, "/pieces") == MANY
        assert get(client, "/file") == LARGE
        for _ in range(20):
            client.get("/hello")
        for _ in range(20):
            assert client.recv_response().body == b"hello"


def check_descriptors(server: Server, before: int) -> None:
    wait_until(lambda: server.open_files() <= before, what="descriptors are closed")


# --- reads and writes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "every"),
    [
        ("recv", errno.EAGAIN, 2),
        ("recv", errno.EINTR, 2),
        ("send", errno.EAGAIN, 2),
        ("send", errno.EINTR, 2),
        # A turn waits twice, or three times: none of its places is to fail for ever.
        ("wait", errno.EINTR, 5),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else value,
)
def test_calls_that_come_to_nothing(
    server: Server, faults: Faults, call: str, error: int, every: int
) -> None:
    """They are made again, and nobody notices."""
    check_all(server)
    before = server.open_files()
    with faults.during(call, error, every=every):
        check_all(server)
    check_descriptors(server, before)
    assert server.alive()
    assert not re.search("WARN|ERROR", server.log()), server.log()


@pytest.mark.parametrize(("call", "most"), [("recv", 1), ("recv", 700), ("send", 1000)])
def test_short_reads_and_writes(server: Server, faults: Faults, call: str, most: int) -> None:
    with faults.during(call, most=most), server.raw() as client:
        assert get(client, "/hello") == b"hello"
        assert get(client, "/large") == LARGE
        body = BODY[:20000]
        assert post(client, body).text == hashlib.sha256(body).hexdigest()
        assert get(client, "/pieces") == MANY
        assert get(client, "/file") == LARGE


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EINTR, 0], ids=["EAGAIN", "EINTR", "short"])
def test_files(serve: Factory, faults: Faults, error: int) -> None:
    """sendfile that is interrupted, or sends little."""
    server = serve("faults_app:wsgi", interface="wsgi", env=faults.env)
    with (
        faults.during("sendfile", error, every=2, most=0 if error else 3000),
        server.raw() as client,
    ):
        for _ in range(3):
            assert get(client, "/file") == LARGE


def test_a_file_that_cannot_be_read(serve: Factory, faults: Faults) -> None:
    """What is promised cannot be sent: the connection is cut, and the next one served."""
    server = serve("faults_app:wsgi", interface="wsgi", env=faults.env)
    with server.raw() as client:
        get(client, "/hello")
        before = server.open_files()
        with faults.during("sendfile", errno.EIO):
            client.get("/file")
            with pytest.raises((MalformedResponse, ConnectionResetError)):
                client.recv_response()
    check_descriptors(server, before - 1)
    assert server.get("/hello") == "hello"


@pytest.mark.parametrize("error", [errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS, errno.EIO])
@pytest.mark.parametrize("call", ["send", "recv"])
def test_connections_that_break(server: Server, faults: Faults, call: str, error: int) -> None:
    """That one ends; the others go on."""
    with server.raw() as other:
        get(other, "/hello")
        before = server.open_files()
        for path in ("/hello", "/large", "/pieces"):
            with server.raw() as client:
                faults.set(call, error, left=1)
                client.get(path)
                with pytest.raises((MalformedResponse, ConnectionResetError)):
                    client.recv_response()
                assert faults.clear(call) == 1
        assert get(other, "/large") == LARGE
        check_descriptors(server, before)
    assert len(server.log().splitlines()) < 30, server.log()


# --- accepting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.EINTR, errno.EPROTO, errno.ENETDOWN])
def test_accept_goes_on(server: Server, faults: Faults, error: int) -> None:
    with faults.during("accept", error, every=2), ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(20)]
        for client in clients:
            assert get(client, "/hello") == b"hello"
    assert not re.search("WARN|ERROR", server.log()), server.log()


def test_clients_that_left_before_they_were_accepted(server: Server, faults: Faults) -> None:
    served = 0
    with faults.during("accept", errno.ECONNABORTED, every=3), ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(20)]
        for client in clients:
            try:
                assert get(client, "/hello") == b"hello"
                served += 1
            except (MalformedResponse, ConnectionError):
                pass
    assert 10 <= served < 20  # some of the calls find nobody
    assert not re.search("WARN|ERROR", server.log()), server.log()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_accept_fails(server: Server, faults: Faults, error: int) -> None:
    """It is tried again twice a second, at little cost; said once; those who are in are served."""
    with ExitStack() as stack:
        inside = stack.enter_context(server.raw())
        get(inside, "/hello")
        server.mark()
        faults.set("accept", error)
        clients = [stack.enter_context(server.raw()) for _ in range(10)]
        for client in clients:
            client.get("/hello")
        server.wait_log(f"accepting connections stopped: {uv_text(error)}")
        before = server.cpu()
        assert not select.select([client.socket for client in clients], [], [], 1.2)[0]
        assert server.cpu() - before < 0.3
        assert get(inside, "/large") == LARGE
        assert faults.clear("accept") < 20
        for client in clients:
            assert client.recv_response().body == b"hello"
        server.wait_log("accepting connections goes on")
        assert server.log().count("accepting connections stopped") == 1


def uv_text(error: int) -> str:
    return {
        errno.EMFILE: "too many open files",
        errno.ENFILE: "file table overflow",
        errno.ENOMEM: "not enough memory",
        errno.ENOBUFS: "no buffer space available",
    }[error]


# --- disks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [None, 4], ids=["inline", "threads"])
@pytest.mark.parametrize(
    ("call", "error"),
    [("write", errno.ENOSPC), ("write", errno.EIO), ("open", errno.ENOSPC), ("open", errno.EMFILE)],
    ids=["full", "broken", "no room for a file", "no descriptor"],
)
def test_bodies_that_cannot_be_spilled(
    serve: Factory, faults: Faults, threads: int | None, call: str, error: int, tmp_path: Path
) -> None:
    """507, and the log tells why; a small body is no matter of the disk's."""
    server = serve(
        "faults_app:wsgi",
        interface="wsgi",
        threads=threads,
        env={**faults.env, "TMPDIR": str(tmp_path)},
    )
    with server.raw() as client:
        assert post(client, BODY).status == 200
    before = server.open_files()
    with faults.during(call, error):
        for _ in range(3):
            with server.raw() as client:
                assert post(client, BODY).status == 507
        with server.raw() as client:
            assert post(client, b"small").status == 200
    server.wait_log(f"temporary file: {re.escape(os.strerror(error))}")
    check_descriptors(server, before)
    with server.raw() as client:
        assert post(client, BODY).text == hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize(("error", "most"), [(errno.EINTR, 0), (0, 1000)], ids=["EINTR", "short"])
def test_bodies_are_spilled_in_parts(
    serve: Factory, faults: Faults, error: int, most: int, tmp_path: Path
) -> None:
    server = serve("faults_app:wsgi", interface="wsgi", env={**faults.env, "TMPDIR": str(tmp_path)})
    with (
        faults.during("write", error, every=2, most=most),
        faults.during("pread", most=777),
        server.raw() as client,
    ):
        assert post(client, BODY).text == hashlib.sha256(BODY).hexdigest()


def test_spilled_bodies_that_cannot_be_read(serve: Factory, faults: Faults, tmp_path: Path) -> None:
    """The application gets an OSError, not a short body."""
    server = serve("faults_app:wsgi", interface="wsgi", env={**faults.env, "TMPDIR": str(tmp_path)})
    server.expect_tracebacks()
    with faults.during("pread", errno.EIO), server.raw() as client:
        assert post(client, BODY).status == 500
    server.wait_log(r"OSError: \[Errno 5\] Input/output error")
    with server.raw() as client:
        assert post(client, BODY).status == 200


def test_a_full_disk_below_the_access_log(server: Server, faults: Faults, tmp_path: Path) -> None:
    """Requests are answered, it is said once, and lines are written again when there is room."""
    log = tmp_path / "access.log"
    with server.raw() as client:
        with faults.during("write", errno.ENOSPC):
            for _ in range(50):
                assert get(client, "/hello") == b"hello"
            server.wait_log("Access log: No space left on device; lines are lost")
        wait_until(lambda: get(client, "/hello") and server.log().count("lines were lost") == 1)
        assert server.log().count("lines are lost until") == 1
        assert get(client, "/large") == LARGE
        wait_until(lambda: "/large" in log.read_text())
    assert all(line.count("HTTP/1.1") == 1 for line in log.read_text().splitlines())


def start(faults: Faults, *args: str) -> Any:
    return command("--app-dir", str(Path(__file__).parents[1] / "apps"), *args, env=faults.env)


def test_a_pid_file_that_cannot_be_written(faults: Faults, tmp_path: Path) -> None:
    """One line, and no file that names no process."""
    path = tmp_path / "pid"
    with faults.during("write", errno.ENOSPC):
        done = start(faults, "--port", "0", "--pid", str(path), "faults_app:asgi")
    assert_line(done, f"--pid {path}: No space left on device.")
    assert not path.exists()


@pytest.mark.parametrize("option", ["--pid", "--access-log-file", "--log-file"])
def test_files_that_cannot_be_made(faults: Faults, tmp_path: Path, option: str) -> None:
    path = tmp_path / "file"
    with faults.during("open", errno.ENOSPC):
        done = start(faults, "--port", "0", option, str(path), "faults_app:asgi")
    assert_line(done, f"{option} {path}: No space left on device")


def test_a_socket_that_cannot_be_made(faults: Faults, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with faults.during("bind", errno.ENOSPC):
        done = start(faults, "--uds", str(path), "faults_app:asgi")
    assert_line(done, f"Cannot listen at {path}: No space left on device.")


# --- clocks ----------------------------------------------------------------------------------------


def test_clock_steps(server: Server, faults: Faults) -> None:
    """Date tells the machine's time; nothing else depends on it."""
    with server.raw() as client:
        for step in (0, 86400 * 400, -86400 * 400, 3600, 0):
            faults.set_clock(step)
            before = time.time()
            client.get("/hello")
            response = client.recv_response()
            assert response.body == b"hello"
            date = parsedate_to_datetime(response.get_all("date")[0].decode()).timestamp()
            assert before - 2 < date - step <= time.time()
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):  # no timeout has struck
            client.socket.recv(1)
    assert not re.search("WARN|ERROR", server.log()), server.log()


# --- memory ----------------------------------------------------------------------------------------

REQUESTS = ("/hello", "/large", "/digest", "/continued", "/pieces", "/file", "/kept", "/short")


def ask(client: RawClient, path: str) -> Response:
    if path == "/digest":
        client.post(path, b"x" * 100_000)
    elif path == "/continued":  # the application waits when it comes
        return ask_first(client, path)
    elif path == "/short":  # it comes with the head
        client.post(path, b"short")
    else:
        client.get(path)
    return client.recv_response()


def ask_first(client: RawClient, path: str) -> Response:
    """A body in chunks, once it is asked for; or the answer that comes instead."""
    fields = "Host: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    client.send(f"POST {path} HTTP/1.1\r\n{fields}")
    begin = client.recv_until(b"\r\n\r\n")
    if begin.startswith(b"HTTP/1.1 100 "):
        client.send(b"5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n")
    else:
        client.buffer = begin + client.buffer
    return client.recv_response()


EXPECTED = {
    "/hello": b"hello",
    "/large": LARGE,
    "/digest": hashlib.sha256(b"x" * 100_000).hexdigest().encode(),
    "/continued": hashlib.sha256(b"firstlast").hexdigest().encode(),
    "/pieces": MANY,
    "/file": LARGE,
    "/kept": b"hello",
    "/short": hashlib.sha256(b"short").hexdigest().encode(),
}


needs_testcapi = pytest.mark.skipif(
    find_spec("_testcapi") is None, reason="this Python has no _testcapi"
)


class Tally:
    """How often what happened."""

    def __init__(self) -> None:
        self.whole = self.failed = self.cut = 0

    def judge(self, server: Server, path: str, prepare: Callable[[], None]) -> None:
        """An answer is whole, or says that it is none, or is seen to be broken."""
        with server.raw() as client:
            prepare()
            try:
                response = ask(client, path)
            except (MalformedResponse, ConnectionError):
                self.cut += 1
                return
        if response.status == 200:
            assert response.body == EXPECTED.get(path, b"hello"), path
            self.whole += 1
        else:
            assert response.status in (500, 503), response
            self.failed += 1

    def write(self, name: str) -> None:
        cases = self.whole + self.failed + self.cut
        RESULTS.mkdir(parents=True, exist_ok=True)
        row = {"name": name, "cases": cases, "survived": cases, "lost": 0}
        (RESULTS / f"{name}.json").write_text(json.dumps([row]) + "\n")


def is_fatal(text: str) -> re.Match[str] | None:
    """Python itself may tell of an exception that it could not pass on, when there is no memory."""
    for harmless in ("Exception ignored", "Task was destroyed"):  # the latter: while it was made
        text = text.replace(harmless, "")
    return FORBIDDEN.search(text)


@pytest.fixture
def scarce(serve: Factory, backend: Any, faults: Faults) -> Iterator[Server]:
    if "ASAN_OPTIONS" in os.environ:
        pytest.skip("the sanitizer has its own allocator")
    server = serve(
        f"faults_app:scarce_{backend.interface}",
        env={**faults.env, "PYTHONMALLOC": "malloc"},
        **backend.options,
    )
    server.expect_tracebacks()
    yield server
    assert server.alive(), server.log()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log()
    assert not is_fatal(server.log()), server.log()
    server.check_log = lambda: None  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("path", REQUESTS)
def test_no_memory(scarce: Server, faults: Faults, backend: Any, path: str) -> None:
    """Each allocation between a request and its answer fails in turn, the core's and Python's."""
    tally = Tally()
    tally.judge(scarce, path, lambda: faults.set("allocate", every=1 << 30))
    count = faults.seen("allocate")
    assert count > 0
    files = scarce.open_files()
    step = 1 + count // 150
    for at in range(1, count + 2, step):
        tally.judge(scarce, path, lambda at=at: faults.set("allocate", every=at, left=1))
        faults.clear("allocate")
        if not scarce.alive():
            raise AssertionError(f"allocation {at} of {path}:\n{scarce.log()}")
    assert tally.failed + tally.cut > 0
    for each in REQUESTS:
        tally.judge(scarce, each, lambda: None)
    assert tally.whole >= len(REQUESTS)
    check_descriptors(scarce, files)
    tally.write(f"no-memory-{backend.name}{path.replace('/', '-')}")


@needs_testcapi
@pytest.mark.skipif(
    "COVERAGE_PROCESS_CONFIG" in os.environ, reason="what measures coverage needs memory, too"
)
def test_no_memory_in_receive(serve: Factory, loop: str) -> None:
    """A MemoryError of receive() has cost nothing: the message comes with the next call."""
    server = serve("faults_app:receiving_asgi", interface="asgi", loop=loop)
    with server.raw() as client:
        client.post("/", b"all of it")
        assert client.recv_response().body == b"all of it"
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst")
        client.recv_until(b"first\r\n")
        client.send("later")
        assert b"later\r\n" in client.recv_until(b"0\r\n\r\n")
    with WebSocket(server.raw()) as ws:
        ws.open("/")
        messages = [
            (TEXT, b"one"),
            (BINARY, b"two"),
            (BINARY, b""),
            (BINARY, b""),
            (TEXT, b"three"),
        ]
        ws.raw.send(b"".join(frame(*each) for each in [(TEXT, b"%d" % len(messages)), *messages]))
        for opcode, payload in messages:
            ws.expect(opcode, payload)


@pytest.mark.slow
@needs_testcapi
@pytest.mark.parametrize("threads", [None, 4], ids=["wsgi", "wsgi-threads"])
def test_no_memory_in_python(serve: Factory, threads: int | None) -> None:
    """The same by Python's own means, which reach every thread. Not for ASGI: asyncio's loop ends
    with a MemoryError of its own."""
    server = serve("faults_app:scarce_wsgi", interface="wsgi", threads=threads)
    server.expect_tracebacks()
    tally = Tally()
    for at in range(300):
        tally.judge(server, f"/arm?{at}", lambda: None)
        tally.judge(server, REQUESTS[at % len(REQUESTS)], lambda: None)
        with server.raw() as client:
            client.get("/disarm")
            try:
                client.recv_response()
            except (MalformedResponse, ConnectionError):
                assert server.get("/disarm") == "hello"
    assert tally.failed + tally.cut > 0
    assert server.alive(), server.log()
    assert not is_fatal(server.log()), server.log()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log()
    tally.write(f"no-memory-python-{threads or 1}")
    server.check_log = lambda: None  # type: ignore[method-assign]
