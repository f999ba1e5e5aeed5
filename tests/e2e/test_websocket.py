"""WebSocket: RFC 6455 and ASGI WebSocket 2.5, by hand-made frames, on both loops."""

from __future__ import annotations

import ast
import itertools
import re
import select
import signal
import time
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from support.client import SLOWNESS, RawClient
from support.pace import in_time
from support.processes import await_end, children, run_first
from support.server import Server
from support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    WebSocket,
    close_frame,
    frame,
    handshake,
)

Factory = Callable[..., Server]
Message = dict[str, Any]

APP = "websocket_asgi:app"
ACCEPT: Message = {"type": "websocket.accept"}
CLOSING: Message = {"type": "websocket.close"}
CONNECT: Message = {"type": "websocket.connect"}
SEND: Message = {"type": "websocket.send", "text": "hi"}

keys = itertools.count()


@pytest.fixture
def server(shared: Factory, loop: str) -> Server:
    return shared(APP, interface="asgi", loop=loop)


def websocket(server: Server, timeout: float | None = None) -> WebSocket:
    return WebSocket(server.raw(timeout=timeout))


def opened(server: Server, target: str = "/echo", *fields: str) -> WebSocket:
    ws = websocket(server)
    ws.open(target, *fields)
    return ws


def script(*steps: Message | str) -> tuple[int, str]:
    """A key for ``outcomes``, and the target that makes the application do so."""
    key = next(keys)
    return key, f"/?{key}&{quote(repr(list(steps)))}"


def outcomes(server: Server, key: int) -> list[Any]:
    with server.raw() as client:
        client.get(f"/outcomes?{key}")
        seen: list[Any] = ast.literal_eval(client.recv_response().text)
        return seen


def disconnect(code: int, reason: str = "") -> Message:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def check_raised(outcome: Any, kind: str, *words: str) -> None:
    assert outcome is not None, "it was taken"
    kinds, text = outcome
    assert kind in kinds, outcome
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


# --- the handshake -----------------------------------------------------------------------------------------


def test_echo(server: Server) -> None:
    with opened(server) as ws:
        ws.text("hello")
        ws.expect(TEXT, "hello")
        ws.send(BINARY, b"\x00\xff" * 5)
        ws.expect(BINARY, b"\x00\xff" * 5)
        ws.text("")
        ws.expect(TEXT, "")
        ws.close(1000, "bye")
        ws.expect_close(1000, "bye")
        assert ws.at_end()


