"""ASGI 3: HTTP 2.5 and lifespan 2.0, on both loops."""

from __future__ import annotations

import itertools
import json
import re
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps.checks_asgi import CHECKS
from support.client import SLOWNESS, RawClient, Response
from support.server import Server

Factory = Callable[..., Server]

START: dict[str, Any] = {"type": "http.response.start", "status": 200}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}


# --- what an application sees ------------------------------------------------------------------------------


def check_request(name: str) -> bytes:
    wanted = CHECKS[name]
    fields = [field for field in wanted.fields if field != "no-host"]
    if "no-host" not in wanted.fields:
        fields.insert(0, "Host: test")
    if wanted.body is not None:
        fields.append(f"Content-Length: {len(wanted.body)}")
    if wanted.version == "1.0":
        # The connection closes behind it; the check is asked for once.
        assert wanted.times == 1
    head = "\r\n".join([f"{wanted.method} /{name}{wanted.query} HTTP/{wanted.version}", *fields])
    return head.encode() + b"\r\n\r\n" + (wanted.body or b"")


def run_check(server: Server, name: str) -> None:
    with server.raw() as client:
        client.send(check_request(name) * CHECKS[name].times)
        for _ in range(CHECKS[name].times):
            response = client.recv_response()
            assert response.status == 200, response.text


@pytest.mark.parametrize("name", CHECKS)
def test_check(shared: Factory, loop: str, name: str) -> None:
    run_check(shared("checks_asgi:app", interface="asgi", loop=loop), name)


@pytest.mark.parametrize("name", CHECKS)
def test_check_in_debug_mode(shared: Factory, loop: str, name: str) -> None:
    """asyncio's debug mode looks at which thread and which context calls what, and when."""
    server = shared("checks_asgi:app", interface="asgi", loop=loop, python=("-X", "dev"))
    run_check(server, name)


@pytest.mark.parametrize("name", [name for name in CHECKS if CHECKS[name].version == "1.1"])
def test_check_behind_a_running_request(shared: Factory, loop: str, name: str) -> None:
    """Pipelined: the request begins when the loop resumes the connection, not in its read."""
    server = shared("checks_asgi:app", interface="asgi", loop=loop)
    with server.raw() as client:
        client.send(check_request("task_is_real") + check_request(name) * CHECKS[name].times)
        for _ in range(1 + CHECKS[name].times):
            response = client.recv_response()
            assert response.status == 200, response.text


DIFFERENT: tuple[tuple[str, ...], ...] = (
    ("User-Agent: agent-1", "Accept: text/html", "Cookie: a=1"),
    ("User-Agent: agent-2", "Accept: text/html", "Cookie: a=2"),
    ("User-Agent: agent-2", "Accept: text/htmk"),
    ("user-agent: agent-2", "Accept: text/html", "Accept: text/htm"),
    ("Accept: text/html", "User-Agent: agent-2 "),
    (),
    ("Accept: " + "a" * 600, "User-Agent: agent-1"),
    ("Accept: " + "a" * 599 + "b", "User-Agent: "),
)


def test_requests_that_differ_a_little(shared: Factory, loop: str) -> None:
    """Values of before are used again only where they are the same, byte for byte."""
    server = shared("headers_asgi:app", interface="asgi", loop=loop)
    orders = [*DIFFERENT, *DIFFERENT[::-1], *DIFFERENT[::2], *DIFFERENT]
    with server.raw() as client:
        for number, fields in enumerate(orders):
            client.get(f"/{number % 2}?q={number % 3}", *fields)
            response = client.recv_response()
            head = json.loads(response.body)
            pairs = [field.split(":", 1) for field in fields]
            assert head["headers"] == [
                ["host", "test"],
                *([name.lower(), value.strip()] for name, value in pairs),
            ]
            assert (head["path"], head["query"]) == (f"/{number % 2}", f"q={number % 3}")


def fetch_json(client: RawClient, target: str, *fields: str) -> Any:
    client.get(target, *fields)
    response = client.recv_response()
    assert response.status == 200, response.text
    return json.loads(response.body)


def test_kept_headers_stay_those_of_their_request(serve: Factory, loop: str) -> None:
    """Nobody has read them when the request ends, and others come in the same memory."""
    server = serve("headers_asgi:app", interface="asgi", loop=loop)
    expected = []
    with server.raw() as client, server.raw() as other:
        for number, target in enumerate(("/keep", "/keep_while_waiting", "/keep_and_wait") * 3):
            fetch_json(client, target, f"X-Kept: {number}", "Accept: text/html")
            expected.append([["host", "test"], ["x-kept", str(number)], ["accept", "text/html"]])
            for next_one in (client, other):
                fetch_json(next_one, "/0", "X-Next: " + "a" * 50, f"Accept: {number}")
        assert fetch_json(other, "/kept", "Z: z") == expected
        assert fetch_json(client, "/kept") == expected


