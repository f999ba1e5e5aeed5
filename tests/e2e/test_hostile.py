"""Applications that do everything wrong: hostile messages, arguments and objects, calls out of time and from other
threads. The server lives on, writes no ill-formed answer, and at most the one connection ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from support.client import MalformedResponse
from support.hostile import (
    asgi_programs,
    hostile,
    http_messages,
    target,
    websocket_messages,
    wsgi_programs,
)
from support.websocket import CLOSE, WebSocket, handshake

BODY = b"a body that waits to be read"
# What a strict client says of a response that was cut.
CUT = ("closed before", "bytes before the end")
LONGEST = 60_000  # bytes of a program: what fits into a request line


def check_answer(server, program):
    with server.raw() as client:
        client.post(target(program), BODY)
        try:
            response = client.recv_response(skip=(100, 103))
        except MalformedResponse as error:
            assert any(text in str(error) for text in CUT), error
            return
        except (ConnectionResetError, BrokenPipeError):
            return
        if response.get("connection") == b"close":
            try:
                assert client.at_end(), client.buffer
            except ConnectionResetError:
                pass
        else:
            client.get("/ok")
            assert client.recv_response().body == b"ok"


def check_serves_on(server):
    with server.raw() as client:
        client.get("/ok")
        response = client.recv_response()
        assert (response.status, response.body) == (200, b"ok")
    assert server.alive()


def long_lines(serve, app, backend):
    server = serve(app, "--limit-request-line", "65000", "--no-access-log", **backend.options)
    server.expect_tracebacks()
    return server


def check_http(server, program):
    if len(target(program)) < LONGEST:
        check_answer(server, program)
        check_serves_on(server)


@pytest.mark.slow
def test_http(serve, backend):
    """Through ASGI and WSGI, on both loops, inline and on threads."""
    kind = "wsgi" if backend.options["interface"] == "wsgi" else "asgi"
    server = long_lines(serve, f"hostile_{kind}:app", backend)

    @hostile
    @given(wsgi_programs if kind == "wsgi" else asgi_programs(http_messages))
    def attack(program):
        check_http(server, program)

    attack()


def check_websocket(server, program):
    with server.raw() as raw:
        raw.send(handshake(target(program)))
        try:
            head = raw.recv_head()
            if head.status != 101:
                assert head.status >= 400 or head.status in (200, 999), head
                return
            client = WebSocket(raw)
            client.text("hello")
            client.close()
            # recv checks the form of frames
            while client.recv().opcode != CLOSE:
                pass
        except MalformedResponse as error:
            assert any(text in str(error) for text in CUT), error
        except (ConnectionResetError, BrokenPipeError):
            pass
    check_serves_on(server)


@pytest.mark.slow
def test_websocket(serve, loop):
    server = serve(
        "hostile_asgi:app", "--limit-request-line", "65000", "--no-access-log", loop=loop
    )
    server.expect_tracebacks()

    @hostile
    @given(asgi_programs(websocket_messages))
    def attack(program):
        if len(target(program)) < LONGEST:
            check_websocket(server, program)

    attack()
