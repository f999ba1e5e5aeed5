"""What request bodies take of the disk is bounded for all of them together (--limit-body-spool), and given back
whatever becomes of the request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from support.client import RawClient, Response
from support.processes import wait_until
from support.server import Server
from support.wsgi_rules import APP, fetch, send_chunked, target

LIMIT = 500_000
PART = 50_000
LARGEST = b"x" * LIMIT  # has room when nothing else is there
HEAD = "POST {} HTTP/1.1\r\nHost: test\r\n"
CHUNKED = HEAD + "Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n" % (PART, b"x" * PART)

pytestmark = pytest.mark.plain("the disk is the same whatever the transport")

Start = Callable[..., Server]


@pytest.fixture
def start(serve: Start, threads: int | None) -> Start:
    def started(*args: str, **options: Any) -> Server:
        words = ("--limit-body-memory", "1000", "--limit-body-spool", str(LIMIT), *args)
        return serve(APP, *words, interface="wsgi", threads=threads, **options)

    return started


def drain(client: RawClient, body: bytes) -> Response:
    client.post("/drain", body)
    return client.recv_response()


def assert_all_is_free(server: Server) -> None:
    """What needs every byte is taken, as soon as the server has seen the end of what came before."""

    def fits() -> bool:
        with server.raw() as client:
            client.send(
                HEAD.format("/drain") + f"Content-Length: {LIMIT}\r\nExpect: 100-continue\r\n\r\n"
            )
            head = client.recv_head()
            if head.status == 503:
                return False
            assert head.status == 100
            client.send(LARGEST)
            response = client.recv_response()
            assert json.loads(response.body)[0] == LIMIT
            return True

    wait_until(fits)
    wait_until(lambda: server.spooled() == 0)


def fill(server: Server, client: RawClient, n: int = LIMIT - 1) -> None:
    """A body of which `n` bytes are here, and one is to come."""
    client.send(HEAD.format("/drain") + f"Content-Length: {n + 1}\r\n\r\n")
    before = server.spooled()
    client.send(b"x" * n)
    wait_until(lambda: server.spooled() >= before + n)


def assert_no_room(response: Response) -> None:
    """RFC 9110, 15.6.4: the server is overloaded, and says when to come again."""
    assert response.status == 503
    assert response.get("retry-after") == b"1"
    assert response.closes
    assert response.text == "no room for the request body beside others\n"


def test_many_uploads(start: Start) -> None:
    """Of forty, each of which would have room, as many are kept as have it together."""
    server = start()
    peak, statuses = 0, []
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(40)]
        for client in clients:
            client.send(CHUNKED.format("/drain"))
        for _ in range(3):
            for client in clients:
                try:
                    client.send(CHUNK)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it was refused, and more than it was read
                peak = max(peak, server.spooled())
        server.wait_log("limit_body_spool reached: 500000 bytes of request bodies in files")
        peak = max(peak, server.spooled())  # those that were not refused wait for their ends
        for client in clients:
            try:
                client.send(b"0\r\n\r\n")
                response = client.recv_response()
            except (BrokenPipeError, ConnectionResetError):
                continue
            statuses.append(response.status)
            if response.status == 503:
                assert_no_room(response)
            else:
                assert json.loads(response.body)[0] == 3 * PART
    assert 0 < peak <= LIMIT
    assert 200 in statuses
    assert set(statuses) <= {200, 503}
    assert_all_is_free(server)
    assert len(re.findall("limit_body_spool", server.log())) == 1, server.log()


def test_refused_before_it_is_read(start: Start) -> None:
    """One whose length is known: 503 where others are in the way, 413 where it never fits."""
    server = start()
    expect = HEAD.format("/drain") + "Content-Length: {}\r\nExpect: 100-continue\r\n\r\n"
    with server.raw() as first:
        fill(server, first, LIMIT - 2000)
        with server.raw() as client:
            client.send(expect.format(2001))
            assert_no_room(client.recv_response())
        with server.raw() as client:
            client.send(expect.format(LIMIT + 1))
            response = client.recv_response()
            assert response.status == 413
            assert response.get("retry-after") is None  # RFC 9110, 15.5.14: it is not temporary
            assert response.closes
        with server.raw() as client:
            client.send(expect.format(2000))
            assert client.recv_head().status == 100
        first.send(b"x")
        assert json.loads(first.recv_response().body)[0] == LIMIT - 1999
    assert_all_is_free(server)
    server.wait_log(r"request refused \(413\): request body too large to be kept")


def test_refused_in_the_middle(start: Start) -> None:
    """One whose length is not known."""
    server = start()
    with server.raw() as first, server.raw() as second:
        fill(server, first, LIMIT - PART)
        second.send(CHUNKED.format("/drain") + CHUNK.decode())
        second.send(CHUNK)
        assert_no_room(second.recv_response())
        first.send(b"x")
        assert first.recv_response().status == 200
    with server.raw() as client:
        client.send(CHUNKED.format("/drain"))
        for _ in range(LIMIT // PART):
            client.send(CHUNK)
        client.send(b"1\r\n")
        wait_until(lambda: server.spooled() == LIMIT)
        client.send(b"x\r\n")
        response = client.recv_response()
        assert response.status == 413
        assert response.closes
    assert_all_is_free(server)


def test_what_is_in_memory_is_no_matter_of_it(start: Start) -> None:
    server = start()
    with server.raw() as first, server.raw() as client:
        fill(server, first)
        for _ in range(3):
            assert json.loads(drain(client, b"x" * 1000).body)[0] == 1000
        assert_no_room(drain(client, b"x" * 1001))
    assert_all_is_free(server)


def test_a_client_leaves(start: Start) -> None:
    server = start()
    for leave in (RawClient.close, RawClient.reset):
        client = server.raw()
        fill(server, client)
        leave(client)
        assert_all_is_free(server)


def test_a_body_that_stalls(start: Start) -> None:
    server = start("--timeout-request-body", "0.2")
    with server.raw() as client:
        fill(server, client)
        assert client.recv_response().status == 408
        assert_all_is_free(server)


@pytest.mark.parametrize("end", [b"zz\r\n", b"1\r\nx\n\n"], ids=["size", "data"])
def test_a_body_that_is_broken(start: Start, end: bytes) -> None:
    server = start()
    with server.raw() as client:
        client.send(CHUNKED.format("/drain") + 9 * CHUNK.decode())
        wait_until(lambda: server.spooled() == 9 * PART)
        client.send(end)
        assert client.recv_response().status == 400
    assert_all_is_free(server)


@pytest.mark.parametrize("where", ["before", "behind", "first", "later", "length"])
def test_an_application_that_fails(start: Start, where: str) -> None:
    server = start()
    server.expect_tracebacks()
    with server.raw() as client:
        client.post(target("raises", where), LARGEST)
        assert client.recv_head().status in (200, 500)
    assert_all_is_free(server)


def test_an_application_that_does_not_read(start: Start) -> None:
    server = start()
    for _ in range(3):
        with server.raw() as client:
            client.post("/environ", LARGEST)
            assert client.recv_response().status == 200
    assert_all_is_free(server)


def test_a_client_that_leaves_its_answer(start: Start) -> None:
    server = start()
    client = server.raw()
    client.post("/endless", LARGEST)
    assert client.recv_head().status == 200
    client.reset()
    assert_all_is_free(server)


def test_an_application_that_keeps_its_input(start: Start) -> None:
    """It counts as long as the file is there; and the file, when the request is long over."""
    server = start()
    with server.raw() as client:
        client.post("/keep", LARGEST)
        assert client.recv_response().text == "kept"
        assert server.spooled() == LIMIT
        assert_no_room(drain(client, b"x" * 1001))
    assert fetch(server, "use_kept").text.endswith('"]')  # On another thread it lets go.
    assert_all_is_free(server)


def test_the_end_of_the_server(start: Start) -> None:
    server = start("--timeout-graceful-shutdown", "0")
    with server.raw() as first, server.raw() as second:
        fill(server, first, LIMIT // 2)
        second.post("/keep", LARGEST[: LIMIT // 2])
        assert second.recv_response().status == 200
        server.stop()


def test_no_limit(start: Start) -> None:
    server = start("--limit-body-spool", "0")
    with server.raw() as client:
        for data in (LARGEST + b"x", LARGEST * 3):
            assert json.loads(drain(client, data).body)[0] == len(data)
            send_chunked(client, "/drain", data[:PART], data[PART:])
            assert json.loads(client.recv_response().body)[0] == len(data)