@pytest.mark.parametrize("target", ["/end", "/read_and_end"])
def test_headers_that_nobody_keeps_are_emptied(serve: Factory, loop: str, target: str) -> None:
    """What a client sent is not in memory until the next one comes."""
    server = serve("headers_asgi:app", interface="asgi", loop=loop)
    with server.raw() as client:
        for _ in range(3):
            server.mark()
            fetch_json(client, target, "Cookie: secret")
            server.wait_log(r"lengths: \[.*\]")
            assert "lengths: [0]" in server.log()
            fetch_json(client, "/keep")


def test_connections_take_turns(shared: Factory, loop: str) -> None:
    """Each request is told its own client, and its own version."""
    server = shared("headers_asgi:app", interface="asgi", loop=loop)
    with server.raw() as first, server.raw() as second:
        for _ in range(3):
            for client in (first, second, second):
                client.get("/")
                head = json.loads(client.recv_response().body)
                assert head["client"] == list(client.socket.getsockname()[:2])
                assert (head["version"], head["extensions"]) == ("1.1", 3)
            with server.raw() as old:
                old.send(b"GET / HTTP/1.0\r\n\r\n")
                head = json.loads(old.recv_response().body)
                assert (head["version"], head["extensions"]) == ("1.0", 1)
                assert head["headers"] == []


def test_client_and_server_of_tcp(shared: Factory, loop: str) -> None:
    server = shared("scope_asgi:app", interface="asgi", loop=loop)
    with server.raw() as client:
        client.get("/")
        scope = client.recv_response().text
        port = client.socket.getsockname()[1]
    assert f"'client': ('127.0.0.1', {port})" in scope
    assert f"'server': ('127.0.0.1', {server.port})" in scope


def test_client_and_server_of_ipv6(serve: Factory, loop: str) -> None:
    server = serve("scope_asgi:app", interface="asgi", loop=loop, bind="::1")
    with server.raw() as client:
        client.get("/")
        scope = client.recv_response().text
        port = client.socket.getsockname()[1]
    assert f"'client': ('::1', {port})" in scope
    assert f"'server': ('::1', {server.port})" in scope


def test_client_and_server_of_a_unix_socket(serve: Factory, loop: str, tmp_path: Path) -> None:
    server = serve("scope_asgi:app", interface="asgi", loop=loop, uds=tmp_path / "s")
    with server.raw() as client:
        client.get("/")
        scope = client.recv_response().text
    assert "'client': None" in scope
    assert f"'server': ('{tmp_path / 's'}', None)" in scope


def test_no_state_without_lifespan(shared: Factory, loop: str) -> None:
    server = shared("scope_asgi:app", "--lifespan", "off", interface="asgi", loop=loop)
    with server.raw() as client:
        client.get("/")
        assert "'state'" not in client.recv_response().text


def test_root_path(shared: Factory, loop: str) -> None:
    """ASGI 3: path includes root_path; the proxy in front has removed it."""
    server = shared("scope_asgi:app", "--root-path", "/api", interface="asgi", loop=loop)
    with server.raw() as client:
        client.get("/x%20y?z")
        scope = client.recv_response().text
    assert "'root_path': '/api'" in scope
    assert "'path': '/api/x y'" in scope
    assert "'raw_path': b'/api/x%20y'" in scope
    assert "'query_string': b'z'" in scope


# --- what an application sends -----------------------------------------------------------------------------


@pytest.fixture
def messages(shared: Factory, loop: str) -> Server:
    return shared("messages_asgi:app", interface="asgi", loop=loop)


keys = itertools.count()


def post_messages(client: RawClient, todo: list[Any], *fields: str) -> int:
    """Lets the application send these; the key for ``outcomes``."""
    key = next(keys)
    client.post(f"/?{key}", repr(todo).encode(), *fields)
    return key