def test_sizes(server: Server) -> None:
    """Lengths at the borders of their three forms; small ones are copied, large ones sent by reference."""
    with opened(server) as ws:
        for n in (1, 125, 126, 127, 8191, 8192, 8193, 65535, 65536, 1_000_000):
            ws.send(BINARY, b"\x5a" * n)
            ws.expect(BINARY, b"\x5a" * n)
            ws.text("ä" * (n // 2))
            ws.expect(TEXT, "ä" * (n // 2))


def test_in_parts(server: Server) -> None:
    """Byte by byte, handshake included."""
    with websocket(server) as ws:
        for byte in (handshake("/echo") + "\0").encode()[:-1] + frame(TEXT, "hello"):
            ws.raw.send(bytes([byte]))
        ws.opened()
        ws.expect(TEXT, "hello")


def test_frames_behind_the_handshake(server: Server) -> None:
    """In one read with it, while the application has not accepted yet."""
    key, target = script("receive", "wait late", ACCEPT, "echo")
    with websocket(server) as ws:
        ws.raw.send(handshake(target).encode() + frame(TEXT, "early") + close_frame(1001))
        server.get("/go?late")
        ws.opened()
        ws.expect_close(1001)
    assert outcomes(server, key)[:3] == [CONNECT, None, None]
    with websocket(server) as ws:
        ws.raw.send(handshake("/echo").encode() + frame(TEXT, "a") + frame(TEXT, "b"))
        ws.opened()
        assert ws.texts(2) == ["a", "b"]


def test_behind_another_request(server: Server) -> None:
    with websocket(server) as ws:
        ws.raw.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n" + handshake("/echo"))
        assert ws.raw.recv_response().text == "http /x"
        ws.opened()
        ws.text("hello")
        ws.expect(TEXT, "hello")


def test_scope(shared: Factory, loop: str) -> None:
    server = shared(APP, "--root-path", "/r", interface="asgi", loop=loop)
    with opened(
        server,
        "/scope?a=%20b",
        "Sec-WebSocket-Protocol: x, y",
        "Sec-WebSocket-Protocol: z",
        "X-A: b",
    ) as ws:
        port = ws.raw.socket.getsockname()[1]
        first = ws.recv()
    assert first.opcode == TEXT
    scope = ast.literal_eval(first.payload.decode())
    headers = scope.pop("headers")
    assert (b"x-a", b"b") in headers
    assert (b"host", b"test") in headers
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": ("127.0.0.1", server.port),
        "client": ("127.0.0.1", port),
        "path": "/r/scope",
        "raw_path": b"/r/scope",
        "query_string": b"a=%20b",
        "root_path": "/r",
        "subprotocols": ["x", "y", "z"],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


def test_scopes_are_independent(server: Server) -> None:
    """Their dicts share keys, and nothing else."""
    with opened(server, "/changes") as one, opened(server, "/changes") as two:
        for ws in (one, two):
            ws.text("now")
            ws.expect(TEXT, "as new")
        for ws in (two, one):
            ws.text("now")
            ws.expect(TEXT, "as changed")


def test_headers_are_read_late(server: Server) -> None:
    with opened(server, "/headers_later", "X-Early: bird") as ws:
        ws.text("now")
        headers = ast.literal_eval(ws.recv().payload.decode())
    assert (b"x-early", b"bird") in headers
    assert (b"sec-websocket-version", b"13") in headers


def test_scheme_and_client_behind_a_proxy(shared: Factory, loop: str) -> None:
    server = shared(APP, interface="asgi", loop=loop)
    with opened(server, "/scope", "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.7") as ws:
        scope = ast.literal_eval(ws.recv().payload.decode())
    assert scope["scheme"] == "wss"
    assert scope["client"][0] == "192.0.2.7"


def test_asgi_2(shared: Factory, loop: str) -> None:
    server = shared("websocket_asgi:app2", interface="asgi2", loop=loop)
    with opened(server) as ws:
        ws.text("two")
        ws.expect(TEXT, "two")


def test_defaults_of_the_head(serve: Factory) -> None:
    server = serve(APP, "--header", "X-All: yes", interface="asgi")
    with websocket(server) as ws:
        head = ws.open("/echo")
    assert head.get("server") == b"asgiserver"
    assert head.get("date") is not None
    assert head.get("x-all") == b"yes"


@pytest.mark.parametrize(
    ("fields", "status", "answer"),
    [
        (
            ["Sec-WebSocket-Version: 8"],
            426,
            {"sec-websocket-version": b"13", "upgrade": b"websocket"},
        ),
        (["Sec-WebSocket-Version:"], 426, {"sec-websocket-version": b"13"}),
        (["Sec-WebSocket-Key: short"], 400, {}),
        (["Sec-WebSocket-Key:"], 400, {}),
        (["Content-Length: 3"], 400, {}),
        (["Transfer-Encoding: chunked"], 400, {}),
    ],
)
def test_refused(server: Server, fields: list[str], status: int, answer: dict[str, bytes]) -> None:
    """The application does not hear of it."""
    with websocket(server) as ws:
        ws.raw.send(handshake("/echo", *fields))
        response = ws.raw.recv_response()
        assert response.status == status
        for name, value in answer.items():
            assert response.get(name) == value
        assert b"close" in b",".join(response.get_all("connection"))
        ws.raw.shutdown()
        assert ws.at_end()
    server.wait_log(rf"request refused \({status}\)")


def test_refused_method(server: Server) -> None:
    with websocket(server) as ws:
        ws.raw.send(handshake("/echo").replace("GET", "POST", 1))
        response = ws.raw.recv_response()
        assert (response.status, response.get("allow")) == (405, b"GET")


@pytest.mark.parametrize(
    "fields",
    [
        ["Upgrade: h2c"],
        ["Upgrade:"],
    ],
)
def test_no_handshake(server: Server, fields: list[str]) -> None:
    """An ordinary request, as before; so is the next one."""
    with server.raw() as client:
        for _ in range(2):
            client.send(handshake("/echo", *fields))
            assert client.recv_response().text == "http /echo"


@pytest.mark.parametrize("connection", ["Connection: keep-alive", "Connection:"])
def test_no_tunnel(server: Server, connection: str) -> None:
    """An ordinary request, and the last one: a front end might take what follows for a tunnel's."""
    with server.raw() as client:
        client.send(handshake("/echo", connection) + "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n")
        response = client.recv_response()
        assert response.text == "http /echo"
        assert response.closes
        assert client.recv_all() == b""


def test_1_0_is_no_handshake(server: Server) -> None:
    with server.raw() as client:
        client.send(handshake("/echo").replace("HTTP/1.1", "HTTP/1.0"))
        assert client.recv_response().text == "http /echo"


def test_off(shared: Factory, loop: str) -> None:
    server = shared(APP, "--ws", "off", interface="asgi", loop=loop)
    with server.raw() as client:
        client.send(handshake("/echo"))
        assert client.recv_response().text == "http /echo"


def test_wsgi_ignores_it(shared: Factory) -> None:
    server = shared("echo_wsgi:app", interface="wsgi")
    with server.raw() as client:
        client.send(handshake("/x"))
        assert client.recv_response().status == 200


# --- what an application sends -----------------------------------------------------------------------------


def run(server: Server, *steps: Message | str) -> tuple[RawClient, int]:
    key, target = script(*steps)
    client = server.raw()
    client.send(handshake(target))
    return client, key


BAD_HANDSHAKES: list[tuple[str, list[str], Message]] = [
    ("TypeError", ["subprotocol"], {**ACCEPT, "subprotocol": b"x"}),
    ("TypeError", ["subprotocol"], {**ACCEPT, "subprotocol": 5}),
    ("ValueError", ["subprotocol"], {**ACCEPT, "subprotocol": "a b"}),
    ("ValueError", ["subprotocol"], {**ACCEPT, "subprotocol": "a\r\nb"}),
    ("ValueError", ["subprotocol"], {**ACCEPT, "subprotocol": "\u00e4"}),
    ("TypeError", ["headers"], {**ACCEPT, "headers": 5}),
    ("TypeError", ["headers"], {**ACCEPT, "headers": [("a", b"b")]}),
    ("ValueError", ["headers"], {**ACCEPT, "headers": [(b"a b", b"b")]}),
    ("ValueError", ["headers"], {**ACCEPT, "headers": [(b"a", b"b\r\nc: d")]}),
    *(
        ("ValueError", ["headers", name.decode()], {**ACCEPT, "headers": [(name, b"x")]})
        for name in (
            b"sec-websocket-protocol",
            b"Sec-WebSocket-Accept",
            b"sec-websocket-extensions",
            b"sec-websocket-key",
            b"sec-websocket-version",
        )
    ),
    ("TypeError", ["code"], {**CLOSING, "code": "1000"}),
    ("TypeError", ["reason"], {**CLOSING, "reason": b"x"}),
    ("RuntimeError", ["websocket.accept"], SEND),
    ("RuntimeError", ["websocket.accept"], {"type": "http.response.start", "status": 200}),
    ("RuntimeError", ["websocket.accept"], {"type": "websocket.http.response.body"}),
    ("KeyError", ["status"], {"type": "websocket.http.response.start"}),
    ("ValueError", ["status"], {"type": "websocket.http.response.start", "status": 101}),
    ("KeyError", ["type"], {}),
]


@pytest.mark.parametrize(("kind", "words", "message"), BAD_HANDSHAKES)
def test_bad_answer(server: Server, kind: str, words: list[str], message: Message) -> None:
    """It is raised, names message and key, and changes nothing."""
    client, key = run(server, "receive", message, ACCEPT, CLOSING)
    with WebSocket(client) as ws:
        ws.opened()
        ws.expect_close(1000)
        ws.close()
    seen = outcomes(server, key)
    check_raised(seen[1], kind, *words)
    assert seen[2:] == [None, None]


BAD_SENDS: list[tuple[str, list[str], Message]] = [
    ("ValueError", ["bytes", "text"], {"type": "websocket.send"}),
    ("ValueError", ["bytes", "text"], {"type": "websocket.send", "text": None, "bytes": None}),
    ("ValueError", ["bytes", "text"], {"type": "websocket.send", "text": "", "bytes": b""}),
    ("TypeError", ["text"], {"type": "websocket.send", "text": b"x"}),
    ("TypeError", ["bytes"], {"type": "websocket.send", "bytes": "x"}),
    ("UnicodeEncodeError", [], {"type": "websocket.send", "text": "\ud800"}),
    ("RuntimeError", ["websocket.accept"], ACCEPT),
    ("RuntimeError", ["websocket.send"], {"type": "websocket.http.response.start", "status": 200}),
    *(
        ("ValueError", ["code"], {**CLOSING, "code": code})
        for code in (0, -1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 10**30)
    ),
    ("TypeError", ["code"], {**CLOSING, "code": 1000.0}),
    ("TypeError", ["reason"], {**CLOSING, "reason": 5}),
    ("ValueError", ["reason"], {**CLOSING, "reason": "x" * 124}),
    ("ValueError", ["reason"], {**CLOSING, "reason": "ä" * 62}),
]


@pytest.mark.parametrize(("kind", "words", "message"), BAD_SENDS)
def test_bad_message(server: Server, kind: str, words: list[str], message: Message) -> None:
    client, key = run(server, "receive", ACCEPT, message, SEND, CLOSING)
    with WebSocket(client) as ws:
        ws.opened()
        ws.expect(TEXT, "hi")
        ws.expect_close(1000)
        ws.close()
    seen = outcomes(server, key)
    check_raised(seen[2], kind, *words)
    assert seen[3:] == [None, None]


def test_accept_with_subprotocol_and_headers(server: Server) -> None:
    fields = [(b"X-A", b"1"), (b"x-a", b" 2 "), (b"date", b"never"), (b"server", b"mine")]
    dropped = [(b"connection", b"close"), (b"upgrade", b"x"), (b"content-length", b"1")]
    accept = {**ACCEPT, "subprotocol": "chat", "headers": iter(())}
    accept["headers"] = fields + dropped
    client, key = run(server, "receive", accept, CLOSING)
    with WebSocket(client) as ws:
        head = ws.opened()
        assert head.get("sec-websocket-protocol") == b"chat"
        assert head.get_all("x-a") == [b"1", b"2"]
        assert (head.get("date"), head.get("server")) == (b"never", b"mine")
        ws.expect_close(1000)
    assert outcomes(server, key) == [CONNECT, None, None]


def test_memoryview_and_bytearray_are_bytes(server: Server) -> None:
    with opened(server, "/buffers") as ws:
        for size in (1, 1, 200_000, 200_000):
            ws.expect(BINARY, b"o" * size)
        ws.expect_close(1000)


def test_rejected(server: Server) -> None:
    """ASGI, "Close": 403, and the disconnect."""
    client, key = run(server, "receive", {**CLOSING, "code": 4000}, "receive", "receive", SEND)
    with client:
        response = client.recv_response()
        assert (response.status, response.body, response.closes) == (403, b"", True)
        assert response.framing == "length"
        client.shutdown()
        assert client.at_end()
    seen = outcomes(server, key)
    assert seen[:4] == [CONNECT, None, disconnect(1006), disconnect(1006)]
    check_raised(seen[4], "RuntimeError", "websocket.send", "closed")
    server.wait_log(r'"GET /\?.* HTTP/1\.1" 403')


def denial(status: int, *bodies: bytes, headers: Any = ()) -> list[Message | str]:
    body = "websocket.http.response.body"
    return [
        {"type": "websocket.http.response.start", "status": status, "headers": list(headers)},
        *({"type": body, "body": one, "more_body": True} for one in bodies[:-1]),
        {"type": body, "body": bodies[-1]},
    ]


@pytest.mark.parametrize(
    ("steps", "framing", "body"),
    [
        (denial(401, b"who?", headers=[(b"www-authenticate", b"x")]), "length", b"who?"),
        (denial(401, b"who", b"?", headers=[(b"www-authenticate", b"x")]), "chunked", b"who?"),
        (
            denial(401, b"w", headers=[(b"www-authenticate", b"x"), (b"content-length", b"1")]),
            "length",
            b"w",
        ),
    ],
)
def test_denial(server: Server, steps: list[Message | str], framing: str, body: bytes) -> None:
    client, key = run(server, "receive", *steps, "receive", ACCEPT)
    with client:
        response = client.recv_response()
        assert (response.status, response.framing, response.body) == (401, framing, body)
        assert (response.get("www-authenticate"), response.closes) == (b"x", True)
    seen = outcomes(server, key)
    assert seen[:-2] == [CONNECT] + [None] * len(steps)
    assert seen[-2] == disconnect(1006)
    check_raised(seen[-1], "RuntimeError", "websocket.accept")


def test_denial_cannot_be_taken_back(server: Server) -> None:
    start = denial(401, b"x")[0]
    client, key = run(server, "receive", start, ACCEPT, CLOSING, *denial(401, b"x")[1:])
    with client:
        assert client.recv_response().status == 401
    seen = outcomes(server, key)
    for outcome in seen[2:4]:
        check_raised(outcome, "RuntimeError", "websocket.http.response.body")
    assert seen[4] is None


# --- the end of an application -----------------------------------------------------------------------------


def test_returns_without_an_answer(serve: Factory, loop: str) -> None:
    server = serve(APP, interface="asgi", loop=loop)
    client, _ = run(server, "receive")
    with client:
        assert client.recv_response().status == 500
    server.wait_log("returned without accepting or closing")
    server.wait_log(r'" 500 Internal')


def test_returns_within_a_denial(serve: Factory, loop: str) -> None:
    """The client sees that the rest of the answer is missing."""
    server = serve(APP, interface="asgi", loop=loop)
    client, _ = run(server, "receive", *denial(401, b"who", b"?")[:2])
    with client, pytest.raises((AssertionError, ConnectionResetError)):
        client.recv_response()
    server.wait_log("returned without completing its response")


def test_raises_before_an_answer(serve: Factory, loop: str) -> None:
    server = serve(APP, interface="asgi", loop=loop)
    server.expect_tracebacks()
    client, _ = run(server, "receive", "raise")
    with client:
        assert client.recv_response().status == 500
    server.wait_log(r'Exception in ASGI application: .*"GET /\?')
    server.wait_log("RuntimeError: on purpose")


def test_returns_without_closing(server: Server) -> None:
    """The closing handshake goes on without it."""
    client, key = run(server, "receive", ACCEPT, SEND)
    with WebSocket(client) as ws:
        ws.opened()
        ws.expect(TEXT, "hi")
        ws.expect_close(1000)
        assert outcomes(server, key) == [CONNECT, None, None]
        ws.text("nobody hears it")
        ws.close()
        assert ws.at_end()


def test_raises_when_open(serve: Factory, loop: str) -> None:
    server = serve(APP, interface="asgi", loop=loop)
    server.expect_tracebacks()
    client, _ = run(server, "receive", ACCEPT, "raise")
    with WebSocket(client) as ws:
        ws.opened()
        ws.expect_close(1011)
        ws.close(1011)
        assert ws.at_end()
    server.wait_log("RuntimeError: on purpose")


def test_raises_when_only_the_request_line_is_left(serve: Factory, loop: str) -> None:
    server = serve(APP, interface="asgi", loop=loop)
    server.expect_tracebacks()
    with opened(server, "/raise_later?which") as ws:
        ws.text("now")
        ws.expect_close(1011)
        ws.close(1011)
        assert ws.at_end()
    server.wait_log(r'Exception in ASGI application: .*"GET /raise_later\?which')


# --- closing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "gone"), (3000, "ä" * 60), (4999, ""), (None, "")]
)
def test_client_closes(server: Server, code: int | None, reason: str) -> None:
    """RFC 6455, 5.5.1: the code is echoed; ASGI: 1005 where there was none."""
    client, key = run(server, "receive", ACCEPT, "all", "receive", SEND, CLOSING)
    with WebSocket(client) as ws:
        ws.opened()
        ws.raw.send(frame(TEXT, "last") + close_frame(code, reason) + frame(TEXT, "too late"))
        ws.expect_close(code, reason)
        assert ws.at_end()
    seen = outcomes(server, key)
    end = disconnect(code or 1005, reason)
    assert seen[2] == [{"type": "websocket.receive", "text": "last"}, end]
    assert seen[3] == end
    check_raised(seen[4], "OSError")
    check_raised(seen[5], "OSError")


def test_application_closes(server: Server) -> None:
    client, key = run(
        server,
        "receive",
        ACCEPT,
        {**CLOSING, "code": 3001, "reason": "näh"},
        "receive",
        SEND,
        CLOSING,
    )
    with WebSocket(client) as ws:
        ws.opened()
        ws.expect_close(3001, "näh")
        ws.text("on its way")
        ws.send(PING, b"on its way")
        ws.close(3001)
        assert ws.at_end()
    seen = outcomes(server, key)
    assert seen[:4] == [CONNECT, None, None, disconnect(3001, "näh")]
    check_raised(seen[4], "RuntimeError", "websocket.send", "closed")
    check_raised(seen[5], "RuntimeError", "websocket.close", "closed")


def test_client_vanishes(server: Server) -> None:
    client, key = run(server, "receive", ACCEPT, "receive", SEND)
    with WebSocket(client) as ws:
        ws.opened()
    seen = outcomes(server, key)
    assert seen[2] == disconnect(1006)
    check_raised(seen[3], "OSError")


def test_client_is_reset(server: Server) -> None:
    client, key = run(server, "receive", ACCEPT, "receive", SEND)
    WebSocket(client).opened()
    client.reset()
    seen = outcomes(server, key)
    assert seen[2] == disconnect(1006)
    check_raised(seen[3], "OSError")


@pytest.mark.parametrize("end", ["shutdown", "reset"])
def test_client_leaves_before_the_answer(server: Server, end: str) -> None:
    client, key = run(server, "receive", "receive", ACCEPT)
    server.get("/x")  # It has been read by now.
    getattr(client, end)()
    seen = outcomes(server, key)
    assert seen[:2] == [CONNECT, disconnect(1006)]
    check_raised(seen[2], "OSError")
    client.close()


def test_close_timeout(shared: Factory, loop: str) -> None:
    """A client that does not answer a close frame is left."""
    server = shared(
        APP, "--ws-close-timeout", "0.3", "--timeout-linger", "0.3", interface="asgi", loop=loop
    )
    client, _ = run(server, "receive", ACCEPT, CLOSING)
    with WebSocket(client) as ws:
        ws.opened()
        ws.expect_close(1000)
        before = time.monotonic()
        assert ws.at_end()
        assert time.monotonic() - before < 5 * SLOWNESS


# --- frames ------------------------------------------------------------------------------------------------


BAD_FRAMES: list[tuple[str, int, bytes]] = [
    ("not masked", 1002, frame(TEXT, "x", masked=False)),
    ("reserved opcode", 1002, frame(3, b"")),
    ("reserved control opcode", 1002, frame(11, b"")),
    ("reserved bit", 1002, frame(TEXT, "x", rsv=2)),
    ("compressed, not negotiated", 1002, frame(TEXT, "x", rsv=4)),
    ("long ping", 1002, frame(PING, b"x" * 126)),
    ("ping in fragments", 1002, frame(PING, b"x", fin=False)),
    ("continuation of nothing", 1002, frame(CONTINUATION, b"x")),
    ("new message inside of one", 1002, frame(TEXT, "x", fin=False) + frame(TEXT, "y")),
    ("close of one byte", 1002, frame(CLOSE, b"\x03")),
    ("close with a code that is none", 1002, close_frame(1005)),
    ("close with a reason that is no UTF-8", 1007, frame(CLOSE, b"\x03\xe8\xff")),
    ("text that is no UTF-8", 1007, frame(TEXT, b"\xff")),
    ("text that ends within a character", 1007, frame(TEXT, b"\xc3")),
    ("too large", 1009, frame(BINARY, b"", length=(16 << 20) + 1)),
]


@pytest.mark.parametrize(
    ("code", "raw"), [row[1:] for row in BAD_FRAMES], ids=[r[0] for r in BAD_FRAMES]
)
def test_bad_frame(server: Server, code: int, raw: bytes) -> None:
    client, key = run(server, "receive", ACCEPT, "all", SEND)
    with WebSocket(client) as ws:
        ws.opened()
        ws.raw.send(frame(TEXT, "good") + raw)
        got = ws.recv()
        assert got.opcode == CLOSE
        assert got.code == code
        assert ws.at_end()
    seen = outcomes(server, key)
    assert seen[2] == [
        {"type": "websocket.receive", "text": "good"},
        disconnect(code, got.reason),
    ]
    check_raised(seen[3], "OSError")
    server.wait_log("connection cut: .*WebSocket")


def test_what_came_before_a_bad_frame_is_answered(server: Server) -> None:
    with opened(server) as ws:
        ws.raw.send(frame(TEXT, "one") + frame(TEXT, "two") + frame(3, b"") + frame(TEXT, "three"))
        assert ws.texts(2) == ["one", "two"]
        assert ws.recv().code == 1002
        assert ws.at_end()


def test_a_bad_frame_behind_messages_that_nobody_takes(shared: Factory, loop: str) -> None:
    server = shared(APP, "--ws-close-timeout", "0.5", interface="asgi", loop=loop)
    client, key = run(server, "receive", ACCEPT, "wait taken", "all")
    with WebSocket(client) as ws:
        ws.opened()
        ws.raw.send(frame(TEXT, "good") + frame(3, b""))
        assert ws.recv().code == 1002
        assert ws.at_end()
        server.get("/go?taken")
    seen = outcomes(server, key)[3]
    assert [message.get("text") for message in seen[:1]] == ["good"]
    assert seen[1]["code"] == 1002


def test_max_size(shared: Factory, loop: str) -> None:
    server = shared(APP, "--ws-max-size", "1000", interface="asgi", loop=loop)
    with opened(server) as ws:
        ws.send(BINARY, b"x" * 1000)
        ws.expect(BINARY, b"x" * 1000)
        ws.raw.send(frame(BINARY, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401))
        assert ws.recv().code == 1009


def test_fragments_with_pings_between(server: Server) -> None:
    with opened(server) as ws:
        ws.raw.send(
            frame(TEXT, "grüße".encode()[:3], fin=False)
            + frame(PING, b"1")
            + frame(CONTINUATION, "grüße".encode()[3:], fin=False)
            + frame(PING, b"2")
            + frame(CONTINUATION, b"")
        )
        ws.expect(PONG, b"1")
        ws.expect(PONG, b"2")
        ws.expect(TEXT, "grüße")


def test_ping_while_the_application_is_busy(server: Server) -> None:
    """Also with messages in front of it that nobody has taken."""
    client, key = run(server, "receive", ACCEPT, "wait ping", "receive", "echo")
    with WebSocket(client) as ws:
        ws.opened()
        ws.raw.send(frame(TEXT, "x") * 31 + frame(PING, b"here?") + frame(PONG, b"unasked"))
        ws.expect(PONG, b"here?")
        server.get("/go?ping")
        assert ws.texts(30) == ["x"] * 30
        ws.close()
        ws.expect_close(1000)
    assert outcomes(server, key)[-1] == disconnect(1000)


def test_close_behind_messages_that_wait(server: Server) -> None:
    client, key = run(server, "receive", ACCEPT, "wait close", "all")
    with WebSocket(client) as ws:
        ws.opened()
        ws.raw.send(frame(TEXT, "x") * 20 + close_frame(4000, "done"))
        ws.expect_close(4000, "done")
        assert ws.at_end()
        server.get("/go?close")
    seen = outcomes(server, key)[3]
    assert len(seen) == 21
    assert seen[-1] == disconnect(4000, "done")


# --- pings -------------------------------------------------------------------------------------------------


def test_ping_interval(shared: Factory, loop: str) -> None:
    server = shared(
        APP, "--ws-ping-interval", "0.3", "--ws-ping-timeout", "30", interface="asgi", loop=loop
    )
    with opened(server) as ws:
        for _ in range(2):
            ping = ws.recv()
            assert ping.opcode == PING
            ws.send(PONG, ping.payload)
        ws.text("still here")
        got = ws.recv()
        while got.opcode == PING:
            got = ws.recv()
        assert got == Frame(TEXT, b"still here")


def test_ping_timeout(shared: Factory, loop: str) -> None:
    """A pong of another payload is none."""
    server = shared(
        APP, "--ws-ping-interval", "0.2", "--ws-ping-timeout", "0.3", interface="asgi", loop=loop
    )
    client, key = run(server, "receive", ACCEPT, "receive")
    with WebSocket(client) as ws:
        ws.opened()
        assert ws.recv().opcode == PING
        ws.send(PONG, b"other")
        ws.expect_close(1011, "keepalive ping timeout")
        assert ws.at_end()
    assert outcomes(server, key)[2] == disconnect(1011, "keepalive ping timeout")


def test_no_pings(shared: Factory, loop: str) -> None:
    server = shared(APP, "--ws-ping-interval", "0", interface="asgi", loop=loop)
    with opened(server) as ws:
        assert not select.select([ws.raw.socket], [], [], 0.6)[0]


# --- flow --------------------------------------------------------------------------------------------------


def fill(client: RawClient, data: bytes, limit: int) -> int:
    """Sends until the server takes no more for a while; how many times."""
    client.socket.settimeout(1.0 * SLOWNESS)
    for n in range(limit):
        try:
            client.socket.sendall(data)
        except TimeoutError:
            return n
    return limit


def test_max_queue(shared: Factory, loop: str) -> None:
    """An application that takes nothing stops the reading; what waits is all there when it does."""
    server = shared(APP, "--ws-max-queue", "2", interface="asgi", loop=loop)
    client, key = run(server, "receive", ACCEPT, "wait queue", "all")
    with WebSocket(client) as ws:
        ws.opened()
        before = server.rss()
        data = frame(BINARY, b"x" * 50_000)
        n = fill(ws.raw, data, 2000)
        assert n < 1000, "everything was taken"
        assert server.rss() - before < 5_000_000
        server.get("/go?queue")
        # The rest of the frame that was cut off within.
        ws.raw.socket.settimeout(10 * SLOWNESS)
    seen = outcomes(server, key)[3]
    assert len(seen) == n + 1
    assert {len(message["bytes"]) for message in seen[:-1]} == {50_000}


def deflated(payload: bytes) -> bytes:
    """A message of permessage-deflate (RFC 7692, 7.2.1)."""
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = made.compress(payload) + made.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, data[:-4], rsv=4, mask=b"\0\0\0\0")


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"


@pytest.mark.memory
@pytest.mark.parametrize("size", [100_000, 2_000_000])
def test_bytes_that_wait(serve: Factory, loop: str, size: int) -> None:
    """What waits is bounded by the largest message, though a single read brings a hundred times that;
    all of it is there when the application takes it, and what lies behind is answered then."""
    server = serve(APP, "--ws-max-size", "2000000", interface="asgi", loop=loop)
    key, target = script("receive", ACCEPT, "wait bytes", "all")
    n = 4 * 40_000_000 // size
    with websocket(server) as ws:
        ws.open(target, DEFLATE)
        ws.raw.send(deflated(b"x" * 1000))  # what any message costs is there
        before = server.rss()
        ws.raw.send(deflated(b"x" * size) * n + frame(PING, b"end"))
        ws.raw.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            ws.recv()
        # Two of the largest, and what inflates them.
        assert server.rss() - before < 6 * 2_000_000
        server.get("/go?bytes")
        ws.raw.socket.settimeout(10 * SLOWNESS)
        ws.expect(PONG, b"end")
        ws.close()
        ws.expect_close(1000)
    seen = outcomes(server, key)[3]
    assert len(seen) == n + 2
    assert {len(message["text"]) for message in seen[1:-1]} == {size}


def test_slow_reader(shared: Factory, loop: str) -> None:
    """send() waits while the client takes nothing; memory does not grow."""
    server = shared(APP, interface="asgi", loop=loop)
    key = next(keys)
    with websocket(server) as ws:
        ws.open(f"/flood?{key}")
        stalled, before = -1, -2
        while stalled != before:
            before = stalled
            time.sleep(0.3 * SLOWNESS)
            stalled = int(server.get(f"/flooded?{key}"))
        assert stalled * 10_000 < 20_000_000
        for _ in range(stalled + 50):
            assert len(ws.recv().payload) == 10_000
    assert outcomes(server, key) >= stalled + 50  # type: ignore[operator]


def test_a_client_that_pings_and_reads_nothing(shared: Factory, loop: str) -> None:
    server = shared(APP, interface="asgi", loop=loop)
    with opened(server) as ws:
        before = server.rss()
        pings = frame(PING, b"x" * 125) * 400
        n = fill(ws.raw, pings, 4000)
        assert n < 4000, "everything was taken"
        assert server.rss() - before < 10_000_000
        for _ in range(400 * n):
            ws.expect(PONG, b"x" * 125)


def segments(ws: WebSocket, n: int) -> list[int]:
    """The bytes of each read until n are there; the server's writes, where they come apart."""
    sizes: list[int] = []
    while sum(sizes) < n:
        sizes.append(len(ws.raw.socket.recv(65536)))
    return sizes


@pytest.mark.parametrize("path", ["/echo", "/children"])
def test_answers_to_one_read(server: Server, path: str) -> None:
    with opened(server, path) as ws:
        ws.raw.send(b"".join(frame(TEXT, str(n)) for n in range(30)))
        assert ws.texts(30) == [str(n) for n in range(30)]


def test_answers_to_one_read_leave_together(serve: Factory, loop: str) -> None:
    server = serve(APP, interface="asgi", loop=loop)
    run_first(server.pid)
    with opened(server) as ws:
        sizes = []
        for _ in range(20):
            ws.raw.send(frame(TEXT, "x" * 98) * 20)
            sizes.append(segments(ws, 2000))
        # A read can be cut by the kernel, or the millisecond be over; not most of the time.
        assert sum(one == [2000] for one in sizes) > 10, sizes


# --- the server's end --------------------------------------------------------------------------------------


def test_stopping(serve: Factory, loop: str) -> None:
    """1012 after timeout_disconnect; then the client's close ends it."""
    server = serve(APP, "--timeout-disconnect", "0.2", interface="asgi", loop=loop)
    key, target = script("receive", ACCEPT, "receive", SEND)
    ws = opened(server, target)
    idle = opened(server)
    server.signal(signal.SIGTERM)
    for one in (ws, idle):
        one.expect_close(1012)
    ws.close(1012)
    idle.close(1012)
    assert ws.at_end()
    assert idle.at_end()
    assert server.wait() == 0
    assert "Cut requests" not in server.log()


def test_stopping_and_a_client_that_does_not_answer(serve: Factory, loop: str) -> None:
    server = serve(
        APP, "--timeout-disconnect", "0", "--ws-close-timeout", "0.3", "--timeout-linger", "0.2",
        interface="asgi", loop=loop,
    )  # fmt: skip
    ws = opened(server)
    server.signal(signal.SIGTERM)
    ws.expect_close(1012)
    assert ws.at_end()
    assert server.wait() == 0


def test_stopping_cuts_at_the_end_of_the_grace(serve: Factory, loop: str) -> None:
    def attempt() -> bool:
        server = serve(
            APP, "--timeout-disconnect", "0", "--timeout-graceful-shutdown", "0.5",
            interface="asgi", loop=loop,
        )  # fmt: skip
        ws, told = opened(server), False
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            ws.expect_close(1012)
            told = True  # else half a second was over before it came to that
            ws.raw.recv_all()
        assert server.wait() == 0
        server.wait_log("Cut requests .*: 1")
        return told

    in_time(attempt)


def test_stopping_before_the_answer(serve: Factory, loop: str) -> None:
    server = serve(APP, "--timeout-disconnect", "0.2", interface="asgi", loop=loop)
    client, _ = run(server, "receive", "receive", ACCEPT)
    server.get("/x")  # It has been read by now.
    server.signal(signal.SIGTERM)
    with client:
        response = client.recv_response()
        assert (response.status, response.closes) == (503, True)
    assert server.wait() == 0


def test_stopping_is_seen_by_the_application(serve: Factory, loop: str) -> None:
    server = serve(APP, "--timeout-disconnect", "0", interface="asgi", loop=loop)
    ws = opened(server, "/stopping")
    server.signal(signal.SIGTERM)
    ws.expect_close(1012)
    ws.close()
    assert server.wait() == 0
    assert "{'type': 'websocket.disconnect', 'code': 1012, 'reason': ''}" in server.log()
    assert "ClientDisconnected" in server.log()


def test_a_worker_retires(serve: Factory) -> None:
    """SIGHUP: its WebSockets are told to come again, and find its successor."""
    server = serve(APP, "--workers", "2", "--timeout-disconnect", "0.2", interface="asgi")
    server.wait_log("Worker 2 is ready")
    old = children(server.pid)
    with opened(server) as before:
        server.signal(signal.SIGHUP)
        before.expect_close(1012)
        before.close(1012)
        assert before.at_end()
    await_end(*old)  # until then, one of them may accept
    with opened(server) as after:
        after.text("again")
        after.expect(TEXT, "again")


def test_a_recycled_worker(serve: Factory) -> None:
    """limit_max_requests counts a WebSocket as one."""
    server = serve(
        APP, "--limit-max-requests", "1", "--timeout-disconnect", "0.2", interface="asgi"
    )
    with websocket(server) as before:
        before.raw.send(handshake("/echo").encode() + frame(TEXT, "hello"))
        before.opened()
        before.expect(TEXT, "hello")
        before.expect_close(1012)


# --- limits and the log ------------------------------------------------------------------------------------


def test_an_open_one_counts_as_a_request(shared: Factory, loop: str) -> None:
    server = shared(APP, "--limit-concurrency", "1", interface="asgi", loop=loop)
    with opened(server) as ws, server.raw() as client:
        client.get("/x")
        assert client.recv_response().status == 503
        ws.close()
        ws.expect_close(1000)
        assert ws.at_end()
    with server.raw() as client:
        client.get("/x")
        assert client.recv_response().status == 200


def test_access_log(server: Server) -> None:
    with opened(server, "/echo?logged"):
        server.wait_log(r'"GET /echo\?logged HTTP/1\.1" 101 Switching Protocols')


DEFLATED = re.compile(rb"permessage-deflate")


def test_per_message_deflate(shared: Factory, loop: str) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate"
    server = shared(APP, interface="asgi", loop=loop)
    with websocket(server) as ws:
        assert DEFLATED.match(ws.open("/echo", offer).get("sec-websocket-extensions") or b"")
        ws.text("x" * 1000)
        got = ws.recv()
        assert (got.opcode, got.first & 0x40) == (TEXT, 0x40)
        assert len(got.payload) < 100
    with websocket(server) as ws:
        assert ws.open("/echo").get("sec-websocket-extensions") is None
    server = shared(APP, "--no-ws-per-message-deflate", interface="asgi", loop=loop)
    with websocket(server) as ws:
        assert ws.open("/echo", offer).get("sec-websocket-extensions") is None
        ws.raw.send(frame(TEXT, "x", rsv=4))
        assert ws.recv().code == 1002


def test_trace(serve: Factory) -> None:
    """Messages by their size."""
    server = serve(APP, "--log-level", "trace", interface="asgi")
    with opened(server) as ws:
        ws.text("secret")
        ws.expect(TEXT, "secret")
        ws.send(BINARY, b"secret")
        ws.expect(BINARY, b"secret")
    log = server.wait_log(r"\[\d+\] send .*'bytes': '<6 bytes>'").string
    assert re.search(r"receive \{'type': 'websocket.receive', 'text': '<6 characters>'\}", log)
    assert "secret" not in log
