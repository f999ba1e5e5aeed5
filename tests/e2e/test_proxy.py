"""Behind a proxy: what trusted ones tell, what others cannot; the PROXY protocol.

The tables of all that fields and headers may say are in tests/unit/test_forwarded.c and
tests/unit/test_proxy_protocol.c; here is what comes of it for applications, on real connections.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Backend
from support.client import SLOWNESS, RawClient
from support.pace import in_time
from support.server import Server

from asgiserver import _core

Factory = Callable[..., Server]
Seen = dict[str, Any]

# The client is a proxy in 127.0.0.0/30; of others 10.0.0.0/8 are proxies, too.
TRUST = "127.0.0.0/30, 10.0.0.0/8, 2001:db8:f::/48"


def app_of(backend: Backend) -> str:
    return f"peers_{backend.interface}:app"


def behind(shared: Factory, backend: Backend, *args: str, **options: Any) -> Server:
    """A server that trusts TRUST."""
    trust = ("--forwarded-allow-ips", TRUST)
    return shared(app_of(backend), *trust, *args, **backend.options, **options)


def ask(client: RawClient, *fields: str, target: str = "/") -> Seen:
    client.get(target, *fields)
    return answer(client)


def answer(client: RawClient) -> Seen:
    response = client.recv_response()
    assert response.status == 200, response.text
    seen: Seen = json.loads(response.body)
    return seen


@contextmanager
def coming_from(server: Server, address: str) -> Iterator[RawClient]:
    """A connection from another address of this machine."""
    with socket.create_connection(
        (server.host, server.port), timeout=10 * SLOWNESS, source_address=(address, 0)
    ) as sock:
        yield RawClient(sock)


# --- fields ------------------------------------------------------------------------------------------------

FOR, PROTO, HOST = "X-Forwarded-For: ", "X-Forwarded-Proto: ", "X-Forwarded-Host: "
PORT, PREFIX, FORWARDED = "X-Forwarded-Port: ", "X-Forwarded-Prefix: ", "Forwarded: "

# Fields, and what they change of what the application sees; "own": the port of the connection itself.
TELLS: list[tuple[list[str], Seen]] = [
    ([], {}),
    ([FOR + "192.0.2.1"], {"client": "192.0.2.1", "port": None}),
    ([FOR + "192.0.2.1:4096"], {"client": "192.0.2.1", "port": 4096}),
    ([FOR + "2001:DB8::1"], {"client": "2001:db8::1", "port": None}),
    ([FOR + "[2001:db8::1]:4096"], {"client": "2001:db8::1", "port": 4096}),
    ([FOR + "::ffff:192.0.2.1"], {"client": "192.0.2.1", "port": None}),
    # Right-most hop that is not trusted.
    ([FOR + "203.0.113.9, 192.0.2.1, 10.0.0.1"], {"client": "192.0.2.1", "port": None}),
    ([FOR + "127.0.0.1, 192.0.2.1"], {"client": "192.0.2.1", "port": None}),
    ([FOR + "203.0.113.9", FOR + "192.0.2.1, 10.0.0.2", FOR + "10.0.0.1"],
     {"client": "192.0.2.1", "port": None}),
    ([FOR + "192.0.2.1, 2001:db8:f::1"], {"client": "192.0.2.1", "port": None}),
    ([FOR + "192.0.2.1, 11.0.0.1"], {"client": "11.0.0.1", "port": None}),
    # Malformed.
    ([FOR + "evil"], {}),
    ([FOR + "192.0.2.1, evil"], {}),
    ([FOR + "192.0.2.1, evil, 10.0.0.1"], {"client": "10.0.0.1", "port": None}),
    ([FOR + ", ,"], {}),
    ([FOR + "\xff\xfe"], {}),
    ([PROTO + "evil"], {}),
    ([PROTO + "https\xa0"], {}),
    ([PREFIX + "//evil.example"], {}),
    ([PORT + "99999"], {}),
    # The scheme.
    ([PROTO + "https"], {"scheme": "https"}),
    ([PROTO + "wss"], {"scheme": "https"}),
    ([PROTO + "http"], {}),
    ([PROTO + "https, http"], {}),
    ([PROTO + "https", PROTO + "http"], {}),
    ([FOR + "192.0.2.1", PROTO + "HTTPS"],
     {"client": "192.0.2.1", "port": None, "scheme": "https"}),
    # Server and prefix.
    ([HOST + "example.org"], {"server": ["example.org", 80]}),
    ([HOST + "example.org", PROTO + "https"], {"server": ["example.org", 443], "scheme": "https"}),
    ([HOST + "[2001:db8::2]:8443"], {"server": ["2001:db8::2", 8443]}),
    ([PORT + "8443"], {"server": ["127.0.0.1", 8443]}),
    ([PREFIX + "/api/v1.2/"], {"root": "/api/v1.2"}),
    ([FOR + "192.0.2.1", PROTO + "https", HOST + "a.example:444", PORT + "443", PREFIX + "/p"],
     {"client": "192.0.2.1", "port": None, "scheme": "https", "server": ["a.example", 443],
      "root": "/p"}),
    # RFC 7239.
    ([FORWARDED + 'for="192.0.2.1:4096";proto=https;host=example.org'],
     {"client": "192.0.2.1", "port": 4096, "scheme": "https", "server": ["example.org", 443]}),
    ([FORWARDED + 'for="[2001:db8:cafe::17]:4711"'], {"client": "2001:db8:cafe::17", "port": 4711}),
    ([FORWARDED + "for=203.0.113.9;proto=https, for=192.0.2.1", FORWARDED + "for=10.0.0.1"],
     {"client": "192.0.2.1", "port": None}),
    ([FORWARDED + "for=unknown;proto=https"], {"scheme": "https"}),
    ([FORWARDED + "for=_hidden, for=10.0.0.1"], {"client": "10.0.0.1", "port": None}),
    ([FORWARDED + 'for=203.0.113.9;x=", for=192.0.2.1'], {}),
    ([FORWARDED + "for=192.0.2.1:80"], {}),
    ([FORWARDED + "for=203.0.113.9;proto=https", FOR + "192.0.2.1"],
     {"client": "192.0.2.1", "port": None}),
    # Lookalikes.
    (["X-Real-IP: 203.0.113.9"], {}),
]  # fmt: skip


def plain(server: Server, client: RawClient) -> Seen:
    """What is seen without any field."""
    port = client.socket.getsockname()[1]
    return {
        "client": client.socket.getsockname()[0],
        "port": port,
        "scheme": "http",
        "server": [server.host, server.port],
        "root": "",
        "path": "/",
    }


def without_fields(seen: Seen) -> Seen:
    return {key: value for key, value in seen.items() if key != "fields"}


@pytest.mark.parametrize(("fields", "changes"), TELLS, ids=lambda value: repr(value)[:60])
def test_trusted(shared: Factory, backend: Backend, fields: list[str], changes: Seen) -> None:
    server = behind(shared, backend)
    with server.raw() as client:
        expected = {**plain(server, client), **changes}
        assert without_fields(ask(client, *fields)) == expected
        # On the same connection, between requests of other clients, and when targets are remembered.
        assert without_fields(ask(client)) == plain(server, client)
        assert without_fields(ask(client, *fields)) == expected


@pytest.mark.parametrize("fields", [fields for fields, changes in TELLS if changes])
@pytest.mark.parametrize("why", ["stranger", "off"])
def test_not_believed(shared: Factory, backend: Backend, why: str, fields: list[str]) -> None:
    """From anybody else they are fields like others."""
    args = ["--no-proxy-headers"] if why == "off" else []
    server = behind(shared, backend, *args)
    address = "127.0.0.4" if why == "stranger" else "127.0.0.1"
    with coming_from(server, address) as client:
        seen = ask(client, *fields)
        assert without_fields(seen) == plain(server, client)
        names = {name for name, _ in seen["fields"]}
        assert {line.partition(":")[0].lower() for line in fields} <= names


def test_fields_stay_visible(shared: Factory, backend: Backend) -> None:
    with behind(shared, backend).raw() as client:
        seen = ask(client, FOR + "192.0.2.1", PROTO + "https", HOST + "example.org")
    fields = dict(seen["fields"])
    assert fields["x-forwarded-for"] == "192.0.2.1"
    assert fields["x-forwarded-host"] == "example.org"
    assert fields["host"] == "test"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "127.0.0.3"])
def test_networks_are_exact(shared: Factory, backend: Backend, address: str) -> None:
    """127.0.0.0/30 ends at 127.0.0.3; test_not_believed comes from 127.0.0.4."""
    with coming_from(behind(shared, backend), address) as client:
        assert ask(client, FOR + "192.0.2.1")["client"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("trust", "client"),
    [
        ("", "127.0.0.1"),
        ("*", "203.0.113.9"),
        ("127.0.0.1", "192.0.2.1"),
        ("::/0", "127.0.0.1"),
        ("::ffff:127.0.0.1", "192.0.2.1"),
        ("::ffff:127.0.0.0/104,192.0.2.0/24", "203.0.113.9"),
        ("unix", "127.0.0.1"),
    ],
)
def test_lists(shared: Factory, backend: Backend, trust: str, client: str) -> None:
    server = shared(app_of(backend), "--forwarded-allow-ips", trust, **backend.options)
    with server.raw() as connection:
        assert ask(connection, FOR + "203.0.113.9, 192.0.2.1")["client"] == client


@pytest.mark.parametrize("variable", ["FORWARDED_ALLOW_IPS", "ASGISERVER_FORWARDED_ALLOW_IPS"])
def test_list_from_the_environment(serve: Factory, variable: str) -> None:
    server = serve("peers_wsgi:app", env={variable: "127.0.0.2"})
    for address, client in (("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "192.0.2.1")):
        with coming_from(server, address) as connection:
            assert ask(connection, FOR + "192.0.2.1")["client"] == client


def test_loopback_is_trusted_by_default(shared: Factory, backend: Backend) -> None:
    server = shared(app_of(backend), **backend.options)
    with server.raw() as client:
        assert ask(client, FOR + "192.0.2.1")["client"] == "192.0.2.1"
    with coming_from(server, "127.0.0.2") as client:
        assert ask(client, FOR + "192.0.2.1")["client"] == "127.0.0.2"


def test_ipv6(shared: Factory, backend: Backend) -> None:
    server = shared(app_of(backend), bind="::1", **backend.options)
    with server.raw() as client:
        seen = ask(client, FOR + "2001:db8::1")
    assert (seen["client"], seen["server"]) == ("2001:db8::1", ["::1", server.port])


def test_ipv4_peer_of_an_ipv6_socket(serve: Factory, backend: Backend) -> None:
    """The peer is ::ffff:127.0.0.1 to the kernel."""
    server = serve(app_of(backend), "--forwarded-allow-ips", "127.0.0.1", bind="::",
                   **backend.options)  # fmt: skip
    with socket.create_connection(("127.0.0.1", server.port), timeout=10 * SLOWNESS) as sock:
        assert ask(RawClient(sock), FOR + "192.0.2.1")["client"] == "192.0.2.1"


@pytest.mark.parametrize(("args", "believed"), [((), True), (("127.0.0.1",), False)])
def test_unix_socket(
    serve: Factory, backend: Backend, tmp_path: Path, args: tuple[str, ...], believed: bool
) -> None:
    words = [word for arg in args for word in ("--forwarded-allow-ips", arg)]
    server = serve(app_of(backend), *words, uds=tmp_path / "s", **backend.options)
    with server.raw() as client:
        direct = ask(client)
        assert (direct["client"], direct["port"]) == (None, None)
        seen = ask(client, FOR + "192.0.2.1", PROTO + "https")
        if not believed:
            assert without_fields(seen) == without_fields(direct)
            return
        assert (seen["client"], seen["scheme"]) == ("192.0.2.1", "https")
        usual = ["localhost", 443] if backend.interface == "wsgi" else [str(server.uds), None]
        assert seen["server"] == usual
        named = ask(client, HOST + "example.org", PORT + "8443")
        assert (named["client"], named["server"]) == (None, ["example.org", 8443])
    server.wait_log(r'192\.0\.2\.1:0 - "GET / HTTP/1.1" 200')


def test_clients_change_on_a_connection(shared: Factory, backend: Backend) -> None:
    """Pipelined, so that all of them are in one read."""
    server = behind(shared, backend)
    clients = [f"192.0.2.{n % 7}" if n % 3 else None for n in range(60)]
    with server.raw() as connection:
        own = connection.socket.getsockname()[0]
        lines = [f"X-Forwarded-For: {client}\r\n" if client else "" for client in clients]
        connection.send("".join(f"GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n" for line in lines))
        seen = [answer(connection)["client"] for _ in clients]
    assert seen == [client or own for client in clients]


def test_request_that_comes_in_parts(shared: Factory, backend: Backend) -> None:
    """The head moves to memory of its own, and what was found in it with it."""
    fields = [FOR + "192.0.2.1", HOST + "example.org:81", PREFIX + "/prefix"]
    head = "\r\n".join(["POST /x?y HTTP/1.1", "Host: a", "Content-Length: 3", *fields, "", ""])
    with behind(shared, backend).raw() as client:
        for byte in head + "abc":
            client.send(byte)
        seen = answer(client)
    expected = {"client": "192.0.2.1", "server": ["example.org", 81], "root": "/prefix",
                "path": "/x"}  # fmt: skip
    assert {key: seen[key] for key in expected} == expected


def test_prefix_replaces_root_path(shared: Factory, backend: Backend) -> None:
    server = behind(shared, backend, "--root-path", "/configured")
    with server.raw() as client:
        for _ in range(2):
            for target, path in (("/x", "/x"), ("/x?query", "/x"), ("/%41", "/A")):
                assert ask(client, target=target)["root"] == "/configured"
                seen = ask(client, PREFIX + "/given", target=target)
                assert (seen["root"], seen["path"]) == ("/given", path)


def test_access_log(shared: Factory, backend: Backend) -> None:
    server = behind(shared, backend)
    with server.raw() as client:
        ask(client, FOR + "192.0.2.1:4096", target="/a")
        ask(client, FOR + "evil", target="/b")
        port = client.socket.getsockname()[1]
    server.wait_log(r'192\.0\.2\.1:4096 - "GET /a HTTP/1.1" 200')
    server.wait_log(rf'127\.0\.0\.1:{port} - "GET /b HTTP/1.1" 200')


def test_error_log_names_the_client(serve: Factory) -> None:
    server = serve("probe_asgi:app")
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/fail", FOR + "192.0.2.1")
        assert client.recv_response().status == 500
    server.wait_log(r'192\.0\.2\.1:0 - "GET /fail HTTP/1.1"')


# --- gunicorn's secure_scheme_headers: an option of the core --------------------------------------------------


@contextmanager
def core(proxy: Any) -> Iterator[RawClient]:
    """A connection to a WSGI server in this process."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [f"{environ['wsgi.url_scheme']} {environ['REMOTE_ADDR']}".encode()]

    server = _core.Server(app, interface="wsgi", proxy=proxy)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        server.listen(listener.fileno())
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), timeout=10 * SLOWNESS) as sock:
                yield RawClient(sock)
        finally:
            server.stop()
            thread.join(10 * SLOWNESS)
            server.close()