def post_messages_1_0(client: RawClient, todo: list[Any]) -> int:
    key, body = next(keys), repr(todo).encode()
    client.send(b"POST /?%d HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (key, len(body), body))
    return key


def outcomes(server: Server, key: int) -> list[Any]:
    """What came of each message, once the application is through with them."""
    with server.raw() as client:
        client.get(f"/outcomes?{key}")
        seen: list[Any] = json.loads(client.recv_response().body)
        return seen


def attempt(server: Server, todo: list[Any], *fields: str) -> tuple[Response | None, list[Any]]:
    """The response (None: the connection was cut) and the outcome of each message."""
    with server.raw() as client:
        key = post_messages(client, todo, *fields)
        try:
            response = client.recv_response()
        except (AssertionError, ConnectionResetError):
            response = None
    return response, outcomes(server, key)


def check_refusal(outcome: Any, *words: str) -> None:
    assert outcome is not None, "it was taken"
    kinds, text = outcome
    assert {"TypeError", "ValueError", "KeyError", "RuntimeError"} & set(kinds), kinds
    assert "OSError" not in kinds
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


BAD_STARTS: list[tuple[str, dict[str, Any]]] = [
    ("status", {"type": "http.response.start"}),
    ("status", {"type": "http.response.start", "status": "200"}),
    ("status", {"type": "http.response.start", "status": None}),
    ("status", {"type": "http.response.start", "status": 200.0}),
    ("status", {"type": "http.response.start", "status": 99}),
    ("status", {"type": "http.response.start", "status": 100}),
    ("status", {"type": "http.response.start", "status": 101}),
    ("status", {"type": "http.response.start", "status": 1000}),
    ("status", {"type": "http.response.start", "status": -200}),
    ("status", {"type": "http.response.start", "status": 10**30}),
    ("headers", {**START, "headers": 5}),
    ("headers", {**START, "headers": [5]}),
    ("headers", {**START, "headers": [b"ab"]}),
    ("headers", {**START, "headers": [(b"name",)]}),
    ("headers", {**START, "headers": [(b"a", b"b", b"c")]}),
    ("headers", {**START, "headers": [("name", b"value")]}),
    ("headers", {**START, "headers": [(b"name", "value")]}),
    ("headers", {**START, "headers": [(b"name", None)]}),
    ("headers", {**START, "headers": [(b"name", 5)]}),
    ("headers", {**START, "headers": {b"a": b"b"}}),
    ("headers", {**START, "headers": [(b"", b"value")]}),
    ("headers", {**START, "headers": [(b"na me", b"value")]}),
    ("headers", {**START, "headers": [(b"name:", b"value")]}),
    ("headers", {**START, "headers": [(b"na\r\nme", b"value")]}),
    ("headers", {**START, "headers": [(b"na\x00me", b"value")]}),
    ("headers", {**START, "headers": [("n\u00e4me".encode(), b"value")]}),
    ("headers", {**START, "headers": [(b"name", b"val\r\nSet-Cookie: x=1")]}),
    ("headers", {**START, "headers": [(b"name", b"val\rue")]}),
    ("headers", {**START, "headers": [(b"name", b"val\nue")]}),
    ("headers", {**START, "headers": [(b"name", b"val\x00ue")]}),
    ("headers", {**START, "headers": [(b"location", b"/\r\n\r\n<script>")]}),
    ("headers", {**START, "headers": [(b"content-length", b"x")]}),
    ("headers", {**START, "headers": [(b"content-length", b"-1")]}),
    ("headers", {**START, "headers": [(b"content-length", b"")]}),
    ("headers", {**START, "headers": [(b"content-length", b"1, 1")]}),
    ("headers", {**START, "headers": [(b"content-length", b"+1")]}),
    ("headers", {**START, "headers": [(b"content-length", b"99999999999999999999999")]}),
    ("headers", {**START, "headers": [(b"content-length", b"1"), (b"content-length", b"2")]}),
]


@pytest.mark.parametrize(("key", "message"), BAD_STARTS)
def test_bad_start(messages: Server, key: str, message: dict[str, Any]) -> None:
    """uvicorn CVE-2020-7695 among others. The exception names message and key; the response can still be made."""
    response, (bad, start, body) = attempt(messages, [message, START, BODY])
    check_refusal(bad, "http.response.start", key)
    assert (start, body) == (None, None)
    assert response is not None
    assert (response.status, response.body) == (200, b"ok")
    assert [
        name for name, _ in response.fields if name not in (b"date", b"server", b"content-length")
    ] in (
        [],
        [b"transfer-encoding"],
    )


BAD_BODIES: list[tuple[str, dict[str, Any]]] = [
    ("body", {"type": "http.response.body", "body": "text"}),
    ("body", {"type": "http.response.body", "body": None}),
    ("body", {"type": "http.response.body", "body": 5}),
    ("body", {"type": "http.response.body", "body": [b"x"]}),
]


@pytest.mark.parametrize(("key", "message"), BAD_BODIES)
def test_bad_body(messages: Server, key: str, message: dict[str, Any]) -> None:
    response, (start, bad, body) = attempt(messages, [START, message, BODY])
    check_refusal(bad, "http.response.body", key)
    assert (start, body) == (None, None)
    assert response is not None
    assert response.body == b"ok"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({}, ["type"]),
        ({"type": None}, ["type"]),
        ({"type": 5}, ["type"]),
        ({"type": b"http.response.start", "status": 200}, ["type"]),
        ({"type": ""}, ["http.response.start"]),
        ({"type": "http.response.stat", "status": 200}, ["http.response.stat"]),
        ({"type": "websocket.accept"}, ["websocket.accept"]),
        ({"type": "http.request"}, ["http.request"]),
        (
            {"type": "http.response.body", "body": b"x"},
            ["http.response.body", "http.response.start"],
        ),
        ({"type": "http.response.trailers", "headers": []}, ["http.response.trailers"]),
        ({"type": "http.response.pathsend", "path": "/etc/hostname"}, ["http.response.pathsend"]),
    ],
)
def test_bad_first_message(messages: Server, message: dict[str, Any], words: list[str]) -> None:
    response, (bad, _, _) = attempt(messages, [message, START, BODY])
    check_refusal(bad, *words)
    assert response is not None
    assert response.body == b"ok"


