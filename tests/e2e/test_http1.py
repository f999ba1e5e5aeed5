"""HTTP/1 as a client meets it: expectations, persistence, bodies, limits, time-outs, and what is logged."""

from __future__ import annotations

import hashlib
import json
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from support.client import SLOWNESS, RawClient
from support.pace import Pace, in_time
from support.probes import await_event, fetch, nothing_to_read
from support.processes import await_quiet
from support.server import Server

Factory = Callable[..., Server]


# --- Expect: 100-continue ----------------------------------------------------------------------------------

EXPECT = "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n"


@pytest.mark.tls_too
def test_continue_when_the_body_is_asked_for(probe: Server) -> None:
    with probe.raw() as client:
        for body in (b"hello", b"again"):
            client.send(EXPECT.format("/digest", 5))
            interim = client.recv_head()
            assert (interim.status, interim.fields) == (100, [])
            client.send(body)
            assert client.recv_response().text == f"5 {hashlib.sha256(body).hexdigest()}"


@pytest.mark.tls_too
def test_continue_chunked(probe: Server) -> None:
    with probe.raw() as client:
        client.send(
            "POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv_head().status == 100
        client.send("2\r\nok\r\n0\r\n\r\n")
        assert client.recv_response().text.startswith("2 ")


def test_no_continue_when_the_body_is_not_wanted(serve: Factory, loop: str) -> None:
    """RFC 9110, 10.1.1: the final answer comes instead; whatever the client sends then is no request."""
    server = serve("probe_asgi:app", interface="asgi", loop=loop)
    with server.raw() as client:
        client.send(EXPECT.format("/unread?status=403", 33))
        response = client.recv_response()
        assert response.status == 403
        if not response.closes:
            client.send(b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n..")
            client.get("/hello")
            assert client.recv_response().text == "hello "
        else:
            assert client.at_end()


def test_no_continue_for_a_body_that_is_too_large(with_options: Callable[..., Server]) -> None:
    server = with_options("--limit-request-body", "1000")
    with server.raw() as client:
        client.send(EXPECT.format("/digest", 1001))
        assert client.recv_response().status == 413
        assert client.at_end()


def test_no_continue_over_1_0(probe: Server) -> None:
    """RFC 9110, 10.1.1: HTTP/1.0 knows no interim answers."""
    with probe.raw() as client:
        client.send("POST /digest HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        client.send("ok")
        assert client.recv_response().text.startswith("2 ")


def test_continue_at_most_once(probe: Server) -> None:
    """A body in pieces is asked for once."""
    with probe.raw() as client:
        client.send(EXPECT.format("/digest", 30000))
        assert client.recv_head().status == 100
        for _ in range(30):
            client.send(b"x" * 1000)
        assert client.recv_response().text.startswith("30000 ")


# --- persistence -------------------------------------------------------------------------------------------


@pytest.mark.tls_too
def test_keep_alive_1_1(probe: Server) -> None:
    with probe.raw() as client:
        for n in range(5):
            client.get(f"/hello?{n}")
            response = client.recv_response()
            assert response.text == f"hello {n}"
            assert response.get("connection") is None


@pytest.mark.tls_too
def test_keep_alive_1_0(probe: Server) -> None:
    """RFC 9112, C.2.2: a client of 1.0 is told that the connection stays."""
    with probe.raw() as client:
        for n in range(3):
            client.get(f"/hello?{n}", "Connection: keep-alive", version="1.0")
            response = client.recv_response()
            assert response.text == f"hello {n}"
            assert response.get("connection") == b"keep-alive"
        client.get("/hello", version="1.0")
        response = client.recv_response()
        assert response.get("connection") in (None, b"close")
        assert client.at_end()


@pytest.mark.tls_too
def test_unknown_length_over_1_0_ends_with_the_connection(probe: Server) -> None:
    """RFC 9112, 6.3: no chunks for HTTP/1.0, keep-alive or not."""
    with probe.raw() as client:
        client.get("/stream?n=3&size=5", "Connection: keep-alive", version="1.0")
        response = client.recv_response()
        assert (response.framing, response.body) == ("close", b"aaaaabbbbbccccc")
        assert response.get("connection") in (None, b"close")


@pytest.mark.tls_too
def test_known_length_over_1_0_keeps_alive(probe: Server) -> None:
    with probe.raw() as client:
        client.get("/stream?n=3&size=5&length=1", "Connection: keep-alive", version="1.0")
        response = client.recv_response()
        assert (response.framing, response.body) == ("length", b"aaaaabbbbbccccc")
        client.get("/hello", version="1.0")
        assert client.recv_response().text == "hello "


@pytest.mark.tls_too
def test_unknown_length_over_1_1_is_chunked(probe: Server) -> None:
    with probe.raw() as client:
        client.get("/stream?n=3&size=5")
        response = client.recv_response()
        assert (response.framing, response.body) == ("chunked", b"aaaaabbbbbccccc")


def test_connection_close_by_the_application(probe: Server) -> None:
    """ASGI applications may close; WSGI ones may not say it (PEP 3333)."""
    if probe.app == "probe_wsgi:app":
        pytest.skip("Connection is a hop-by-hop field")
    with probe.raw() as client:
        client.get("/fields?connection=close")
        response = client.recv_response()
        assert response.get("connection") == b"close"
        assert client.at_end()


def test_keep_alive_of_zero_closes_each(with_options: Callable[..., Server]) -> None:
    server = with_options("--timeout-keep-alive", "0")
    with server.raw() as client:
        client.get("/hello")
        response = client.recv_response()
        assert response.closes
        assert client.at_end()


# --- answers without a body --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/hello", "/stream?n=3&size=5", "/stream?n=3&size=5&length=1"])
@pytest.mark.tls_too
def test_head_is_a_get_without_its_body(probe: Server, target: str) -> None:
    """RFC 9110, 9.3.2: the same fields, but for those that cannot be known."""
    with probe.raw() as client:
        client.get(target)
        got = client.recv_response()
        client.get(target, method="HEAD")
        head = client.recv_response("HEAD")
        assert head.status == 200
        assert head.get("content-length") == got.get("content-length")
        assert head.get("content-type") == got.get("content-type")
        client.get("/hello?next")
        assert client.recv_response().text == "hello next"


def test_head_over_1_0(probe: Server) -> None:
    with probe.raw() as client:
        client.get("/stream?n=3&size=5", method="HEAD", version="1.0")
        assert client.recv_response("HEAD").status == 200
        assert client.at_end()


@pytest.mark.parametrize("code", [204, 304])
@pytest.mark.parametrize("length", ["", "&length=1"])
def test_no_body_whatever_the_application_sends(probe: Server, code: int, length: str) -> None:
    """RFC 9112, 6.3."""
    with probe.raw() as client:
        client.get(f"/status?code={code}{length}")
        response = client.recv_response()
        assert response.status == code
        assert response.get("transfer-encoding") is None
        if code == 204:
            assert response.get("content-length") is None  # RFC 9110, 8.6
        client.get("/hello?next")
        assert client.recv_response().text == "hello next"


@pytest.mark.parametrize("code", [200, 201, 404, 418, 500, 599, 799, 999])
def test_any_status(probe: Server, code: int) -> None:
    with probe.raw() as client:
        client.get(f"/status?code={code}")
        response = client.recv_response()
        assert (response.status, response.text) == (code, "a body")


def test_reason_phrase(probe: Server) -> None:
    with probe.raw() as client:
        client.get("/nowhere")
        assert (client.recv_head().reason) == b"Not Found"


@pytest.mark.parametrize(("said", "sent"), [(10, 5), (5, 10), (0, 1)])
@pytest.mark.tls_too
def test_wrong_length_is_never_hidden(probe: Server, said: int, sent: int) -> None:
    """A body that is not as long as announced: the connection is cut, or the answer is a 500; never a wrong frame."""
    probe.expect_tracebacks()
    with probe.raw() as client:
        client.get(f"/mismatch?said={said}&sent={sent}")
        data = client.recv_all()
        head, _, body = data.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200"):
            assert len(body) <= said
            assert len(body) < said or sent > said
        else:
            assert head.startswith(b"HTTP/1.1 500")
    assert fetch(probe, "/hello") == b"hello "


# --- fields of the server ----------------------------------------------------------------------------------


def test_date_and_server(probe: Server) -> None:
    """RFC 9110, 6.6.1: IMF-fixdate."""
    before = datetime.now(UTC)
    with probe.raw() as client:
        client.get("/hello")
        response = client.recv_response()
    assert response.get("server") == b"asgiserver"
    date = response.get("date")
    assert date is not None
    assert len(date) == 29
    assert date.endswith(b" GMT")
    shown = parsedate_to_datetime(date.decode())
    assert before - timedelta(seconds=2) < shown <= datetime.now(UTC)
    assert shown.strftime("%a, %d %b %Y %H:%M:%S GMT") == date.decode()


def test_date_moves_on(probe: Server) -> None:
    """Formatted once a second, not once: the second answer's date is that of its own second."""
    with probe.raw() as client:
        client.get("/hello")
        first = client.recv_response().get("date")
        deadline = time.monotonic() + 5 * SLOWNESS
        while time.monotonic() < deadline:
            client.get("/hello")
            if client.recv_response().get("date") != first:
                return
    raise AssertionError("the date stands still")


def test_date_after_idling(with_options: Callable[..., Server]) -> None:
    """An idle server wakes up for nothing; its next answer has the right date all the same."""
    server = with_options("--timeout-keep-alive", "600")
    with server.raw() as client:
        client.get("/hello")
        client.recv_response()
        assert not select.select([client.socket], [], [], 2.2)[0]
        before = datetime.now(UTC)
        client.get("/hello")
        date = client.recv_response().get("date")
        assert date is not None
        shown = parsedate_to_datetime(date.decode())
        assert before - timedelta(seconds=2) < shown <= datetime.now(UTC)


def test_no_date_no_server(with_options: Callable[..., Server]) -> None:
    server = with_options("--no-server-header", "--no-date-header")
    with server.raw() as client:
        client.get("/hello")
        response = client.recv_response()
        assert response.get("server") is None
        assert response.get("date") is None
        client.send("GET / HTTP/1.1\r\n\r\n")
        refused = client.recv_response()
        assert refused.status == 400
        assert refused.get("server") is None


def test_added_headers(with_options: Callable[..., Server]) -> None:
    server = with_options("--header", "X-One: 1", "--header", "x-two:2:2")
    with server.raw() as client:
        client.get("/hello")
        response = client.recv_response()
        assert response.get("x-one") == b"1"
        assert response.get("x-two") == b"2:2"


def test_own_date_and_server_replace(probe: Server) -> None:
    with probe.raw() as client:
        client.get("/fields?Date=Thu,+01+Jan+1970+00:00:00+GMT&Server=mine")
        response = client.recv_response()
        assert response.get("date") == b"Thu, 01 Jan 1970 00:00:00 GMT"
        assert response.get("server") == b"mine"
        client.get("/hello")
        assert client.recv_response().get("server") == b"asgiserver"


# --- large bodies ------------------------------------------------------------------------------------------


@pytest.mark.tls_too
def test_large_upload_arrives_whole(probe: Server) -> None:
    body = bytes(range(256)) * 40_000
    with probe.raw() as client:
        client.post("/digest", body)
        assert client.recv_response().text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
        client.get("/hello")
        assert client.recv_response().text == "hello "


@pytest.mark.tls_too
def test_large_chunked_upload_arrives_whole(probe: Server) -> None:
    body = bytes(range(256)) * 10_000
    with probe.raw() as client:
        client.send("POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        at, size = 0, 1
        while at < len(body):
            part = body[at : at + size]
            client.send(b"%x\r\n%b\r\n" % (len(part), part))
            at, size = at + size, size * 2 % 70_001 + 1
        client.send("0\r\n\r\n")
        assert client.recv_response().text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


@pytest.mark.parametrize(
    "query", ["n=1&size=10000000", "n=1000&size=10000", "n=20000&size=1", "n=50&size=200001"]
)
@pytest.mark.parametrize("length", ["", "&length=1"])
@pytest.mark.tls_too
def test_large_download_arrives_whole(probe: Server, query: str, length: str) -> None:
    n, size = (int(word.partition("=")[2]) for word in query.split("&"))
    with probe.raw() as client:
        client.get(f"/stream?{query}{length}")
        body = client.recv_response().body
        expected = b"".join(b"%c" % (97 + at % 26) * size for at in range(n))
        assert body == expected
        client.get("/hello")
        assert client.recv_response().text == "hello "


@pytest.mark.tls_too
def test_slow_reader_gets_everything(probe: Server) -> None:
    """The write queue goes above its mark and below it again, many times."""
    with probe.raw() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.get("/stream?n=400&size=50000")
        client.recv_head()
        assert not select.select([], [], [], 0.3)[0]
        client.buffer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + client.buffer
        assert len(client.recv_response().body) == 20_000_000


def test_full_duplex(asgi_probe: Server) -> None:
    """Each part is sent back while the next ones still come."""
    with asgi_probe.raw() as client:
        client.send("POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for word in (b"one", b"two", b"three"):
            client.send(b"%x\r\n%b\r\n" % (len(word), word))
            if word == b"one":
                assert client.recv_head().status == 200
            assert client.recv_until(b"\r\n") == b"%x\r\n" % len(word)
            assert client.recv_exactly(len(word) + 2) == word + b"\r\n"
        client.send("0\r\n\r\n")
        assert client.recv_until(b"0\r\n\r\n") == b"0\r\n\r\n"
        client.get("/hello")
        assert client.recv_response().text == "hello "


# --- limits ------------------------------------------------------------------------------------------------


def check_limit(server: Server, good: str, bad: str, status: int) -> None:
    """``good`` is served and ``bad`` refused, each on a connection of its own."""
    with server.raw() as client:
        client.send(good)
        assert client.recv_response().status == 200
    with server.raw() as client:
        client.send(bad)
        response = client.recv_response()
        assert response.status == status
        assert response.closes
        assert client.at_end()


def head(target: str = "/hello", *fields: str) -> str:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *fields]) + "\r\n\r\n"


def test_limit_request_line(with_options: Callable[..., Server]) -> None:
    server = with_options("--limit-request-line", "100")
    length = len("GET /hello? HTTP/1.1")
    at_limit, above = "x" * (100 - length), "x" * (103 - length)
    check_limit(server, head(f"/hello?{at_limit}"), head(f"/hello?{above}"), 414)


def test_limit_request_head(with_options: Callable[..., Server]) -> None:
    server = with_options("--limit-request-head", "500")
    rest = len(head("/hello", "X: "))
    at_limit, above = f"X: {'x' * (500 - rest)}", f"X: {'x' * (501 - rest)}"
    assert len(head("/hello", at_limit)) == 500
    check_limit(server, head("/hello", at_limit), head("/hello", above), 431)


def test_limit_request_fields(with_options: Callable[..., Server]) -> None:
    server = with_options("--limit-request-fields", "5")
    check_limit(server, head("/hello", *["X: y"] * 4), head("/hello", *["X: y"] * 5), 431)


def test_limit_request_field_size(with_options: Callable[..., Server]) -> None:
    """The whole line counts, with its end; also an empty field's."""
    server = with_options("--limit-request-field-size", "40")
    rest = len("X-Long: \r\n")
    at_limit, above = f"X-Long: {'x' * (40 - rest)}", f"X-Long: {'x' * (41 - rest)}"
    check_limit(server, head("/hello", at_limit), head("/hello", above), 431)
    check_limit(server, head("/hello", f"{'N' * 37}:"), head("/hello", f"{'N' * 38}:"), 431)


def test_limit_request_body(with_options: Callable[..., Server]) -> None:
    server = with_options("--limit-request-body", "10")
    good = "POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789"
    check_limit(server, good, good.replace("10\r\n\r\n", "11\r\n\r\n"), 413)


def test_no_limit_of_the_body(with_options: Callable[..., Server]) -> None:
    """0: none; a length that no default would let through is begun with."""
    server = with_options("--limit-request-body", "0")
    with server.raw() as client:
        client.send(EXPECT.format("/digest", 99_999_999_999))
        assert client.recv_head().status == 100


def test_limit_concurrency(serve: Factory, loop: str) -> None:
    """Requests count, not connections (granian #789); those above get 503, and the rest is served on."""
    server = serve("probe_asgi:app", "--limit-concurrency", "2", interface="asgi", loop=loop)
    with ExitStack() as stack:
        first, second, third, *_ = [stack.enter_context(server.raw()) for _ in range(6)]
        for client in (first, second, third):  # Connections that have been used, and cost no slot.
            client.get("/hello")
            assert client.recv_response().status == 200
        first.get("/disconnect?name=first")
        await_event(server, "here first")
        second.get("/disconnect?name=second")
        assert status_in_the_end(server, 503) == 503
        third.get("/hello")
        response = third.recv_response()
        assert response.status == 503
        first.close()  # The application sees it, and its slot is free.
        assert status_in_the_end(server, 200) == 200


def status_in_the_end(server: Server, wanted: int) -> int:
    """The status of /hello, asked for on fresh connections until it is the wanted one."""
    deadline = time.monotonic() + 10 * SLOWNESS
    while True:
        with server.raw() as client:
            client.get("/hello")
            status = client.recv_response().status
        if status == wanted or time.monotonic() > deadline:
            return status


def test_limit_connections(with_options: Callable[..., Server]) -> None:
    """Above the limit accepting pauses; nobody is refused, and nobody who is in is disturbed."""
    server = with_options("--limit-connections", "2", "--timeout-keep-alive", "60")
    with server.raw() as first, server.raw() as second, server.raw() as third:
        for client in (first, second):
            client.get("/hello")
            assert client.recv_response().text == "hello "
        third.get("/hello?third")
        for client in (first, second, first, second):
            client.get("/hello")
            assert client.recv_response().text == "hello "
        assert nothing_to_read(third)
        first.close()
        assert third.recv_response().text == "hello third"


def accepted(server: Server, clients: list[RawClient]) -> list[RawClient]:
    """The others wait in the queue: the kernel shows their connections with no inode."""
    ports = {f"{client.socket.getsockname()[1]:04X}": client for client in clients}
    inodes: dict[str, str] = {}
    while len(inodes) < len(ports):  # Its list may lack some while others come and go.
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            port = words[2][-4:]
            if words[1].endswith(f":{server.port:04X}") and port in ports:
                inodes[port] = words[9]
    return [client for port, client in ports.items() if inodes[port] != "0"]


def test_out_of_descriptors(with_options: Callable[..., Server]) -> None:
    """Accepting stops and goes on by itself; who is in is served on, and the processor is not burnt."""
    server = with_options(
        "--timeout-keep-alive",
        "60",
        rlimits={resource.RLIMIT_NOFILE: 48},
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(80)]
        for n, client in enumerate(clients):
            client.get(f"/hello?{n}")
        server.wait_log("accepting connections stopped")
        served = accepted(server, clients)
        assert 5 < len(served) < 48
        for client in served:
            assert client.recv_response().status == 200
        before = server.cpu()
        assert not select.select([c.socket for c in clients if c not in served], [], [], 1)[0]
        assert server.cpu() - before < 0.3
        for client in served:
            client.get("/hello")
            assert client.recv_response().text == "hello "
        waiting = [(n, client) for n, client in enumerate(clients) if client not in served]
        for client in served:
            client.close()
        for n, client in waiting:
            assert client.recv_response().text == f"hello {n}"
            client.close()
    assert fetch(server, "/hello") == b"hello "


# --- time-outs ---------------------------------------------------------------------------------------------

HEAD_TIME = "0.4"


@contextmanager
def begun(server: Server, data: str) -> Iterator[RawClient | None]:
    """A connection on which that was sent; None: perhaps when its time was over."""
    pace = Pace()
    with server.raw() as client:
        if server.context is not None:  # When the handshake is over is known behind an answer.
            client.get("/hello")
            assert client.recv_response().status == 200
            pace = Pace()
        client.send(data)
        yield client if pace.longest < float(HEAD_TIME) / 2 else None


@pytest.mark.tls_too
def test_timeout_of_the_head(with_options: Callable[..., Server]) -> None:
    server = with_options("--timeout-request-head", HEAD_TIME, "--timeout-keep-alive", "60")

    def attempt() -> bool:
        with begun(server, "GET /hello HTTP/1.1\r\nHost: a\r\n") as client:
            if client is None:
                return False
            response = client.recv_response()
            assert response.status == 408
            assert response.closes
            assert client.at_end()
        return True

    in_time(attempt)


def test_timeout_of_a_head_in_drops(with_options: Callable[..., Server]) -> None:
    """Slowloris: the time is that of the whole head, whatever comes in between."""
    server = with_options("--timeout-request-head", HEAD_TIME, "--timeout-keep-alive", "60")

    def attempt() -> bool:
        with begun(server, "GET /hello HTTP/1.1\r\nHost: a\r\nX: ") as client:
            if client is None:
                return False
            deadline = time.monotonic() + 10 * SLOWNESS
            while not select.select([client.socket], [], [], 0.1)[0]:
                client.send("x")
                assert time.monotonic() < deadline, "a head may take for ever"
            assert client.recv_response().status == 408
        return True

    in_time(attempt)


def test_timeout_of_the_second_head(with_options: Callable[..., Server]) -> None:
    """A head that begins on a kept connection has its own time."""
    server = with_options("--timeout-request-head", HEAD_TIME, "--timeout-keep-alive", "60")

    def attempt() -> bool:
        with begun(server, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /he") as client:
            if client is None:
                return False
            assert client.recv_response().text == "hello "
            assert client.recv_response().status == 408
        return True

    in_time(attempt)


@pytest.mark.tls_too
def test_timeout_of_the_body(with_options: Callable[..., Server]) -> None:
    server = with_options("--timeout-request-body", "0.4")
    with server.raw() as client:
        client.send("POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        response = client.recv_response()
        assert response.status == 408
        assert response.closes
        assert client.at_end()


def test_timeout_of_the_body_is_between_pieces(with_options: Callable[..., Server]) -> None:
    """A slow upload that goes on is not cut, where no rate is asked for."""
    server = with_options("--timeout-request-body", "2", "--min-body-rate", "0")

    def attempt() -> bool:
        with server.raw() as client:
            pace = Pace()
            client.send("POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n")
            for _ in range(8):
                answered = select.select([client.socket], [], [], 0.3)[0]
                client.send("x")
                pace.step()
                if pace.longest > 1.5:
                    return False
                assert not answered
            assert client.recv_response().text.startswith("8 ")
        return True

    in_time(attempt)


@pytest.mark.tls_too
def test_rate_of_the_body(with_options: Callable[..., Server]) -> None:
    """Never silent for long, and yet too slow."""
    server = with_options("--timeout-request-body", "0.8", "--min-body-rate", "1000")
    with server.raw() as client:
        began = time.monotonic()
        client.send("POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        while not select.select([client.socket], [], [], 0.1)[0]:
            assert time.monotonic() - began < 10 * SLOWNESS
            client.send("x")
        response = client.recv_response()
        assert response.status == 408
        assert response.closes
        assert time.monotonic() - began > 0.7


def test_body_time_does_not_run_while_the_application_does_not_read(
    serve: Factory, loop: str
) -> None:
    """What the server does not ask for cannot come late."""
    server = serve(
        "probe_asgi:app", "--timeout-request-body", "1.5", "--timeout-keep-alive", "1.5",
        "--timeout-request-head", "1.5", interface="asgi", loop=loop,
    )  # fmt: skip

    def attempt() -> bool:
        pace = Pace()
        with server.raw() as client:
            client.get("/wait?name=long")
            if pace.longest > 1:
                return False
            assert not select.select([client.socket], [], [], 2.5)[0]
            in_time(open_it)
            assert client.recv_response().text == "waited long"
        return True

    def open_it() -> bool:
        pace = Pace()
        with server.raw() as opener:
            opener.get("/open?name=long")
            return pace.longest < 1 and opener.recv_response().status == 200

    in_time(attempt)


@pytest.mark.tls_too
def test_timeout_of_keep_alive(with_options: Callable[..., Server]) -> None:
    """An idle connection is closed without a word."""
    server = with_options("--timeout-keep-alive", "0.4", "--timeout-request-head", "60")
    with server.raw() as client:
        begin = time.monotonic()  # The server's time begins a little later; others are long.
        client.get("/hello")
        assert client.recv_response().text == "hello "
        assert client.recv_all() == b""
        assert time.monotonic() - begin > 0.3


def test_timeout_of_keep_alive_begins_anew(with_options: Callable[..., Server]) -> None:
    server = with_options("--timeout-keep-alive", "2")

    def attempt() -> bool:
        with server.raw() as client:
            pace = Pace()
            for _ in range(4):
                client.get("/hello")
                pace.step()
                if pace.longest > 1.5:
                    return False
                assert client.recv_response().text == "hello "
                ended = select.select([client.socket], [], [], 0.6)[0]
                if pace.longest > 1.5:
                    return False
                assert not ended
            assert client.recv_all() == b""
        return True

    in_time(attempt)


def test_timeout_of_a_connection_without_a_request(with_options: Callable[..., Server]) -> None:
    """Who connects and says nothing is closed too, without an answer and without a log line."""
    server = with_options("--timeout-request-head", "0.4", "--timeout-keep-alive", "0.4")
    server.mark()
    with server.raw() as client:
        assert client.recv_all() == b""
    assert server.log() == ""


def test_timeout_of_writing(serve: Factory, loop: str) -> None:
    """A client that takes nothing is cut; the application sees it, and the log says so."""
    server = serve("probe_asgi:app", "--timeout-write", "0.5", interface="asgi", loop=loop)
    with server.raw() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.get("/stream?n=100000&size=10000")
        while not any(
            event.startswith("stream cut") for event in json.loads(fetch(server, "/events"))
        ):
            assert not select.select([], [], [], 0.05)[0]
        with pytest.raises((ConnectionResetError, AssertionError)):
            client.recv_response()
    server.wait_log(r"127\.0\.0\.1:\d+ .*client stopped reading")


def test_timeout_of_writing_wsgi(serve: Factory) -> None:
    """As above; a slow reader never holds the worker."""
    server = serve("probe_wsgi:app", "--timeout-write", "0.5", interface="wsgi")
    with server.raw() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.get("/stream?n=100000&size=10000")
        client.recv_head()
        assert fetch(server, "/hello") == b"hello "
        server.wait_log(r"127\.0\.0\.1:\d+ .*client stopped reading")
        with pytest.raises((ConnectionResetError, AssertionError)):
            client.recv_response()


@pytest.mark.parametrize(("rate", "cut"), [("0", False), ("1000000000", True)])
def test_rate_of_reading(with_options: Callable[..., Server], rate: str, cut: bool) -> None:
    """Who takes something all the time is cut only where that is too little."""
    server = with_options("--timeout-write", "0.5" if cut else "1.5", "--min-write-rate", rate)

    def attempt() -> bool:
        pace = Pace()
        with server.raw() as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.get("/stream?n=1000&size=100000")
            client.recv_head()
            until = time.monotonic() + (20 * SLOWNESS if cut else 2.5)
            try:
                while client.socket.recv(65536):
                    pace.step()
                    if time.monotonic() < until:
                        time.sleep(0.3)  # What is tested: the socket is full for longer.
                    elif not cut:
                        break
            except ConnectionResetError:  # Behind what was on its way.
                if not cut and pace.longest > 1:
                    return False
                assert cut
                server.wait_log(
                    r"127\.0\.0\.1:\d+ .*client stopped reading the response, or is too slow"
                )
            else:
                assert not cut
        return True

    in_time(attempt)


@pytest.mark.tls_too
def test_a_slow_reader_that_reads_is_not_cut(with_options: Callable[..., Server]) -> None:
    server = with_options("--timeout-write", "1.5")

    def attempt() -> bool:
        pace = Pace()
        with server.raw() as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.get("/stream?n=1&size=8000000&length=1")
            client.recv_head()
            size = len(client.buffer)
            try:
                while size < 8_000_000:
                    if size < 5_000_000:
                        time.sleep(0.03)  # The slowness is what is tested.
                    got = len(client.socket.recv(65536))
                    assert got, "closed before the end"
                    size += got
                    pace.step()
            except ConnectionResetError:
                if pace.longest < 1:
                    raise
                return False
            assert size == 8_000_000
        return True

    in_time(attempt)


def test_no_timers_while_idle(with_options: Callable[..., Server]) -> None:
    """An idle server wakes up for nothing, once what other tests left behind has ended."""
    server = with_options("--timeout-keep-alive", "0")
    status = Path(f"/proc/{server.pid}/status")

    def switches() -> int:
        lines = status.read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if "voluntary_ctxt_switches" in line)

    with server.raw() as client:
        client.get("/hello")
        client.recv_response()
    fetch(server, "/hello")
    deadline = time.monotonic() + 15 * SLOWNESS
    while True:
        first, before = switches(), server.cpu()
        select.select([], [], [], 1.5)
        if switches() - first <= 5 and server.cpu() - before < 0.3:
            return
        assert time.monotonic() < deadline, f"{switches() - first} times in 1.5 s"


def test_pending_timeouts_wake_nobody(with_options: Callable[..., Server]) -> None:
    """Idle connections have a deadline, far away: until then there is nothing to wake up for."""
    server = with_options("--timeout-keep-alive", "600", "--timeout-request-head", "600")
    with server.raw() as idle, server.raw() as begun:
        idle.get("/hello")
        idle.recv_response()
        begun.send("GET / HTTP/1.1\r\n")
        await_quiet(server.pid, most=2)


# --- where it listens --------------------------------------------------------------------------------------


def test_unix_socket(with_options: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = with_options(uds=path)
    assert fetch(server, "/hello") == b"hello "
    server.stop()
    assert not path.exists()


def test_ipv6(with_options: Callable[..., Server]) -> None:
    server = with_options(bind="::1")
    assert fetch(server, "/hello") == b"hello "


def test_port_zero(with_options: Callable[..., Server]) -> None:
    server = with_options(port_option=True)
    assert server.port > 0
    assert fetch(server, "/hello") == b"hello "


# --- what is logged ----------------------------------------------------------------------------------------


def test_refusals_say_who_what_and_where(log_probe: Server) -> None:
    """uvicorn #344: not only "invalid request"."""
    with log_probe.raw() as client:
        port = client.socket.getsockname()[1]
        client.send("GET / HTTP/1.1\r\nHost: a\r\nBad header: x\r\n\r\n")
        assert client.recv_response().status == 400
        line = log_probe.wait_log(rf".*127\.0\.0\.1:{port}.*").group()
    assert "400" in line
    assert "field" in line
    assert any(word in line for word in ("byte", "offset", "at "))


@pytest.mark.parametrize(
    "raw",
    [
        "GET / HTTP/1.1\r\nHost: <script>\r\n\r\n",
        "GET <script> HTTP/1.1\r\nHost: a\r\n\r\n",
        "<SCRIPT> / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n<script>: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: <script>\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: <script>\r\n\r\n",
    ],
)
def test_refusals_repeat_nothing(log_probe: Server, raw: str) -> None:
    """twisted CVE-2022-39348: what was sent is told to the log, not to the client."""
    with log_probe.raw() as client:
        client.send(raw)
        answer = client.recv_all()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert b"script" not in answer.lower()


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /\x1b[31mred HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x1b]0;title\x07 / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\x9b\r\n\r\n",
        b"GET /\r\r\r\nfake log line\r\n\r\n",
        b"\xff\xfe\x00\x01\r\n\r\n",
    ],
)
def test_no_raw_bytes_in_the_log(log_probe: Server, raw: bytes) -> None:
    """uvicorn CVE-2020-7694: escape sequences and line breaks from the wire."""
    with log_probe.raw() as client:
        port = client.socket.getsockname()[1]
        client.send(raw)
        assert client.recv_response().status in (400, 501)
        log_probe.wait_log(rf"127\.0\.0\.1:{port}")
    for line in log_probe.log().splitlines():
        assert line.isprintable(), ascii(line)
        assert not line.startswith("fake")


def test_access_log_escapes(probe: Server) -> None:
    """uvicorn CVE-2020-7694: what is decoded for the application is not decoded for the terminal."""
    with probe.raw() as client:
        client.get("/%1b%5b31mred%0afake?%1b")
        client.recv_response()
    probe.wait_log(r"GET /%1b%5b31mred%0afake\?%1b")
    assert all(line.isprintable() for line in probe.log().splitlines())


def test_access_log_line(probe: Server) -> None:
    with probe.raw() as client:
        port = client.socket.getsockname()[1]
        client.get("/hello?x=1")
        client.recv_response()
        client.get("/nowhere", version="1.0")
        client.recv_response()
    probe.wait_log(rf'127\.0\.0\.1:{port} - "GET /hello\?x=1 HTTP/1\.1" 200')
    probe.wait_log(rf'127\.0\.0\.1:{port} - "GET /nowhere HTTP/1\.0" 404')


def test_probes_are_silent(with_options: Callable[..., Server]) -> None:
    """Connections of load balancers that say nothing leave no line."""
    server = with_options()
    server.mark()
    for _ in range(10):
        server.raw().close()
        server.raw().reset()
        with server.raw() as client:
            client.shutdown()
            assert client.at_end()
    fetch(server, "/hello")
    server.wait_log("GET /hello")
    assert len(server.log().splitlines()) == 1


def test_a_refusal_is_at_most_one_line(with_options: Callable[..., Server]) -> None:
    """Scanners do not fill the disk: no traceback, no second line, no access log line beside it."""
    server = with_options()
    server.mark()
    for _ in range(50):
        with server.raw() as client:
            client.send("NONSENSE\r\n\r\n")
            client.recv_response()
    fetch(server, "/hello")
    server.wait_log("GET /hello")
    assert 2 <= len(server.log().splitlines()) <= 51