LOOPBACK = (b"\x7f\0\0\1", 32)
SCHEMES = [(b"X-FORWARDED-PROTO", b"https"), (b"X-FORWARDED-SSL", b"on")]


@pytest.mark.parametrize(
    ("fields", "trusted", "status", "text"),
    [
        ([], True, 200, "http 127.0.0.1"),
        ([PROTO + "https"], True, 200, "https 127.0.0.1"),
        ([PROTO + "https", "X-Forwarded-Ssl: on"], True, 200, "https 127.0.0.1"),
        ([PROTO + "http"], True, 200, "http 127.0.0.1"),
        ([PROTO + "https", "X-Forwarded-Ssl: off"], True, 400, ""),
        ([PROTO + "https", PROTO + "http"], True, 400, ""),
        ([FOR + "192.0.2.1", PROTO + "https"], True, 200, "https 127.0.0.1"),
        ([FORWARDED + "for=192.0.2.1;proto=https"], True, 200, "http 127.0.0.1"),
        ([PROTO + "https"], False, 200, "http 127.0.0.1"),
        ([PROTO + "https", "X-Forwarded-Ssl: off"], False, 200, "http 127.0.0.1"),
    ],
)
def test_scheme_fields(fields: list[str], trusted: bool, status: int, text: str) -> None:
    with core({"trusted": [LOOPBACK] if trusted else [], "schemes": SCHEMES}) as client:
        client.get("/", *fields)
        response = client.recv_response()
        assert response.status == status
        assert status != 200 or response.text == text