def test_start_twice(messages: Server) -> None:
    response, (_, bad, _) = attempt(messages, [START, {**START, "status": 500}, BODY])
    check_refusal(bad, "http.response.start", "http.response.body")
    assert response is not None
    assert response.status == 200


@pytest.mark.parametrize(
    "late",
    [
        START,
        BODY,
        {"type": "http.response.trailers"},
        {"type": "http.response.early_hint", "links": []},
    ],
)
def test_after_the_end(messages: Server, late: dict[str, Any]) -> None:
    response, (_, _, bad) = attempt(messages, [START, BODY, late])
    check_refusal(bad, late["type"])
    assert response is not None
    assert response.body == b"ok"


def test_more_body_than_said(messages: Server) -> None:
    """What is too much does not get out; what fits may still be sent."""
    start = {**START, "headers": [(b"content-length", b"3")]}
    todo = [start, {**BODY, "body": b"four"}, {**BODY, "body": b"two"}]
    response, (_, bad, good) = attempt(messages, todo)
    check_refusal(bad, "http.response.body")
    assert good is None
    assert response is not None
    assert response.body == b"two"


def test_less_body_than_said(messages: Server) -> None:
    messages.expect_tracebacks()
    start = {**START, "headers": [(b"content-length", b"3")]}
    response, (_, bad) = attempt(messages, [start, BODY])
    check_refusal(bad, "http.response.body")
    assert response is None or response.status == 500


def test_hop_by_hop_fields_are_not_the_applications(messages: Server) -> None:
    """Framing is the server's: an application's Transfer-Encoding or Keep-Alive does not get out twice."""
    fields = [(b"transfer-encoding", b"chunked"), (b"keep-alive", b"timeout=5"), (b"x-a", b"b")]
    with messages.raw() as client:
        for _ in range(2):
            post_messages(client, [{**START, "headers": fields}, BODY])
            response = client.recv_response()
            assert response.body == b"ok"
            assert response.get("x-a") == b"b"
            assert response.get("keep-alive") is None


def test_header_names_are_sent_as_they_are_and_in_order(messages: Server) -> None:
    fields = [
        (b"X-Zed", b"1"),
        (b"set-cookie", b"a=1"),
        (b"x-a", b""),
        (b"set-cookie", b"b=2"),
        (b"x-b", b"\xff\t!"),
    ]
    response, _ = attempt(messages, [{**START, "headers": fields}, BODY])
    assert response is not None
    got = [pair for pair in response.fields if pair[0] in (b"x-zed", b"set-cookie", b"x-a", b"x-b")]
    assert got == [(name.lower(), value) for name, value in fields]


def test_answers_that_differ_a_little(messages: Server) -> None:
    """Field lines of earlier answers are used again only where they are the same, byte for byte."""
    date = b"Thu, 01 Jan 1970 00:00:00 GMT"
    answers = [
        [(b"content-type", b"text/plain"), (b"x-a", b"1")],
        [(b"content-type", b"text/plait"), (b"x-a", b"2")],
        [(b"content-type", b"tezt/plain"), (b"x-a", b"1")],
        [(b"content-tipe", b"text/plain"), (b"x-b", b"1")],
        [(b"content-typ", b"etext/plain"), (b"x-a", b"1")],
        [(b"content-type", b"text/plain"), (b"y-a", b"1"), (b"y-a", b"1")],
        [(b"date", date), (b"date", date)],
        [(b"date", date)],
        [(b"server", b"s"), (b"server", b"s")],
        [(b"server", b"s")],
        [(b"connection", b"x-none"), (b"x-a", b"1")],
        [(b"set-cookie", b"a=1")],
        [(b"set-cookie", b"a=2")],
    ]
    with messages.raw() as client:
        for fields in [*answers, *answers[::-1]]:
            post_messages(client, [{**START, "headers": fields}, BODY])
            response = client.recv_response()
            assert response.body == b"ok"
            names = {name for name, _ in fields}
            others = [(n, v) for n, v in response.fields if n not in (b"content-length", *names)]
            wanted = [(n, v) for n, v in fields if n != b"connection"]
            assert [pair for pair in response.fields if pair[0] in names] == wanted
            assert {name for name, _ in others} == {b"date", b"server"} - names


