"""Connections of HTTP/1: the order of pipelined answers, clients that close their half or leave, bodies that
nobody reads, and the server's own end."""

from __future__ import annotations

import hashlib
import select
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from support.client import SLOWNESS, RawClient
from support.probes import await_event, fetch, nothing_to_read
from support.server import Server

Factory = Callable[..., Server]


# --- order -----------------------------------------------------------------------------------------------


@pytest.mark.tls_too
def test_pipelined_answers_in_order(probe: Server) -> None:
    """RFC 9112, 9.3.2."""
    requests = [f"GET /hello?{n} HTTP/1.1\r\nHost: a\r\n\r\n" for n in range(200)]
    with probe.raw() as client:
        client.send("".join(requests))
        for n in range(200):
            assert client.recv_response().text == f"hello {n}"
        assert nothing_to_read(client)


@pytest.mark.tls_too
def test_pipelined_answers_of_different_kinds_in_order(probe: Server) -> None:
    """Chunked, counted, empty and failed answers keep their bounds."""
    targets = [
        "/hello?1",
        "/stream?n=3&size=5",
        "/status?code=204",
        "/stream?n=2&size=3&length=1",
    ] * 5
    with probe.raw() as client:
        client.send("".join(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n" for target in targets))
        for target in targets:
            response = client.recv_response()
            expected = {
                "/hello?1": (200, b"hello 1"),
                "/stream?n=3&size=5": (200, b"aaaaabbbbbccccc"),
                "/status?code=204": (204, b""),
                "/stream?n=2&size=3&length=1": (200, b"aaabbb"),
            }[target]
            assert (response.status, response.body) == expected


@pytest.mark.tls_too
def test_pipelined_uploads(probe: Server) -> None:
    bodies = [b"%d" % n * (n * 37 % 1000) for n in range(60)]
    requests = [
        b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        for body in bodies
    ]
    with probe.raw() as client:
        client.send(b"".join(requests))
        for body in bodies:
            assert client.recv_response().text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


def test_slow_first_request(asgi_probe: Server, request: pytest.FixtureRequest) -> None:
    """twisted CVE-2023-46137, CVE-2024-41671: a quick answer never overtakes a slow one."""
    name = f"slow-{asgi_probe.pid}-{request.node.name}"
    with asgi_probe.raw() as client:
        client.get(f"/wait?name={name}")
        client.get("/hello?2")
        client.post("/digest", b"three")
        await_event(asgi_probe, f"waiting {name}")
        assert nothing_to_read(client)
        client.get("/hello?4")
        assert fetch(asgi_probe, "/hello?other") == b"hello other"  # Others are not held up.
        assert nothing_to_read(client)
        fetch(asgi_probe, f"/open?name={name}")
        assert client.recv_response().text == f"waited {name}"
        assert client.recv_response().text == "hello 2"
        assert client.recv_response().text.startswith("5 ")
        assert client.recv_response().text == "hello 4"


def test_slow_good_request_before_a_bad_one(
    asgi_probe: Server, request: pytest.FixtureRequest
) -> None:
    name = f"good-{asgi_probe.pid}-{request.node.name}"
    with asgi_probe.raw() as client:
        client.send(f"GET /wait?name={name} HTTP/1.1\r\nHost: a\r\n\r\nNONSENSE\r\n\r\n")
        await_event(asgi_probe, f"waiting {name}")
        assert nothing_to_read(client)
        fetch(asgi_probe, f"/open?name={name}")
        assert client.recv_response().text == f"waited {name}"
        response = client.recv_response()
        assert response.status in (400, 501)
        assert response.closes
        assert client.at_end()


def test_what_waits_behind_a_request_is_bounded(serve: Factory, loop: str) -> None:
    """--limit-pipeline: the server stops reading; the client's writes stall in the kernel's buffers."""
    server = serve("probe_asgi:app", "--limit-pipeline", "4096", interface="asgi", loop=loop)
    request = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
    batch = request * 1000
    with server.raw() as client:
        client.get("/wait?name=bound")
        await_event(server, "waiting bound")
        before = server.rss()
        client.socket.setblocking(False)
        sent = 0
        while select.select([], [client.socket], [], 0.5 * SLOWNESS)[1]:
            sent += client.socket.send(batch[sent % len(request) :])
            assert sent < 64 << 20, "the server reads without bound"
        assert server.rss() - before < 4 << 20
        client.socket.settimeout(20 * SLOWNESS)
        fetch(server, "/open?name=bound")
        assert client.recv_response().text == "waited bound"
        for _ in range(sent // len(request)):
            assert client.recv_response().body == b"hello "


def test_disconnect_is_seen_behind_pipelined_bytes(asgi_probe: Server) -> None:
    """Reading goes on while a request is worked on, so that a leaving client is seen."""
    with asgi_probe.raw() as client:
        client.get("/disconnect?name=behind")
        client.get("/hello")
        await_event(asgi_probe, "here behind")
        client.reset()
    await_event(asgi_probe, "left behind")


# --- half-closed clients, and closing ----------------------------------------------------------------------


@pytest.mark.tls_too
def test_half_closed_client_is_answered(probe: Server) -> None:
    with probe.raw() as client:
        client.get("/hello?half")
        client.shutdown()
        assert client.recv_response().text == "hello half"
        assert client.at_end()


@pytest.mark.tls_too
def test_half_closed_client_of_pipelined_requests_is_answered(probe: Server) -> None:
    with probe.raw() as client:
        client.send("".join(f"GET /hello?{n} HTTP/1.1\r\nHost: a\r\n\r\n" for n in range(20)))
        client.shutdown()
        for n in range(20):
            assert client.recv_response().text == f"hello {n}"
        assert client.at_end()


@pytest.mark.tls_too
def test_half_closed_client_of_a_long_answer(probe: Server) -> None:
    with probe.raw() as client:
        client.get("/stream?n=300&size=10000")
        client.shutdown()
        assert len(client.recv_response().body) == 3_000_000
        assert client.at_end()


def test_half_open_connections_cost_no_processor_time(asgi_probe: Server) -> None:
    """waitress GHSA-3f84-rpwh-47g6: a busy loop over half-closed connections."""
    with ExitStack() as stack:
        clients = [stack.enter_context(asgi_probe.raw()) for _ in range(20)]
        for client in clients:
            client.get("/wait?name=half-open")
            client.shutdown()
        idle = stack.enter_context(asgi_probe.raw())
        idle.send("GET /hello HT")
        fetch(asgi_probe, "/hello")
        before = asgi_probe.cpu()
        assert not select.select([client.socket for client in clients], [], [], 1)[0]
        assert asgi_probe.cpu() - before < 0.3
        fetch(asgi_probe, "/open?name=half-open")
        for client in clients:
            assert client.recv_response().text == "waited half-open"


@pytest.mark.parametrize("size", [1 << 20, 20 << 20])
def test_413_reaches_a_client_that_still_sends(
    with_options: Callable[..., Server], size: int
) -> None:
    """RFC 9112, 9.6: closing at once would reset the connection and lose the answer."""
    server = with_options("--limit-request-body", "1000")
    with server.raw() as client:
        send_most(client, b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        send_most(client, b"x" * size)
        response = client.recv_response()
        assert response.status == 413
        assert response.closes
        assert client.at_end()


def test_413_of_a_chunked_body(with_options: Callable[..., Server]) -> None:
    """The limit holds for bodies of unknown length, and counts data, not framing."""
    server = with_options("--limit-request-body", "1000")
    with server.raw() as client:
        client.send("POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        for _ in range(9):
            client.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert client.recv_response().text.startswith("1000 ")
        client.send("POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2000):
            send_most(client, b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        response = client.recv_response()
        assert response.status == 413
        assert client.at_end()


@pytest.mark.tls_too
def test_400_in_a_body_reaches_a_client_that_still_sends(probe: Server) -> None:
    with probe.raw() as client:
        client.send("POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\nnonsense\r\n")
        send_most(client, b"x" * (5 << 20))
        response = client.recv_response()
        assert response.status == 400
        assert response.closes
        assert client.at_end()


@pytest.mark.tls_too
def test_400_in_a_head_reaches_a_client_that_still_sends(probe: Server) -> None:
    with probe.raw() as client:
        send_most(client, b"POST /digest HTTP/1.1\r\nBad header\r\n\r\n" + b"x" * (5 << 20))
        assert client.recv_response().status == 400
        assert client.at_end()


@pytest.mark.tls_too
def test_answer_reaches_a_client_whose_upload_is_not_read(probe: Server) -> None:
    """gunicorn 26: closing without reading the rest truncates the answer."""
    with probe.raw() as client:
        send_most(client, b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 5242880\r\n\r\n")
        send_most(client, b"x" * 5242880)
        response = client.recv_response()
        assert (response.status, response.text) == (200, "unread")


def send_most(client: RawClient, data: bytes) -> None:
    """Sends until the server is through with the connection."""
    try:
        client.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


@pytest.mark.tls_too
def test_unread_body_is_never_taken_for_a_request(probe: Server) -> None:
    """gunicorn 25: "keepalive smuggling"; a body that the application ignores is skipped."""
    body = b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n"
    with probe.raw() as client:
        for _ in range(5):
            client.post("/unread", body)
            assert client.recv_response().text == "unread"
        client.get("/hello?next")
        assert client.recv_response().text == "hello next"


@pytest.mark.tls_too
def test_unread_body_that_comes_later_is_never_taken_for_a_request(probe: Server) -> None:
    """As above: the answer is out before the body is in."""
    body = b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n"
    with probe.raw() as client:
        for _ in range(3):
            client.send(
                b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            if probe.app == "probe_asgi:app":  # WSGI may wait for the body before it calls.
                response = client.recv_response()
                client.send(body)
            else:
                client.send(body)
                response = client.recv_response()
            assert response.text == "unread"
            if response.closes:
                assert client.at_end()
                return
        client.get("/hello?next")
        assert client.recv_response().text == "hello next"


@pytest.mark.parametrize("framing", ["Content-Length: 30", "Transfer-Encoding: chunked"])
def test_an_answer_before_the_body_is_the_last(shared: Factory, loop: str, framing: str) -> None:
    """Some proxies do not send the body then, and use the connection for somebody else's request."""
    server = shared("probe_asgi:app", interface="asgi", loop=loop)
    with server.raw() as client:
        client.send(f"POST /unread HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
        response = client.recv_response()
        assert response.text == "unread"
        assert response.closes
        client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.at_end()


def test_unread_body_above_the_limit_closes(serve: Factory, loop: str) -> None:
    """--limit-body-discard: beyond it the connection is not worth keeping."""
    server = serve("probe_asgi:app", "--limit-body-discard", "100", interface="asgi", loop=loop)
    with server.raw() as client:
        client.send("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n")
        assert client.recv_response().text == "unread"
        client.send(b"x" * 50)
        client.get("/hello")
        assert client.recv_response().text == "hello "
        client.send("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        response = client.recv_response()
        assert response.text == "unread"
        assert response.closes
        assert client.at_end()


@pytest.mark.tls_too
def test_shutdown_lets_the_client_read_everything(probe: Server) -> None:
    """Behind Connection: close a long answer arrives whole, also when more was pipelined."""
    with probe.raw() as client:
        client.send(
            "GET /stream?n=100&size=50000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        response = client.recv_response()
        assert len(response.body) == 5_000_000
        assert response.closes
        assert client.at_end()


# --- stopping ----------------------------------------------------------------------------------------------


def test_a_running_request_is_finished(serve: Factory, loop: str) -> None:
    """SIGTERM: running requests end well, and say that the connection does."""
    server = serve("probe_asgi:app", interface="asgi", loop=loop)
    with server.raw() as opener, server.raw() as client, server.raw() as idle:
        idle.get("/hello")
        idle.recv_response()
        opener.send(
            "GET /open?name=end HTTP/1.1\r\nHost: a\r\n"
        )  # A head that is under way counts, too.
        client.get("/wait?name=end")
        await_event(server, "waiting end")
        server.signal(15)
        assert idle.at_end()
        opener.send("\r\n")
        assert opener.recv_response().text == "opened"
        response = client.recv_response()
        assert response.text == "waited end"
        assert response.closes
        assert client.at_end()
    assert server.wait() == 0


@pytest.mark.tls_too
def test_a_download_is_finished(with_options: Callable[..., Server]) -> None:
    """SIGTERM while an answer is on its way: it arrives whole."""
    server = with_options()
    with server.raw() as client:
        client.get("/stream?n=400&size=50000")
        response = client.recv_head()
        assert response.status == 200
        server.signal(15)
        client.buffer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + client.buffer
        assert len(client.recv_response().body) == 20_000_000
        assert client.at_end()
    assert server.wait() == 0


def test_stopping_refuses_new_connections(with_options: Callable[..., Server]) -> None:
    server = with_options()
    fetch(server, "/hello")
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        server.raw()


def test_requests_that_do_not_end_are_cut(serve: Factory, loop: str) -> None:
    """uvicorn #251: a request that never ends does not keep the server."""
    server = serve(
        "probe_asgi:app", "--timeout-graceful-shutdown", "0.3", interface="asgi", loop=loop
    )
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/wait?name=never")
        await_event(server, "waiting never")
        server.signal(15)
        with pytest.raises((AssertionError, ConnectionResetError)):
            client.recv_response()
    assert server.wait() == 0


# --- clients that leave ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.tls_too
def test_clients_that_leave_do_no_harm(probe: Server, leave: str) -> None:
    """At every point of a request and of an answer."""
    probe.expect_tracebacks()  # An application may let the OSError of send pass.
    starts = [
        b"",
        b"GET",
        b"GET /hello HTTP/1.1\r\nHost: a\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n" * 50,
        b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
        b"POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"GET /stream?n=100&size=100000 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /stream?n=100&size=100000 HTTP/1.1\r\nHost: a\r\n\r\n" * 3,
        b"GET / HTTP/1.1\r\nbad\r\n\r\n",
        b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
        b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
    ]
    for start in starts:
        for _ in range(3):
            client = probe.raw()
            client.send(start)
            getattr(client, leave)()
    for start in starts[3:]:
        client = probe.raw()
        client.send(start)
        select.select([client.socket], [], [], 0.05)
        getattr(client, leave)()
    assert fetch(probe, "/hello") == b"hello "
