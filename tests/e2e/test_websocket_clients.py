"""WebSocket with real clients (tests/support/websockets.py): plain ASGI (tests/apps/ws_plain.py) and
frameworks (tests/apps/ws_contract.py). What no well-behaved client does is in other files."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import wsproto.events
from support.client import SLOWNESS
from support.server import Server
from support.websockets import (
    CLIENTS,
    Aiohttp,
    Client,
    Closed,
    Denied,
    Websockets,
    Wsproto,
)
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

Factory = Callable[..., Server]

ROOT = Path(__file__).resolve().parents[2]

MIB = 1 << 20
TEXTS = ["", "a", "\u00e9\u4f60\U0001f600", *("x" * n for n in (125, 126, 65535, 65536))]
BINARIES = [b"", b"\0", b"\xff\xfe", *(os.urandom(n) for n in (125, 126, 65535, 65536))]


@pytest.fixture(params=CLIENTS.values(), ids=CLIENTS)
def kind(request: pytest.FixtureRequest) -> type[Client]:
    chosen: type[Client] = request.param
    return chosen


@pytest.fixture(params=[False, True], ids=["plain", "deflate"])
def deflate(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


@pytest.fixture
def server(shared: Factory, loop: str) -> Server:
    return shared("ws_plain:app", loop=loop)


@pytest.fixture
def name() -> str:
    """An id that nobody else uses, for notes."""
    return uuid.uuid4().hex


def target(path: str, **query: Any) -> str:
    return f"{path}?{urlencode(query)}"


def note(server: Server, name: str) -> Any:
    """What the application has seen; waits for it."""
    return json.loads(server.get(target("/note", id=name)))


def exchange(client: Client, data: str | bytes) -> None:
    client.send(data)
    got = client.recv()
    assert type(got) is type(data)
    assert got == data


# --- messages ------------------------------------------------------------------------------------


def test_text_and_binary(server: Server, kind: type[Client], deflate: bool) -> None:
    with kind(server.authority, "/echo", deflate=deflate) as client:
        for data in [*TEXTS, *BINARIES]:
            exchange(client, data)


def test_a_mebibyte(server: Server, kind: type[Client], deflate: bool) -> None:
    letters = random.Random(1)
    text = "".join(letters.choices("abc\u00e9\u4f60", k=MIB // 2))
    with kind(server.authority, "/echo", deflate=deflate) as client:
        for data in (os.urandom(MIB), bytes(MIB), text, "x" * MIB):
            exchange(client, data)


def test_many_at_once(server: Server, kind: type[Client], deflate: bool) -> None:
    """They come back in order, however they lie in the reads."""
    messages: list[str | bytes] = [f"{n} {'x' * (n % 200)}" for n in range(1000)]
    messages[::3] = [bytes([n % 256]) * (n % 50) for n in range(0, 1000, 3)]
    with kind(server.authority, "/echo", deflate=deflate) as client:
        for message in messages:
            client.send(message)
        for message in messages:
            assert client.recv() == message


@pytest.mark.parametrize("kind", [Websockets, Wsproto])
def test_fragments(server: Server, kind: type[Client], deflate: bool) -> None:
    """Come out as one message, also when a character is cut in two."""
    pieces = ["one ", "", "two \u00e9", "three", "x" * 70000]
    binary = [b"one", b"", os.urandom(70000), b"\xc3"]
    with kind(server.authority, "/echo", deflate=deflate) as client:
        client.send_fragments(pieces)
        assert client.recv() == "".join(pieces)
        client.send_fragments(binary)
        assert client.recv() == b"".join(binary)
        client.send_fragments(["a"] * 500)
        assert client.recv() == "a" * 500
        exchange(client, "whole")


def test_pings(server: Server, kind: type[Client], deflate: bool) -> None:
    with kind(server.authority, "/echo", deflate=deflate) as client:
        for payload in (b"", b"1", b"\xff" * 125):
            client.ping(payload)
            exchange(client, "between")


def test_ping_within_a_message(server: Server, deflate: bool) -> None:
    """It is answered before the message is complete (RFC 6455, 5.4)."""
    with Wsproto(server.authority, "/echo", deflate=deflate) as client:
        for _ in range(3):
            client._send(wsproto.events.Message(data="first ", message_finished=False))
            client.ping(b"in between")
            client._send(wsproto.events.Message(data="last"))
            assert client.recv() == "first last"


def test_many_clients(server: Server, deflate: bool) -> None:
    """Each gets its own messages."""
    clients: list[Wsproto] = []
    try:
        for _ in range(60):
            clients.append(Wsproto(server.authority, "/echo", deflate=deflate))
        for turn in range(5):
            for number, client in enumerate(clients):
                client.send(f"{turn} of {number}" * 20)
            for number, client in reversed(list(enumerate(clients))):
                assert client.recv() == f"{turn} of {number}" * 20
    finally:
        for client in clients:
            client.abandon()


# --- the handshake -------------------------------------------------------------------------------


def test_scope(server: Server, kind: type[Client]) -> None:
    fields = [("X-Test", "a value")]
    with kind(server.authority, "/show?a=%20b", fields=fields) as client:
        seen = json.loads(client.recv())
    headers = dict(seen.pop("headers"))
    assert seen == {
        "type": "websocket",
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/show",
        "root_path": "",
        "subprotocols": [],
        "query_string": "a=%20b",
    }
    assert headers["x-test"] == "a value"
    assert headers["host"] == server.authority
    assert headers["upgrade"].lower() == "websocket"


def test_fields_of_the_answer(server: Server) -> None:
    with Websockets(server.authority, "/show") as client:
        fields = client._connection.response.headers
        assert fields["X-Answer"] == "from the application"
        assert fields.get_all("Server") == ["asgiserver"]
        assert len(fields.get_all("Date")) == 1


def test_subprotocols(server: Server, kind: type[Client]) -> None:
    offered = ["chat.v1", "chat.v2", "other"]
    with kind(server.authority, "/choose?choose=chat.v2", subprotocols=offered) as client:
        assert client.subprotocol == "chat.v2"
        assert json.loads(client.recv()) == offered
    with kind(server.authority, "/choose", subprotocols=offered) as client:
        assert client.subprotocol is None
        assert json.loads(client.recv()) == offered
    with kind(server.authority, "/choose") as client:
        assert client.subprotocol is None
        assert json.loads(client.recv()) == []


def test_denied(server: Server, kind: type[Client]) -> None:
    with pytest.raises(Denied) as denied:
        kind(server.authority, "/deny")
    assert denied.value.status == 403
    with kind(server.authority, "/echo") as client:
        exchange(client, "others are served")


def test_denied_with_a_response(server: Server, kind: type[Client]) -> None:
    with pytest.raises(Denied) as denied:
        kind(server.authority, "/respond")
    assert denied.value.status == 418
    assert denied.value.body in (b"I am a teapot\n", None)
    assert (denied.value.body is None) is (kind is Aiohttp)


def test_beside_http(server: Server, kind: type[Client]) -> None:
    with kind(server.authority, "/echo") as client:
        assert server.get("/hello") == '"hello"'
        exchange(client, "still there")


# --- permessage-deflate --------------------------------------------------------------------------


def test_deflate_is_agreed_on(server: Server, kind: type[Client], deflate: bool) -> None:
    with kind(server.authority, "/echo", deflate=deflate) as client:
        assert client.deflated is deflate


def test_deflate_saves_bytes(server: Server) -> None:
    size: dict[bool, int] = {}
    for deflate in (False, True):
        with Wsproto(server.authority, "/echo", deflate=deflate) as client:
            exchange(client, "the same again and again " * 40000)
            size[deflate] = client.bytes_in
    assert size[False] > 1_000_000
    assert size[True] < 20_000


OFFERS: list[dict[str, Any]] = [
    {"server_no_context_takeover": True},
    {"client_no_context_takeover": True},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
    *({"server_max_window_bits": bits} for bits in (9, 10, 12, 15)),
    *({"client_max_window_bits": bits} for bits in (9, 11, 15)),
    {
        "server_no_context_takeover": True,
        "client_no_context_takeover": True,
        "server_max_window_bits": 9,
        "client_max_window_bits": 9,
    },
]


@pytest.mark.parametrize("kind", [Websockets, Wsproto])
@pytest.mark.parametrize("offer", OFFERS, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_deflate_parameters(server: Server, kind: type[Client], offer: dict[str, Any]) -> None:
    """What the client asks for is agreed to, and holds: a client that was promised a window or no
    takeover inflates with no more than that."""
    if kind is Websockets:
        factory = ClientPerMessageDeflateFactory(**offer)
        client: Client = Websockets(server.authority, "/echo", offer=factory)
    else:
        client = Wsproto(server.authority, "/echo", deflate=True, **offer)
    with client:
        assert client.deflated
        if offer.get("server_no_context_takeover"):
            assert "server_no_context_takeover" in client.extensions
        if offer.get("server_max_window_bits", 15) < 15:
            assert f"server_max_window_bits={offer['server_max_window_bits']}" in client.extensions
        words = random.Random(2)
        for n in range(10):
            # Repetitions further apart than any window, so that a window too large is noticed.
            block = bytes(words.choices(range(256), k=3000))
            exchange(client, block + bytes(n * 1500) + block * 12 + block[: 100 * n])
            exchange(client, f"the same text every time, nearly {n} " * 20)


def test_deflate_can_be_off(shared: Factory, loop: str, kind: type[Client]) -> None:
    server = shared("ws_plain:app", "--no-ws-per-message-deflate", loop=loop)
    with kind(server.authority, "/echo", deflate=True) as client:
        assert not client.deflated
        exchange(client, "the same again and again " * 1000)


# --- closing -------------------------------------------------------------------------------------

CLOSES = [(1000, ""), (1000, "bye"), (1001, "going"), (3000, "\u00e9\u4f60"), (4999, "x" * 123)]


@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_the_client_closes(
    server: Server, kind: type[Client], name: str, code: int, reason: str
) -> None:
    with kind(server.authority, target("/echo", id=name)) as client:
        exchange(client, "hello")
        assert client.close(code, reason) == code
    assert note(server, name) == [code, reason]


@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_the_application_closes(
    server: Server, kind: type[Client], name: str, code: int, reason: str
) -> None:
    with kind(server.authority, target("/close", code=code, reason=reason, id=name)) as client:
        closed = client.await_close()
    assert (closed.code, closed.reason) == (code, reason)
    assert note(server, name) == "websocket.disconnect"


def test_the_client_closes_without_a_code(server: Server, name: str) -> None:
    with Wsproto(server.authority, target("/echo", id=name)) as client:
        client.close(1005)
    assert note(server, name) == [1005, ""]


def test_the_client_leaves(server: Server, kind: type[Client], name: str) -> None:
    with kind(server.authority, target("/echo", id=name)) as client:
        exchange(client, "hello")
        client.abandon()
        assert note(server, name)[0] == 1006


def test_the_application_fails(server: Server, kind: type[Client]) -> None:
    server.expect_tracebacks()
    with kind(server.authority, "/fail") as client:
        client.send("now")
        assert client.await_close().code == 1011
    server.wait_log("RuntimeError: on purpose")
    with kind(server.authority, "/echo") as client:
        exchange(client, "others are served")


def test_the_application_fails_before_accepting(server: Server, kind: type[Client]) -> None:
    server.expect_tracebacks()
    with pytest.raises(Denied) as denied:
        kind(server.authority, "/fail-early")
    assert denied.value.status == 500
    server.wait_log("RuntimeError: on purpose")


def test_the_server_stops(serve: Factory, loop: str) -> None:
    """Each client is told 1012, service restart, and the application the same."""
    server = serve("ws_plain:app", loop=loop)
    clients: list[Client] = []
    try:
        for deflate in (False, True, False, True):
            for kind in CLIENTS.values():
                clients.append(kind(server.authority, "/echo", deflate=deflate))
                exchange(clients[-1], "hello")
        server.signal(signal.SIGTERM)
        for client in clients:
            assert client.await_close().code == 1012
            client.abandon()
        assert server.wait() == 0
        assert server.log().count("left with 1012") == len(clients)
    finally:
        for client in clients:
            client.abandon()


# --- back-pressure -------------------------------------------------------------------------------

COUNT, SIZE = 1000, 1 << 16  # 62 MiB: more than the buffers of any kernel


def test_a_client_that_does_not_read(server: Server, kind: type[Client], name: str) -> None:
    """Makes the application's send() wait; then every message comes, in order."""
    path = target("/stream", id=name, count=COUNT, size=SIZE)
    with kind(server.authority, path) as client:
        sent = note(server, name)
        assert sent != "all sent", "send() never waited"
        assert sent < COUNT / 2
        for number in range(COUNT):
            assert client.recv() == number.to_bytes(4, "big") * (SIZE // 4)
        assert note(server, name) == "all sent"


@pytest.mark.memory
def test_an_application_that_does_not_receive(server: Server, name: str) -> None:
    """The client's sending waits, and the server's memory does not grow with what it would send."""
    before = server.rss()
    path = target("/hold", id=name, count=COUNT)
    with Wsproto(server.authority, path) as client:
        client._socket.settimeout(None)
        messages = b"".join(
            client._connection.send(
                wsproto.events.Message(data=number.to_bytes(4, "big") * (SIZE // 4))
            )
            for number in range(COUNT)
        )
        sent = send_until_full(client._socket, messages)
        assert sent < len(messages) / 2, "nothing held the client up"
        assert server.rss() - before < 16 * MIB
        server.get(target("/release", id=name))
        client._socket.settimeout(20 * SLOWNESS)
        client._socket.sendall(memoryview(messages)[sent:])
        assert client.recv() == str(COUNT * SIZE)


def send_until_full(sock: socket.socket, data: bytes) -> int:
    """Sends what is taken until nothing is for half a second; how much that was."""
    view, sent = memoryview(data), 0
    while sent < len(data) and select.select([], [sock], [], 0.5)[1]:
        sent += sock.send(view[sent : sent + MIB], socket.MSG_DONTWAIT)
    return sent


# --- frameworks ----------------------------------------------------------------------------------

# And the code that a connection is closed with whose application fails: some catch it.
FRAMEWORKS = {"starlette": 1011, "fastapi": 1011, "channels": 1011, "litestar": 4500, "quart": 1000}


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest, shared: Factory, loop: str) -> Server:
    return shared(f"ws_{request.param}:app", loop=loop)


def test_framework_echo(framework: Server, kind: type[Client]) -> None:
    with kind(framework.authority, "/echo", deflate=kind is not Wsproto) as client:
        for data in ("text", "\u00e9\u4f60\U0001f600", b"\0\xff", "x" * 70000, os.urandom(70000)):
            exchange(client, data)
        for n in range(100):
            client.send(f"message {n}")
        for n in range(100):
            assert client.recv() == f"message {n}"
        assert client.close() == 1000


def test_framework_routing(framework: Server) -> None:
    """A path with a parameter, a query, a field, JSON."""
    fields = [("X-Test", "a value")]
    with Websockets(framework.authority, "/room/caf%C3%A9?q=a%26b", fields=fields) as client:
        client.send('{"n": [1, 2, null]}')
        expected = {"name": "caf\u00e9", "q": "a&b", "field": "a value", "got": {"n": [1, 2, None]}}
        assert json.loads(client.recv()) == expected


def test_framework_subprotocol(framework: Server) -> None:
    with Websockets(framework.authority, "/chat", subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"
        client.send("hello")
        assert client.recv() == "chat.v2: hello"


def test_framework_closes(framework: Server) -> None:
    with Websockets(framework.authority, "/bye") as client:
        client.send("now")
        closed: Closed = client.await_close()
    assert (closed.code, closed.reason) == (4001, "bye")


def test_framework_denies(framework: Server) -> None:
    with pytest.raises(Denied) as denied:
        Websockets(framework.authority, "/deny")
    assert denied.value.status == 403


def test_framework_fails(framework: Server, request: pytest.FixtureRequest) -> None:
    framework.expect_tracebacks()
    with Websockets(framework.authority, "/fail") as client:
        client.send("now")
        expected = FRAMEWORKS[request.node.callspec.params["framework"]]
        assert client.await_close().code == expected
    if expected != 4500:  # Litestar logs only when it is asked to.
        framework.wait_log("Failure")
    with Websockets(framework.authority, "/echo") as client:
        exchange(client, "others are served")


def test_framework_client_leaves(framework: Server, request: pytest.FixtureRequest) -> None:
    """Whenever it does: no traceback, and others are served."""
    if request.node.callspec.params["framework"] == "quart":
        framework.expect_tracebacks()  # It logs the OSError that a send() raises then.
    for messages in (0, 1, 50):
        with Websockets(framework.authority, "/echo") as client:
            for _ in range(messages):
                client.send("x" * 1000)
    with Websockets(framework.authority, "/echo") as client:
        exchange(client, "others are served")


# --- examples/chat.py; with a browser in test_browser.py -----------------------------------------


@pytest.fixture
def chat(serve: Factory, loop: str) -> Server:
    return serve("examples.chat:app", "--app-dir", str(ROOT), loop=loop)


def hear(client: Client, what: str, **expected: Any) -> dict[str, Any]:
    """The next line that the chat sends, which must be this."""
    line: dict[str, Any] = json.loads(client.recv())
    assert line["what"] == what
    assert {name: line[name] for name in expected} == expected
    return line


def test_chat(chat: Server) -> None:
    with (
        Websockets(chat.authority, "/chat?name=Ada", deflate=True) as ada,
        Aiohttp(chat.authority, "/chat?name=%20Bob%20%20the%20third") as bob,
    ):
        hear(ada, "history", said=[])
        hear(ada, "note", text="Ada is here", members=1)
        for client in (ada, bob):
            if client is bob:
                hear(bob, "history", said=[])
            hear(client, "note", text="Bob the third is here", members=2)
        ada.send("hello")
        said = [hear(client, "said", name="Ada", text="hello") for client in (ada, bob)]
        with Wsproto(chat.authority, "/chat") as third:
            hear(third, "history", said=said[:1])
            hear(third, "note", text="somebody is here", members=3)
            third.send("x" * 1001)
            assert third.await_close().code == 1008
        for text in ("somebody is here", "somebody has left"):
            hear(ada, "note", text=text)
        bob.close()
        hear(ada, "note", text="Bob the third has left", members=1)


def test_chat_does_not_wait_for_a_slow_member(chat: Server) -> None:
    with Wsproto(chat.authority, "/chat") as slow, Wsproto(chat.authority, "/chat") as busy:
        for text in (None, "somebody is here"):
            hear(busy, "history" if text is None else "note")
        slow._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        kept = int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])  # by the kernel
        line: dict[str, Any] = {"what": "said"}
        for _ in range((kept + 2 * MIB) // 1000):
            busy.send("x" * 1000)
            line = json.loads(busy.recv())
            if line["what"] != "said":
                break
        while True:
            try:
                slow.recv()
            except Closed as closed:
                assert (closed.code, closed.reason) == (1013, "too slow")
                break
        if line["what"] == "said":  # The close waited for the slow one to read on.
            line = json.loads(busy.recv())
        assert (line["what"], line["text"]) == ("note", "somebody has left")


def test_chat_is_for_its_own_page(chat: Server) -> None:
    assert chat.get("/").startswith("<!doctype html>")
    with Wsproto(chat.authority, "/chat", fields=[("Origin", f"https://{chat.authority}")]):
        pass
    for path, origin in (("/chat", "http://other.example"), ("/nowhere", chat.url)):
        with pytest.raises(Denied) as denied:
            Wsproto(chat.authority, path, fields=[("Origin", origin)])
        assert denied.value.status == 403