@pytest.mark.parametrize("bad", [b"1\n", b"\x7f1", b"text/plain\r\nx: y", b"a" * 17 + b"\x00"])
def test_a_bad_value_behind_a_good_one(messages: Server, bad: bytes) -> None:
    good = {**START, "headers": [(b"x-a", bad.replace(b"\r", b".").replace(b"\n", b"."))]}
    for message in (good, good) if b"\x7f" not in bad and b"\x00" not in bad else ():
        response, _ = attempt(messages, [message, BODY])
        assert response is not None and response.status == 200
    response, (first, *_) = attempt(messages, [{**START, "headers": [(b"x-a", bad)]}, START, BODY])
    check_refusal(first, "http.response.start", "headers")


def test_padding_of_values(messages: Server) -> None:
    """White space at the ends of a value is refused or is not sent."""
    response, (first, _, _) = attempt(
        messages, [{**START, "headers": [(b"x-a", b" b ")]}, START, BODY]
    )
    if first is None:
        assert response is not None
        assert response.get("x-a") == b"b"
    else:
        check_refusal(first, "http.response.start", "headers")


def test_one_body_has_a_length(messages: Server) -> None:
    response, _ = attempt(messages, [START, BODY])
    assert response is not None
    assert (response.framing, response.body) == ("length", b"ok")


def test_several_bodies_are_chunked(messages: Server) -> None:
    response, _ = attempt(messages, [START, {**BODY, "more_body": True}, {**BODY, "body": b"!"}])
    assert response is not None
    assert (response.framing, response.body) == ("chunked", b"ok!")


def test_declared_length_is_kept(messages: Server) -> None:
    start = {**START, "headers": [(b"Content-Length", b"3")]}
    response, _ = attempt(messages, [start, {**BODY, "more_body": True}, {**BODY, "body": b"!"}])
    assert response is not None
    assert (response.framing, response.body) == ("length", b"ok!")


def test_parts_leave_when_they_are_sent(messages: Server) -> None:
    """Nothing is held back until the next part."""
    with messages.raw() as client:
        more = {**BODY, "more_body": True}
        post_messages(
            client, [START, more, {"type": "wait", "name": "parts"}, {"type": "http.response.body"}]
        )
        client.recv_head()
        assert client.recv_until(b"ok\r\n") == b"2\r\nok\r\n"
        with messages.raw() as other:
            other.get("/go?parts")
            other.recv_response()
        assert client.recv_until(b"0\r\n\r\n") == b"0\r\n\r\n"


# --- extensions --------------------------------------------------------------------------------------------


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    path = tmp_path / "big \u00e9.bin"
    path.write_bytes(bytes(range(256)) * 20_000)
    return path


def pathsend(path: Path | str) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(path)}


@pytest.mark.parametrize("length", [True, False])
def test_pathsend(messages: Server, big_file: Path, length: bool) -> None:
    size = big_file.stat().st_size
    fields = [(b"content-length", b"%d" % size)] if length else []
    with messages.raw() as client:
        for _ in range(3):
            key = post_messages(client, [{**START, "headers": fields}, pathsend(big_file)])
            response = client.recv_response()
            assert response.body == big_file.read_bytes()
            assert outcomes(messages, key) == [None, None]


def test_pathsend_pipelined_between_others(messages: Server, big_file: Path) -> None:
    todos: list[list[Any]] = [[START, BODY], [START, pathsend(big_file)], [START, BODY]]
    with messages.raw() as client:
        for todo in todos:
            post_messages(client, todo)
        assert client.recv_response().body == b"ok"
        assert client.recv_response().body == big_file.read_bytes()
        assert client.recv_response().body == b"ok"


