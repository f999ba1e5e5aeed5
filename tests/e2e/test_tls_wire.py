"""TLS byte by byte: versions, cipher suites and what else a scanner looks for; records, truncation, time."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import hello
from support.certificates import Authority
from support.client import SLOWNESS, RawClient, connect
from support.processes import foreign_environment, wait_until
from support.server import Server
from support.tls import open_pipe
from support.tls_records import DATA, Records

Factory = Callable[..., Server]

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

# RFC 8446, B.4; RFC 5289; RFC 7905
SUITES_1_3 = {0x1301, 0x1302, 0x1303}
SUITES_ECDSA = {0xC02B, 0xC02C, 0xCCA9}
SUITES_RSA = {0xC02F, 0xC030, 0xCCA8}


@pytest.fixture(params=VERSIONS.values(), ids=VERSIONS.keys())
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    chosen: ssl.TLSVersion = request.param
    return chosen


@pytest.fixture
def server(shared: Factory) -> Server:
    return shared("tls_asgi:app", tls=True)


@pytest.fixture
def rsa_server(shared: Factory, rsa_words: tuple[str, ...]) -> Server:
    return shared("tls_asgi:app", *rsa_words, tls=True)


@pytest.fixture(scope="session")
def rsa_words(authority: Authority) -> tuple[str, ...]:
    return tuple(authority.issue("rsa", "localhost", "127.0.0.1", use_rsa=True).words)


def plain(server: Server) -> socket.socket:
    """A connection on which nothing of TLS was said yet."""
    sock = connect((server.host, server.port)).socket
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def ask(server: Server, *args: Any, **options: Any) -> hello.Reply:
    with plain(server) as sock:
        return hello.ask(sock, hello.hello(*args, **options))


# --- what a scanner finds --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [hello.SSL3, hello.TLS10, hello.TLS11], ids=hex)
def test_old_versions_are_refused(server: Server, rsa_server: Server, number: int) -> None:
    """RFC 7568, RFC 8996."""
    suites = [0xC009, 0xC00A, 0xC013, 0xC014, 0x002F, 0x0035, 0x0004, 0x0005, 0x000A]
    for one in (server, rsa_server):
        assert ask(one, number, suites).alert in (70, 40), "protocol_version, handshake_failure"


def test_cipher_suites_of_1_3(server: Server) -> None:
    for suite in sorted(SUITES_1_3):
        reply = ask(server, hello.TLS13, [suite])
        assert (reply.version, reply.cipher) == (hello.TLS13, suite)
    others = [0x1304, 0x1305, *range(0x1306, 0x1320)]
    assert ask(server, hello.TLS13, others).alert == 40, "handshake_failure"


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_cipher_suites_of_1_2(server: Server, rsa_server: Server, kind: str) -> None:
    """Of all that have a number, those with forward secrecy and authenticated encryption."""
    one, good = (server, SUITES_ECDSA) if kind == "ecdsa" else (rsa_server, SUITES_RSA)
    left = set(range(0x00FF)) | set(range(0xC001, 0xC102)) | set(range(0xCCA8, 0xCCB0))
    left |= set(range(0xD001, 0xD006)) | set(range(0xFEE0, 0xFF00))
    found = set()
    while (reply := ask(one, hello.TLS12, sorted(left))).alert is None:
        assert reply.version == hello.TLS12
        found.add(reply.cipher)
        left.remove(reply.cipher)
    assert reply.alert == 40
    assert found == good


def test_the_server_chooses_among_equals(server: Server) -> None:
    """Not the weakest because the client names it first."""
    reply = ask(server, hello.TLS12, [0x002F, 0xC009, 0xC02C, 0xC02B])
    assert reply.cipher in SUITES_ECDSA


def test_no_compression(server: Server) -> None:
    """CRIME, CVE-2012-4929."""
    assert ask(server, hello.TLS12, sorted(SUITES_ECDSA), compressions=[1, 64, 0]).compression == 0


def test_renegotiation_is_secure_and_off(server: Server, authority: Authority) -> None:
    """RFC 5746; a client that asks for one does not get it."""
    assert 0xFF01 in ask(server, hello.TLS12, sorted(SUITES_ECDSA)).extensions
    said = s_client(server, authority, "-tls1_2", "-msg", text="R\n", wait_for="no_renegotiation")
    assert "Secure Renegotiation IS supported" in said
    assert said.count("ServerHello\n") == 1


@pytest.mark.parametrize("flood", ["renegotiation", "key_update"])
def test_floods_of_records_without_data(server: Server, flood: str) -> None:
    """What OpenSSL answers, or drops, by itself is no way to have the server for oneself: it is cut. With every request
    there may be one such record, for ever."""
    version = VERSIONS["1.2" if flood == "renegotiation" else "1.3"]
    with socket.create_connection(server.address.address, 20) as sock:
        records = Records(sock, version)
        make = getattr(records, flood)
        for _ in range(100):
            sock.sendall(make() + records.seal(DATA, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"))
            while recv_record(sock) < 60:  # an alert, or the server's own KeyUpdate
                pass
        assert "too many TLS records without data" not in server.log()
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(b"".join(make() for _ in range(1000)))
            while sock.recv(65536):
                pass
    server.wait_log("connection cut: too many TLS records without data")


def recv_record(sock: socket.socket) -> int:
    """The length of the next record."""
    head = sock.recv(5, socket.MSG_WAITALL)
    assert len(head) == 5
    size = int.from_bytes(head[3:], "big")
    assert len(sock.recv(size, socket.MSG_WAITALL)) == size
    return size


def test_no_early_data(server: Server, authority: Authority, tmp_path: Path) -> None:
    """Requests that can be replayed (RFC 8446, 8)."""
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_bytes(b"GET /early HTTP/1.1\r\nHost: localhost\r\n\r\n")
    said = s_client(server, authority, "-tls1_3", "-sess_out", str(session))
    assert session.exists()
    assert "Max Early Data: 0" in said
    words = ("-sess_in", str(session), "-early_data", str(early))
    said = s_client(server, authority, "-tls1_3", *words)
    assert "Early data was not sent" in said
    assert "/early" not in server.log()


def s_client(
    server: Server,
    authority: Authority,
    *words: str,
    text: str = "",
    wait_for: str = "HTTP/1.1 200",
) -> str:
    """What ``openssl s_client`` says while it asks for a page, or says ``text``."""
    command = [
        "openssl", "s_client", "-connect", server.authority, "-CAfile", str(authority.path),
        "-servername", "localhost", "-verify_return_error", *words,
    ]  # fmt: skip
    with subprocess.Popen(
        command, env=foreign_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        said = ""
        process.stdin.write(text or "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        process.stdin.flush()
        for line in process.stdout:
            said += line
            if wait_for in line:
                break
        process.stdin.close()
        said += process.stdout.read()
        process.wait(20 * SLOWNESS)
    return said


@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
def test_openssl_as_a_client(server: Server, authority: Authority, flag: str) -> None:
    said = s_client(server, authority, flag, "-alpn", "h2,http/1.1")
    assert "Verify return code: 0 (ok)" in said
    assert "ALPN protocol: http/1.1" in said
    assert "Server Temp Key: X25519" in said
    assert "Compression: NONE" in said


# --- what is no TLS --------------------------------------------------------------------------------------


def test_plain_http_is_answered_by_a_400(serve: Factory) -> None:
    server = serve("tls_asgi:app", tls=True)
    with RawClient(plain(server)) as client:
        client.get("/")
        response = client.recv_response()
        assert response.status == 400
        assert response.closes
        assert client.at_end()
    server.wait_log("plain HTTP request sent to a TLS port")


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\xff\xff" + b"x" * 100,
        b"\x80\x2e\x01\x00\x02",
    ],
    ids=["zeros", "ssh", "long", "ssl2"],
)
def test_rubbish_ends_the_connection(server: Server, data: bytes) -> None:
    with RawClient(plain(server)) as client, suppress(OSError):  # It is quick.
        client.send(data)
        client.shutdown()
        assert b"HTTP/1.1 200" not in client.recv_all()
    assert json.loads(server.get())["scheme"] == "https"


def test_probes_are_not_logged(serve: Factory) -> None:
    """Of load balancers that connect and leave."""
    server = serve("tls_asgi:app", tls=True)
    server.mark()
    for _ in range(3):
        plain(server).close()
    server.get()
    assert not re.search("WARNING|ERROR", server.log())


# --- records ---------------------------------------------------------------------------------------------


class Memory:
    """A client whose bytes go out as it is told: by single bytes, or in records of a size."""

    def __init__(self, server: Server, authority: Authority, version: ssl.TLSVersion) -> None:
        self.sock = plain(server)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = authority.trusting(version=version)
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self.step = 1

    def flush(self) -> None:
        data = self._out.read()
        for at in range(0, len(data), self.step):
            self.sock.sendall(data[at : at + self.step])

    def does(self, action: Callable[[], Any]) -> Any:
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()
                continue
            self.flush()
            return result

    def shake(self) -> None:
        self.does(self.tls.do_handshake)

    def send(self, data: bytes, record: int = 16384) -> None:
        for at in range(0, len(data), record):
            self.tls.write(data[at : at + record])
        self.flush()

    def until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            more = self.does(lambda: self.tls.read(65536))
            assert more, data
            data += more
        return data


@pytest.fixture
def memory(
    server: Server, authority: Authority, version: ssl.TLSVersion
) -> Iterator[Callable[[], Memory]]:
    made: list[Memory] = []

    def make() -> Memory:
        made.append(Memory(server, authority, version))
        return made[-1]

    yield make
    for one in made:
        one.sock.close()


REQUEST = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_every_byte_on_its_own(memory: Callable[[], Memory]) -> None:
    """From the ClientHello on."""
    client = memory()
    client.shake()
    for _ in range(2):
        client.send(REQUEST)
        assert client.until(b"}").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("size", [1, 7, len(REQUEST) - 1])
def test_records_end_anywhere_in_a_request(memory: Callable[[], Memory], size: int) -> None:
    client = memory()
    client.step = 65536
    client.shake()
    client.send(REQUEST, record=size)
    assert client.until(b"}").startswith(b"HTTP/1.1 200")


def test_several_requests_in_a_record(memory: Callable[[], Memory]) -> None:
    client = memory()
    client.step = 65536
    client.shake()
    client.send(REQUEST * 20)
    data = b""
    while data.count(b"HTTP/1.1 200") < 20 or not data.endswith(b"}"):
        data += client.does(lambda: client.tls.read(65536))


def test_a_record_cut_in_two(memory: Callable[[], Memory]) -> None:
    """At every byte of it, on connections of their own."""
    for cut in range(1, len(REQUEST) + 30):
        client = memory()
        client.step = 65536
        client.shake()
        client.tls.write(REQUEST)
        client.step = cut
        client.flush()
        assert client.until(b"}").startswith(b"HTTP/1.1 200")
        client.sock.close()


def test_a_record_that_was_changed(memory: Callable[[], Memory], server: Server) -> None:
    client = memory()
    client.step = 65536
    client.shake()
    client.tls.write(REQUEST)
    data = bytearray(client._out.read())
    data[-1] ^= 1
    client.sock.sendall(data)
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as caught:
        client.does(lambda: client.tls.read(65536))
    assert not isinstance(caught.value, ssl.SSLError) or "BAD_RECORD_MAC" in str(caught.value).upper().replace(" ", "_")  # fmt: skip
    server.get()


def test_close_notify_is_answered(memory: Callable[[], Memory]) -> None:
    """Behind what was asked for before it."""
    client = memory()
    client.step = 65536
    client.shake()
    client.send(REQUEST)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    client.flush()
    assert client.until(b"}").startswith(b"HTTP/1.1 200")
    with pytest.raises(ssl.SSLZeroReturnError):
        client.does(lambda: client.tls.read(10))
    assert client.sock.recv(10) == b""


# --- ends ------------------------------------------------------------------------------------------------


def test_orderly_ends_say_so(shared: Factory, backend: Any) -> None:
    """An end that a proxy or an attacker made is known by the lack of close_notify, which is a reset
    for this client (support/tls.py)."""
    server = shared(f"probe_{backend.interface}:app", **{**backend.options, "tls": True})
    for version in ("1.0", "1.1"):
        with server.raw() as client:
            client.get("/stream?n=10&size=10000", "Connection: close", version=version)
            assert len(client.recv_response().body) == 100_000
            assert client.at_end()


def test_a_response_that_is_cut_has_no_orderly_end(serve: Factory, backend: Any) -> None:
    """On HTTP/1.0 nothing else tells it from a whole one (RFC 9112, 9.8)."""
    server = serve(f"tls_{backend.interface}:app", **{**backend.options, "tls": True})
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/cut", version="1.0")
        with pytest.raises(ConnectionResetError):
            client.recv_all()


def test_a_truncated_body_is_no_body(serve: Factory, authority: Authority) -> None:
    """FIN without close_notify inside of a request (RFC 9112, 9.8)."""
    server = serve("probe_asgi:app", tls=True)
    sock = plain(server)
    with server.context.wrap_socket(sock, server_hostname="localhost") as client:
        client.sendall(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        server.get("/hello")
        socket.socket.shutdown(client, socket.SHUT_WR)
        wait_until(lambda: "disconnected /digest" in server.get("/events"))


def test_a_half_close_still_gets_its_answer(server: Server) -> None:
    with server.raw() as client:
        client.get("/")
        client.shutdown()
        assert client.recv_response().status == 200
        assert client.at_end()


# --- time and number -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [b"", hello.hello(hello.TLS12, [0xC02B])[:40]], ids=["none", "half"]
)
def test_timeout_of_the_handshake(serve: Factory, said: bytes) -> None:
    server = serve("tls_asgi:app", "--timeout-tls-handshake", "0.5", tls=True)
    began = time.monotonic()
    with plain(server) as sock:
        sock.sendall(said)
        try:
            assert sock.recv(100) == b""
        except ConnectionResetError:
            pass
        assert 0.2 < time.monotonic() - began < 5 * SLOWNESS
    json.loads(server.get())


def test_stalled_handshakes_hold_nobody_up(serve: Factory) -> None:
    words = ("--limit-tls-handshakes", "300", "--timeout-tls-handshake", "600")
    server = serve("tls_asgi:app", *words, tls=True)
    stalled = []
    half = hello.hello(hello.TLS12, [0xC02B])[:40]
    try:
        for number in range(500):
            sock = plain(server)
            if number % 2:
                sock.sendall(half)
            stalled.append(sock)
            if number % 100 == 0:
                json.loads(server.get())
        for _ in range(20):
            json.loads(server.get())
        # The oldest had to go.
        gone = 0
        for sock in stalled:
            sock.setblocking(False)
            try:
                gone += sock.recv(1) == b""
            except BlockingIOError:
                pass
            except ConnectionResetError:
                gone += 1
        assert 200 <= gone <= 240
    finally:
        for sock in stalled:
            sock.close()


# --- the PROXY protocol ----------------------------------------------------------------------------------

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
V2 = bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + bytes(
    [192, 0, 2, 7, 192, 0, 2, 1]
) + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big")  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "header"),
    [("v1", V1), ("v2", V2), ("auto", V1), ("auto", V2)],
    ids=["v1", "v2", "auto-v1", "auto-v2"],
)
def test_proxy_header_before_the_handshake(
    shared: Factory, backend: Any, kind: str, header: bytes
) -> None:
    options = {**backend.options, "tls": True}
    server = shared(f"tls_{backend.interface}:app", "--proxy-protocol", kind, **options)
    sock = plain(server)
    for at in range(0, len(header), 9):
        sock.sendall(header[at : at + 9])
    with RawClient(open_pipe(sock, server.context, "localhost")) as client:
        client.socket.settimeout(10 * SLOWNESS)
        client.get("/")
        found = json.loads(client.recv_response().body)
    assert found["client"] == ["192.0.2.7", 4711]
    assert found["scheme"] == "https"