@pytest.mark.parametrize(
    ("proxy", "error"),
    [
        (None, TypeError),
        ({"trust": []}, TypeError),
        ({"trusted": [b""]}, TypeError),
        ({"trusted": [(b"", 0, 0)]}, TypeError),
        ({"trusted": [("127.0.0.1", 32)]}, TypeError),
        ({"trusted": [(b"abc", 8)]}, ValueError),
        ({"trusted": [(b"abcd", 33)]}, ValueError),
        ({"trusted": [(b"", 1)]}, ValueError),
        ({"trusted": [(b"abcd", 256)]}, OverflowError),
        ({"trusted": 3}, TypeError),
        ({"schemes": [("name", "value")]}, TypeError),
        ({"schemes": [(b"name",)]}, TypeError),
        ({"schemes": [b"name"]}, TypeError),
        ({"protocol": "v3"}, ValueError),
        ({"protocol": 1}, TypeError),
        ({"protocol_trusted": [(b"abc", 8)]}, ValueError),
    ],
)
def test_settings_of_the_core(proxy: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        _core.Server(lambda *_: [], interface="wsgi", proxy=proxy)


# --- the PROXY protocol ------------------------------------------------------------------------------------

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 4096 443\r\n"
V1_TCP6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 4096 443\r\n"
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def v2(command: int, family: int, addresses: bytes, *tlvs: tuple[int, bytes]) -> bytes:
    tail = addresses + b"".join(
        struct.pack("!BH", kind, len(value)) + value for kind, value in tlvs
    )
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(tail)) + tail