def test_pathsend_of_an_empty_file(messages: Server, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    response, (_, second) = attempt(messages, [START, pathsend(path)])
    assert response is not None
    assert (response.body, second) == (b"", None)


def test_pathsend_over_1_0(messages: Server, big_file: Path) -> None:
    with messages.raw() as client:
        post_messages_1_0(client, [START, pathsend(big_file)])
        assert client.recv_response().body == big_file.read_bytes()


@pytest.mark.parametrize("path", ["/no/such/file", "/", "/dev/null"])
def test_pathsend_of_what_is_no_file(messages: Server, path: str) -> None:
    """The head has not left yet: the application may send something else."""
    response, (_, bad, body) = attempt(messages, [START, pathsend(path), BODY])
    assert bad is not None
    assert "OSError" in bad[0]
    assert path in bad[1]
    assert body is None
    assert response is not None
    assert response.body == b"ok"


@pytest.mark.parametrize(
    "message", [{"type": "http.response.pathsend"}, {"type": "http.response.pathsend", "path": 5}]
)
def test_bad_pathsend(messages: Server, message: dict[str, Any]) -> None:
    response, (_, bad, _) = attempt(messages, [START, message, BODY])
    check_refusal(bad, "path")
    assert response is not None
    assert response.body == b"ok"


def test_trailers(messages: Server) -> None:
    trailers = {
        "type": "http.response.trailers",
        "headers": [(b"x-sum", b"5")],
        "more_trailers": True,
    }
    last = {"type": "http.response.trailers", "headers": [(b"X-End", b"1")]}
    with messages.raw() as client:
        for _ in range(2):
            key = post_messages(
                client, [{**START, "trailers": True}, BODY, trailers, last], "TE: trailers"
            )
            response = client.recv_response()
            assert (response.framing, response.body) == ("chunked", b"ok")
            assert response.trailers == [(b"x-sum", b"5"), (b"x-end", b"1")]
            assert outcomes(messages, key) == [None] * 4


def test_trailers_that_were_not_announced(messages: Server) -> None:
    response, (_, _, bad) = attempt(
        messages, [START, BODY, {"type": "http.response.trailers", "headers": []}]
    )
    check_refusal(bad, "http.response.trailers")
    assert response is not None


def test_announced_trailers_that_do_not_come(messages: Server) -> None:
    """The response is not complete: the client must not take it for a whole one."""
    messages.expect_tracebacks()
    response, _ = attempt(messages, [{**START, "trailers": True}, BODY])
    assert response is None


@pytest.mark.parametrize(
    "pair", [(b"na me", b"v"), (b"name", b"a\r\nb"), (b"content-length", b"5")]
)
def test_bad_trailers(messages: Server, pair: tuple[bytes, bytes]) -> None:
    """RFC 9110, 6.5.1, for the last."""
    trailers = {"type": "http.response.trailers", "headers": [pair]}
    todo = [{**START, "trailers": True}, BODY, trailers, {"type": "http.response.trailers"}]
    response, (_, _, bad, _) = attempt(messages, todo)
    check_refusal(bad, "http.response.trailers", "headers")
    assert response is not None
    assert response.trailers == []


def test_early_hint(messages: Server) -> None:
    """103 before the answer, RFC 8297."""
    links = [b"</style.css>; rel=preload; as=style", b"</script.js>; rel=preload"]
    hint = {"type": "http.response.early_hint", "links": links}
    with messages.raw() as client:
        key = post_messages(client, [hint, {**hint, "links": [b"</x>"]}, START, BODY])
        first, second = client.recv_head(), client.recv_head()
        assert (first.status, second.status) == (103, 103)
        assert first.get_all("link") == links
        assert second.get_all("link") == [b"</x>"]
        assert client.recv_response().body == b"ok"
    assert outcomes(messages, key) == [None] * 4


@pytest.mark.parametrize("links", [[5], ["text"], 5, [b"a\r\nb"]])
def test_bad_early_hint(messages: Server, links: Any) -> None:
    hint = {"type": "http.response.early_hint", "links": links}
    response, (bad, _, _) = attempt(messages, [hint, START, BODY])
    check_refusal(bad, "http.response.early_hint")
    assert response is not None
    assert response.body == b"ok"


def test_early_hint_too_late(messages: Server) -> None:
    response, (_, bad, _) = attempt(
        messages, [START, {"type": "http.response.early_hint", "links": []}, BODY]
    )
    check_refusal(bad, "http.response.early_hint")
    assert response is not None


# --- applications that fail --------------------------------------------------------------------------------


def test_failing_before_the_start(messages: Server) -> None:
    """500, a traceback with the request line, and the connection is not left in doubt."""
    messages.expect_tracebacks()
    with messages.raw() as client:
        post_messages(client, [{"type": "raise", "text": "before"}])
        response = client.recv_response()
        assert response.status == 500
        assert b"before" not in response.body
        assert b"Traceback" not in response.body
        if not response.closes:
            client.get("/go?nothing")
            assert client.recv_response().body == b"gone"
    messages.wait_log(r"RuntimeError: before")
    log = messages.log()
    assert "Traceback (most recent call last)" in log
    assert log.count("RuntimeError: before") == 1
    assert re.search(r"POST /\?", log.partition("Traceback")[0])


def test_failing_between_start_and_body(messages: Server) -> None:
    """Nothing has left: the client gets a 500."""
    messages.expect_tracebacks()
    response, _ = attempt(messages, [START, {"type": "raise"}])
    assert response is not None
    assert response.status == 500


def test_failing_in_the_body(messages: Server) -> None:
    """The client sees a broken response rather than a short one."""
    messages.expect_tracebacks()
    with messages.raw() as client:
        more = {**BODY, "more_body": True}
        post_messages(client, [START, more, {"type": "raise", "text": "middle"}])
        head = client.recv_head()
        assert head.get("transfer-encoding") == b"chunked"
        try:
            rest = client.recv_all()
        except ConnectionResetError:
            rest = b""
        assert not rest.endswith(b"0\r\n\r\n")
    messages.wait_log("RuntimeError: middle")


def test_failing_in_a_close_delimited_body(messages: Server) -> None:
    """HTTP/1.0: the end of the connection is the end of the body; only a reset tells that it is not whole."""
    messages.expect_tracebacks()
    with messages.raw() as client, pytest.raises(ConnectionResetError):
        post_messages_1_0(client, [START, {**BODY, "more_body": True}, {"type": "raise"}])
        client.recv_all()


def test_failing_behind_the_end(messages: Server) -> None:
    """The answer stands, and the connection serves on."""
    messages.expect_tracebacks()
    with messages.raw() as client:
        post_messages(client, [START, BODY, {"type": "raise", "text": "late"}])
        assert client.recv_response().body == b"ok"
        client.get("/go?nothing")
        assert client.recv_response().body == b"gone"
    messages.wait_log("RuntimeError: late")


def test_returning_without_a_response(messages: Server) -> None:
    with messages.raw() as client:
        post_messages(client, [])
        assert client.recv_response().status == 500
    messages.wait_log(r"without .*POST /\?")


def test_returning_in_the_body(messages: Server) -> None:
    response, _ = attempt(messages, [START, {**BODY, "more_body": True}])
    assert response is None


@pytest.mark.parametrize(
    "todo", [[START], [START, {"type": "http.response.body", "more_body": True}]]
)
def test_returning_with_a_head_alone(messages: Server, todo: list[Any]) -> None:
    response, _ = attempt(messages, todo)
    assert response is None or response.status == 500


def test_work_behind_the_response(messages: Server) -> None:
    """Background tasks: the answer does not wait for them, nor does the next request."""
    with messages.raw() as client:
        key = post_messages(client, [START, BODY, {"type": "wait", "name": "background"}])
        assert client.recv_response().body == b"ok"
        client.get("/go?something")
        assert client.recv_response().body == b"gone"
        client.get("/go?background")
        assert client.recv_response().body == b"gone"
    assert outcomes(messages, key) == [None, None, None]


# --- clients that leave ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_receive_sees_the_client_leave(messages: Server, leave: str) -> None:
    """A FIN may be a half-close: then send still works until the client's kernel refuses the bytes."""
    client = messages.raw()
    todo = [START, {**BODY, "more_body": True}, {"type": "receive"}, {"type": "receive"}, BODY]
    key = post_messages(client, todo)
    client.recv_until(b"ok\r\n")
    getattr(client, leave)()
    _, _, first, second, sent = outcomes(messages, key)
    assert (first, second) == ("http.disconnect", "http.disconnect")
    if leave == "reset":
        assert sent is not None
        assert "OSError" in sent[0]


def test_receive_sees_the_client_leave_in_the_body(
    messages: Server, serve: Factory, loop: str
) -> None:
    server = serve("probe_asgi:app", interface="asgi", loop=loop)
    with server.raw() as client:
        client.send(
            "POST /disconnect?name=body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
        )
    with server.raw() as client:
        client.get("/wait?name=body")
        assert client.recv_response().text == "waited body"


MORE = {**BODY, "more_body": True}
TRAILERS = {"type": "http.response.trailers", "headers": []}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((START, MORE), (MORE, BODY)),
        ((START, MORE), (MORE, pathsend("/etc/hostname"))),
        (({**START, "trailers": True}, BODY), ({**TRAILERS, "more_trailers": True}, TRAILERS)),
    ],
    ids=["body", "pathsend", "trailers"],
)
def test_send_raises_when_the_client_has_left(
    messages: Server, request: pytest.FixtureRequest, before: Any, after: Any
) -> None:
    """An OSError that says so (spec 2.4); not before a byte was refused or the end was seen."""
    name = request.node.name.replace("[", "-").replace("]", "")
    client = messages.raw()
    key = post_messages(
        client, [*before, {"type": "wait", "name": name}, {"type": "receive"}, *after]
    )
    client.recv_until(b"ok\r\n")
    client.reset()
    with messages.raw() as other:
        other.get(f"/go?{name}")
        other.recv_response()
    _, _, _, received, first, second = outcomes(messages, key)
    assert received == "http.disconnect"
    for outcome in (first, second):
        assert "OSError" in outcome[0]
        assert outcome[0][0] == "ClientDisconnected"


def test_an_exception_for_a_client_that_left_is_not_lost(messages: Server) -> None:
    messages.expect_tracebacks()
    client = messages.raw()
    post_messages(client, [{"type": "receive"}, {"type": "raise", "text": "nobody is there"}])
    client.close()
    messages.wait_log("RuntimeError: nobody is there")
    assert "POST /" in messages.log()


# --- backpressure ------------------------------------------------------------------------------------------


def grown(server: Server, before: int) -> int:
    return server.rss() - before


def warm(server: Server) -> int:
    """Memory after a first request of the kind."""
    with server.raw() as client:
        client.get("/stream?n=20&size=65536")
        client.recv_response()
        client.post("/digest", b"x" * 1_000_000)
        client.recv_response()
    return server.rss()


@pytest.mark.memory
@pytest.mark.parametrize("megabytes", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_a_client_that_does_not_read_costs_little(
    serve: Factory, loop: str, megabytes: int
) -> None:
    server = serve("probe_asgi:app", interface="asgi", loop=loop)
    server.expect_tracebacks()
    before = warm(server)
    with server.raw() as client:
        client.get(f"/stream?n={megabytes * 10}&size=100000")
        client.recv_head()
        cpu = server.cpu()
        assert not select.select([], [], [], 0.5)[0]
        assert grown(server, before) < 5 << 20
        assert server.cpu() - cpu < 0.4 * SLOWNESS
        client.socket.settimeout(60 * SLOWNESS)
        assert len(client.recv_exactly(20_000_000)) == 20_000_000
        assert grown(server, before) < 5 << 20


@pytest.mark.memory
@pytest.mark.parametrize("megabytes", [50, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_application_that_does_not_read_costs_little(
    serve: Factory, loop: str, megabytes: int, chunked: bool
) -> None:
    """The upload stalls in the kernel until the application asks for it."""
    server = serve("probe_asgi:app", interface="asgi", loop=loop)
    before = warm(server)
    size = megabytes * 1_000_000
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    part = b"x" * 100_000
    piece = b"%x\r\n%b\r\n" % (len(part), part) if chunked else part
    with server.raw() as client:
        client.send(f"POST /wait?name=unread HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
        client.socket.setblocking(False)
        sent = 0
        while sent < size and select.select([], [client.socket], [], 0.5)[1]:
            sent += client.socket.send(piece)
        assert sent < size, "all of it was read"
        assert grown(server, before) < 5 << 20
        with server.raw() as other:
            other.get("/open?name=unread")
            assert other.recv_response().text == "opened"
        client.socket.settimeout(10 * SLOWNESS)
        assert client.recv_response().text == "waited unread"


@pytest.mark.memory
def test_many_clients_that_do_not_read(serve: Factory, loop: str) -> None:
    server = serve("probe_asgi:app", interface="asgi", loop=loop)
    server.expect_tracebacks()
    before = warm(server)
    clients = []
    for _ in range(20):
        client = server.raw()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.get("/stream?n=1000&size=60000")
        client.recv_head()
        clients.append(client)
    # Each may hold the high-water mark and one part of the application's.
    assert grown(server, before) < 20 * 150_000 + (3 << 20)
    for client in clients:
        client.reset()
    with server.raw() as client:
        client.get("/hello")
        assert client.recv_response().text == "hello "


def test_upload_goes_on_when_it_is_read(serve: Factory, loop: str) -> None:
    """Paused and resumed, many times, without losing a byte."""
    server = serve("probe_asgi:app", "--limit-body-buffer", "1024", interface="asgi", loop=loop)
    body = bytes(range(256)) * 20_000
    with server.raw() as client:
        client.send("POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        pending = b"".join(
            b"%x\r\n%b\r\n" % (1000, body[i : i + 1000]) for i in range(0, len(body), 1000)
        )
        pending += b"0\r\n\r\n"
        client.send(pending[:1005])  # The head leaves with the first part of the body.
        at = 1005
        client.recv_head()
        client.socket.setblocking(False)
        received = client.buffer
        deadline = time.monotonic() + 30 * SLOWNESS
        while not received.endswith(b"\r\n0\r\n\r\n"):
            readable, writable, _ = select.select(
                [client.socket], [client.socket] if at < len(pending) else [], [], 5
            )
            if writable:
                at += client.socket.send(pending[at : at + 65536])
            if readable:
                received += client.socket.recv(1 << 20)
            assert time.monotonic() < deadline
        client.buffer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + received
        client.socket.settimeout(5)
        got = client.recv_response().body
    assert got == body