def v2_inet(family: int, source: str, destination: str, *tlvs: tuple[int, bytes]) -> bytes:
    kind = 0x11 if family == socket.AF_INET else 0x21
    packed = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    return v2(1, kind, packed + struct.pack("!HH", 4096, 443), *tlvs)


V2 = v2_inet(socket.AF_INET, "192.0.2.1", "192.0.2.2", (0x04, b"padding"))
V2_TCP6 = v2_inet(socket.AF_INET6, "2001:db8::1", "2001:db8::2")
V2_UNIX = v2(1, 0x31, b"/client".ljust(108, b"\0") + b"/server".ljust(108, b"\0"))
V2_LOCAL = v2(0, 0, b"")
V2_UNKNOWN = v2(1, 0, b"")

INET: Seen = {"client": "192.0.2.1", "port": 4096, "server": ["192.0.2.2", 443]}
INET6: Seen = {"client": "2001:db8::1", "port": 4096, "server": ["2001:db8::2", 443]}

HEADERS: list[tuple[str, bytes, Seen]] = [
    ("v1", V1, INET),
    ("v1", V1_TCP6, INET6),
    ("v1", b"PROXY UNKNOWN\r\n", {}),
    ("v1", b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n", {}),
    ("v2", V2, INET),
    ("v2", V2_TCP6, INET6),
    ("v2", V2_LOCAL, {}),
    ("v2", V2_UNKNOWN, {}),
    ("v2", v2_inet(socket.AF_INET, "192.0.2.1", "192.0.2.2", (0x02, b"x" * 4000)), INET),
    ("auto", V1, INET),
    ("auto", V2, INET),
]


def told(server: Server, client: RawClient, changes: Seen) -> Seen:
    return {**plain(server, client), **changes}


def proxied(shared: Factory, backend: Backend, mode: str = "auto", *args: str) -> Server:
    return behind(shared, backend, "--proxy-protocol", mode, *args)


@pytest.mark.parametrize(("mode", "header", "changes"), HEADERS, ids=lambda value: repr(value)[:40])
def test_proxy_header(
    shared: Factory, backend: Backend, mode: str, header: bytes, changes: Seen
) -> None:
    """With two requests in the same packet, and one later."""
    server = proxied(shared, backend, mode)
    with server.raw() as client:
        client.send(header + GET + GET)
        expected = told(server, client, changes)
        assert without_fields(answer(client)) == expected
        assert without_fields(answer(client)) == expected
        assert without_fields(ask(client)) == expected


@pytest.mark.parametrize("size", [1, 7, 16])
@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_proxy_header_in_parts(shared: Factory, backend: Backend, header: bytes, size: int) -> None:
    server = proxied(shared, backend)
    data = header + GET
    with server.raw() as client:
        for at in range(0, len(data), size):
            client.send(data[at : at + size])
            time.sleep(0.001)  # so that most of them are reads of their own
        assert without_fields(answer(client)) == told(server, client, INET)


def test_proxy_header_from_a_unix_socket(shared: Factory, backend: Backend) -> None:
    """The proxy's client was at a Unix socket; the proxy comes by TCP."""
    with proxied(shared, backend).raw() as client:
        client.send(V2_UNIX + GET)
        seen = answer(client)
    assert (seen["client"], seen["port"]) == (None, None)
    usual = ["localhost", 80] if backend.interface == "wsgi" else ["/server", None]
    assert seen["server"] == usual


def test_proxy_header_at_a_unix_socket(serve: Factory, backend: Backend, tmp_path: Path) -> None:
    server = serve(app_of(backend), "--proxy-protocol", "v1", uds=tmp_path / "s",
                   **backend.options)  # fmt: skip
    with server.raw() as client:
        client.send(V1 + GET)
        seen = answer(client)
    assert {key: seen[key] for key in INET} == INET
    server.wait_log(r'192\.0\.2\.1:4096 - "GET / HTTP/1.1" 200')


def test_fields_behind_a_proxy_header(shared: Factory, backend: Backend) -> None:
    """Who is believed is the client that the header names, if he is a proxy; not who sent the header."""
    server = proxied(shared, backend)
    inner = V1.replace(b"192.0.2.1", b"10.0.0.7")
    for header, client in (
        (V1, "192.0.2.1"),
        (inner, "203.0.113.9"),
        (V2_LOCAL, "203.0.113.9"),
        (V2_UNKNOWN, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ):
        with server.raw() as connection:
            connection.send(header)
            assert ask(connection, FOR + "203.0.113.9")["client"] == client


def refused(client: RawClient, server: Server, text: str) -> None:
    """Closed without an answer, and one line in the log."""
    with contextlib.suppress(ConnectionResetError):
        assert client.at_end()
    server.wait_log(text)
    assert server.log().count("PROXY") == 1, server.log()


@pytest.mark.parametrize(
    ("mode", "data", "text"),
    [
        ("auto", GET, "no header of the PROXY protocol"),
        ("v1", GET, "no header of the PROXY protocol"),
        ("v2", GET, "no header of the PROXY protocol"),
        ("auto", b"\x16\x03\x01\x02\x00\x01", "no header of the PROXY protocol"),
        ("v1", V2 + GET, "version of the PROXY protocol that is not expected"),
        ("v2", V1 + GET, "version of the PROXY protocol that is not expected"),
        ("auto", V1.replace(b"\r\n", b"\n") + GET, "invalid header of the PROXY protocol"),
        ("auto", V1.replace(b"4096", b"65536") + GET, "invalid header of the PROXY protocol"),
        ("auto", V1.replace(b"TCP4", b"TCP6") + GET, "invalid header of the PROXY protocol"),
        ("auto", b"PROXY UNKNOWN ".ljust(200, b"x"), "header of the PROXY protocol too large"),
        ("auto", v2(1, 0x11, b"short") + GET, "invalid header of the PROXY protocol"),
        ("auto", v2(2, 0x11, bytes(12)) + GET, "invalid header of the PROXY protocol"),
        ("auto", v2(0, 0, bytes(5000)) + GET, "header of the PROXY protocol too large"),
        ("auto", v2(1, 0x11, bytes(12), (3, b"1234")) + GET, "wrong checksum"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bad_proxy_header(
    shared: Factory, backend: Backend, mode: str, data: bytes, text: str
) -> None:
    server = proxied(shared, backend, mode)
    with server.raw() as client:
        client.send(data)
        refused(client, server, text)
    assert '"GET' not in server.log()


@pytest.mark.parametrize(
    "data", [V1 + GET, V2 + GET, GET, b"P"], ids=lambda value: repr(value)[:20]
)
def test_stranger_sends_a_proxy_header(shared: Factory, backend: Backend, data: bytes) -> None:
    server = proxied(shared, backend)
    with coming_from(server, "127.0.0.4") as client:
        client.send(data)
        refused(client, server, r"127\.0\.0\.4:\d+ - connection cut: not trusted to send a header")
    assert '"GET' not in server.log()


def test_second_proxy_header_is_none(shared: Factory, backend: Backend) -> None:
    server = proxied(shared, backend)
    with server.raw() as client:
        client.send(V1 + V1.replace(b"192.0.2.1", b"192.0.2.9") + GET)
        assert client.recv_response().status == 400
        assert client.at_end()


def test_proxy_header_where_none_is_expected(shared: Factory, backend: Backend) -> None:
    with behind(shared, backend).raw() as client:
        client.send(V1 + GET)
        assert client.recv_response().status in (400, 501)
        assert client.at_end()


def test_connection_without_a_byte_is_silent(shared: Factory, backend: Backend) -> None:
    """As probes make them, be they trusted or not."""
    server = proxied(shared, backend)
    for address in ("127.0.0.1", "127.0.0.4"):
        with coming_from(server, address) as client:
            client.shutdown()
            assert client.at_end()
        with coming_from(server, address) as client:
            client.reset()
    with server.raw() as client:
        client.send(V1 + GET)
        answer(client)
    server.wait_log('"GET / HTTP/1.1" 200')
    assert "PROXY" not in server.log()
    assert "cut" not in server.log()


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_connection_ends_inside_of_a_proxy_header(
    shared: Factory, backend: Backend, header: bytes
) -> None:
    server = proxied(shared, backend)
    with server.raw() as client:
        client.send(header[:-1])
        client.shutdown()
        refused(client, server, "connection ended, or was silent, inside a header")


def test_proxy_header_has_the_time_of_a_request_head(serve: Factory, backend: Backend) -> None:
    """As a whole, with the first request's head, however slowly it drips in."""

    def attempt() -> bool:
        server = proxied(serve, backend, "auto", "--timeout-request-head", "1.5")
        start = time.monotonic()
        with server.raw() as silent, server.raw() as dripping, server.raw() as late:
            late.send(V1 + GET[:-1])
            ended, sent = dripped_out(dripping, V1[:1]), 1
            if time.monotonic() - start > 1.4:
                return False
            while not ended:
                ended = dripped_out(dripping, V1[sent : sent + 1] if sent < 30 else b"")
                sent += 1
                assert time.monotonic() - start < 15 * SLOWNESS
            assert silent.at_end()
            assert late.recv_response().status == 408
            assert time.monotonic() - start >= 1.4
        server.wait_log("connection ended, or was silent, inside a header")
        assert server.log().count("PROXY") == 1, server.log()
        return True

    in_time(attempt)


def dripped_out(client: RawClient, byte: bytes) -> bool:
    """Sends the byte; true when the server has closed."""
    client.socket.settimeout(0.1)
    try:
        client.send(byte)
        return client.at_end()
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_stop_does_not_wait_for_a_proxy_header(serve: Factory, backend: Backend) -> None:
    server = serve(app_of(backend), "--proxy-protocol", "auto", "--timeout-request-head", "60",
                   **backend.options)  # fmt: skip
    with server.raw() as silent, server.raw() as partial, server.raw() as served:
        partial.send(V1[:-1])
        served.send(V1 + GET)
        answer(served)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 10 * SLOWNESS
        assert silent.at_end()


@pytest.mark.memory
def test_proxy_headers_leave_no_memory(serve: Factory, backend: Backend) -> None:
    server = serve(app_of(backend), "--proxy-protocol", "auto", "--no-access-log",
                   **backend.options)  # fmt: skip

    def burst(times: int) -> None:
        for data in [V1 + GET, V2_UNIX + GET, V2[:20], b"", GET] * times:
            with server.raw() as client, contextlib.suppress(OSError):  # Those that are refused.
                client.send(data)
                client.shutdown()
                client.recv_all()

    # The resident set grows by whole arenas of a MiB, now and then; what leaks grows with each burst.
    burst(100)
    grown = []
    while not grown or grown[-1] >= 1 << 20:
        before = server.rss()
        burst(400)
        grown.append(server.rss() - before)
        assert len(grown) < 6, grown
    assert server.open_files() < 40


# --- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--forwarded-allow-ips", "127.0.0.1,evil"], "'evil' is no address, network, unix or *"),
        (["--forwarded-allow-ips", "10.0.0.1/8"], "10.0.0.0/8 is meant?"),
        (
            ["--forwarded-allow-ips", "", "--proxy-protocol", "v2"],
            "forwarded_allow_ips trusts nobody",
        ),
        (["--proxy-protocol", "v3"], "'v3' is not one of"),
    ],
)
def test_bad_options(serve: Factory, args: list[str], text: str) -> None:
    server = serve("peers_wsgi:app", *args, wait=False)
    assert server.wait() == 2
    assert text in re.sub(r"\s+", " ", server.log())
