"""Every attack: what a crowd of connections does, which promise of docs/security.md that tries, and what the
promise comes to with the options of the run.

A connection sends ``opening``, then ``drip`` each ``every`` seconds (0: as fast as it is taken), reads as
``reads`` says, and begins anew when it has been closed.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support.websocket import BINARY, CONTINUATION, PING, TEXT, frame, handshake

from asgiserver import options

KIB, MIB = 1 << 10, 1 << 20
READ = 64 * KIB  # what one read may bring beyond a limit
PIECE = 64 * KIB  # what the application gives at once
PYTHON = 32 * KIB  # a request at work: task, scope, environ, what the application has
TLS = 96 * KIB  # a handshake, and OpenSSL's buffers
IDLE = 4 * KIB  # connection, allocator
TICK = 0.25  # seconds: time-outs are late by as much


class Settings:
    """The options of a run: an attribute for each row of the table."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given

    def __getattr__(self, name: str) -> Any:
        return self.given.get(name, options.BY_NAME[name].default)

    @property
    def words(self) -> list[str]:
        rows = [(options.BY_NAME[name], value) for name, value in self.given.items()]
        return [word for row, value in rows for word in (f"--{row.word}", row.text(value))]


Bound = Callable[[Settings], float]


def idle(_: Settings) -> float:
    return IDLE


def head(s: Settings) -> float:
    """A buffer doubles."""
    return IDLE + 2 * s.limit_request_head


def body(s: Settings) -> float:
    """In the application's queue, in the connection's, or in memory until it goes to a file."""
    return IDLE + PYTHON + max(2 * (s.limit_body_buffer + READ), s.limit_body_memory)


def pipeline(s: Settings) -> float:
    return IDLE + PYTHON + 2 * (s.limit_pipeline + READ) + s.limit_write_buffer + READ


def answer(s: Settings) -> float:
    return IDLE + PYTHON + s.limit_write_buffer + 2 * PIECE


def messages(s: Settings) -> float:
    """What waits, one message beyond, one that comes in (a buffer doubles), and the rest of a read."""
    return IDLE + PYTHON + 4 * max(s.ws_max_size, READ) + 2 * READ + s.limit_write_buffer


def shaking(_: Settings) -> float:
    return IDLE + TLS


@dataclass(frozen=True)
class Attack:
    name: str
    promise: str  # of docs/security.md, in short
    opening: bytes
    drip: bytes = b""
    every: float = 0.0
    reads: int | None = 65536  # bytes at once; None: nothing is read
    paced: bool = False  # reads once each `every` seconds
    receive_buffer: int = 0  # SO_RCVBUF; 0: the system's
    leaves: str = ""  # "at once", or "answered": closes by itself then
    crowd: tuple[int, int] = (50, 200)  # connections: short and long form
    interfaces: tuple[str, ...] = ("asgi",)
    given: Mapping[str, Any] = field(default_factory=dict)
    holds: Bound = idle  # bytes of memory for each connection
    lives: Bound | None = None  # seconds; None: nothing is promised
    status: int | None = None  # of the answers that come; None: whatever
    tls: bool = False  # the server speaks it
    files: int = 0  # RLIMIT_NOFILE of the server
    file_size: int = 0  # RLIMIT_FSIZE of the server: a full disk
    stays: bool = False  # the application keeps what it does not read, and its connection
    fresh: bool = True  # the well-behaved client opens connections meanwhile
    flood: str = (
        ""  # what follows the handshake of TLS without end: a method of support/tls_records.py
    )


BOTH = ("asgi", "wsgi")
GET = b"GET %b HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /take HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
CHUNKED = b"POST /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
BIG = GET % b"/big" + b"\r\n"


def websocket(path: str, deflate: bool = False) -> bytes:
    offer = ["Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"]
    return handshake(path, *offer * deflate).encode()


def bomb(size: int) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = made.compress(b"\0" * size) + made.flush(zlib.Z_SYNC_FLUSH)
    return frame(BINARY, data[:-4], rsv=4)


def hello() -> bytes:
    """A whole ClientHello."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


ATTACKS = (
    Attack(
        "slow heads", "a whole head has its time",
        GET % b"/" + b"X: ", b"a", 0.2, crowd=(100, 1000),
        holds=head, lives=lambda s: s.timeout_request_head, status=408,
    ),
    Attack(
        "endless head", "a head has a size",
        GET % b"/" + b"X: ", b"a" * 4096, holds=head, lives=lambda s: s.timeout_request_head, status=431,
    ),
    Attack(
        "many fields", "a head has so many fields",
        GET % b"/" + b"A: b\r\n" * 5000 + b"\r\n", holds=head, lives=lambda s: s.timeout_request_head, status=431,
    ),
    Attack(
        "huge field", "a head has a size",
        GET % b"/" + b"X: " + b"a" * MIB + b"\r\n\r\n", holds=head, lives=lambda s: s.timeout_request_head,
        status=431,
    ),
    Attack(
        "empty lines", "what stands before a head has its size",
        b"", b"\r\n" * 2048, holds=head, lives=lambda s: s.timeout_request_head, status=400,
    ),
    Attack(
        "slow bodies", "a body keeps the least rate",
        POST, b"x", 0.2, crowd=(100, 1000), interfaces=BOTH,
        holds=body, lives=lambda s: s.timeout_request_body + 1, status=408,
    ),
    Attack(
        "bodies that nobody takes", "a body's buffer",
        POST.replace(b"/take", b"/hold"), b"x" * 16384, crowd=(30, 200), holds=body, stays=True,
    ),
    Attack(
        "chunks of a byte", "framing is held against what it holds; a body has a size",
        CHUNKED, b"1\r\nx\r\n" * 2048, crowd=(4, 20), interfaces=BOTH, given={"limit_request_body": 200_000},
        holds=body, status=413,
    ),
    Attack(
        "endless chunk extension", "framing is held against what it holds",
        CHUNKED + b"1;", b"a" * 4096, interfaces=BOTH, holds=body,
        lives=lambda s: s.timeout_request_body, status=400,
    ),
    Attack(
        "trailers", "trailers are held to a head's limits",
        CHUNKED + b"0\r\n", b"A: b\r\n" * 500, interfaces=BOTH, holds=body,
        lives=lambda s: s.timeout_request_body, status=431,
    ),
    Attack(
        "slow readers", "an answer's buffer, and the time to take anything of it",
        BIG, reads=None, receive_buffer=4096, crowd=(50, 200), interfaces=BOTH,
        holds=answer, lives=lambda s: 2 * s.timeout_write,
    ),
    Attack(
        "readers of single bytes", "an answer is taken at the least rate",
        BIG, b"", 0.2, reads=1, paced=True, receive_buffer=1, crowd=(50, 200), interfaces=BOTH,
        holds=answer, lives=lambda s: 2 * s.timeout_write,
    ),
    Attack(
        "huge pipelines", "requests that wait, and answers that nobody reads",
        (GET % b"/" + b"\r\n") * 1000, (GET % b"/" + b"\r\n") * 200, reads=None, receive_buffer=4096,
        interfaces=BOTH, holds=pipeline,  # it lives while the kernel still takes answers
    ),
    Attack(
        "idle connections", "a connection that says nothing is small, and closed",
        b"", crowd=(1000, 10000), lives=lambda s: s.timeout_request_head,
    ),
    Attack(
        "idle behind an answer", "a kept connection is small, and closed",
        GET % b"/" + b"\r\n", crowd=(500, 10000), lives=lambda s: s.timeout_keep_alive,
    ),
    Attack(
        "more connections than descriptors", "accepting pauses, open connections are served",
        b"", crowd=(400, 2000), files=300, fresh=False,
    ),
    Attack("connect and close", "a connection that ends holds nothing", b"", leaves="at once", crowd=(50, 50)),
    Attack(
        "requests that are refused", "what is logged of refusals has a rate",
        b"NONSENSE\r\n\r\n", leaves="answered", interfaces=BOTH, status=400,
    ),
    Attack(
        "bodies on a full disk", "507, and what is logged of it has a rate",
        POST.replace(b"100000000", b"200000") + b"x" * 200_000, leaves="answered", interfaces=("wsgi", "wsgi-threads"),
        given={"limit_body_memory": 100_000}, file_size=150_000, holds=body, status=507,
    ),
    Attack(
        "bodies that fill the disk", "what bodies in files hold together is bounded",
        CHUNKED, b"4000\r\n" + b"x" * 0x4000 + b"\r\n", interfaces=("wsgi", "wsgi-threads"),
        given={"limit_body_memory": 100_000, "limit_body_spool": 4_000_000}, holds=body, status=503,
    ),
    Attack(
        "zip bombs that nobody takes", "what waits of a WebSocket holds ws-max-size and one message",
        websocket("/hold", True), bomb(MIB - 1) * 16, crowd=(8, 40), given={"ws_max_size": MIB}, holds=messages,
        stays=True,
    ),
    Attack(
        "zip bombs that are too large", "1009 at the first byte beyond ws-max-size",
        websocket("/", True), bomb(64 * MIB), crowd=(4, 20), given={"ws_max_size": MIB}, holds=messages,
    ),
    Attack(
        "messages that nobody takes", "what waits of a WebSocket is bounded",
        websocket("/hold"), frame(TEXT, b"x" * 1000) * 16, crowd=(30, 200), given={"ws_max_size": MIB},
        holds=messages, stays=True,
    ),
    Attack(
        "fragments without end", "1009 when a message is too large",
        websocket("/") + frame(TEXT, b"x", fin=False), frame(CONTINUATION, b"x" * 4096, fin=False),
        crowd=(20, 100), given={"ws_max_size": MIB}, holds=messages,
    ),
    Attack(
        "empty fragments without end", "a fragment without bytes holds nothing",
        websocket("/") + frame(TEXT, b"x", fin=False), frame(CONTINUATION, b"", fin=False) * 1000,
        crowd=(4, 20), holds=messages, given={"ws_max_size": MIB},
    ),
    Attack(
        "pings whose answers are not read", "pongs that wait stop the reading",
        websocket("/"), frame(PING, b"x" * 125) * 100, reads=None, receive_buffer=4096, crowd=(30, 200),
        given={"ws_max_size": MIB}, holds=messages, lives=lambda s: 2 * s.timeout_write,
    ),
    Attack(
        "handshakes of TLS that never end", "a handshake has its time",
        hello()[:100], crowd=(100, 900), tls=True, holds=shaking, lives=lambda s: s.timeout_tls_handshake,
    ),
    Attack(
        "handshakes of TLS in crowds", "more than limit-tls-handshakes: the oldest is cut",
        hello()[:100], crowd=(1500, 3000), tls=True, holds=shaking,
        lives=lambda s: s.timeout_tls_handshake, fresh=False,  # a new one may be the oldest in no time
    ),
    Attack(
        "handshakes of TLS, one after the other", "a turn of the loop has few steps of handshakes",
        hello(), leaves="answered", crowd=(8, 32), tls=True, holds=shaking,
    ),
    Attack(
        "renegotiation without end", "records of TLS that bring no data have a number",
        b"", reads=None, crowd=(4, 20), tls=True, holds=shaking, lives=lambda _: 0.0, flood="renegotiation",
    ),
    Attack(
        "new keys without end", "records of TLS that bring no data have a number",
        b"", reads=None, crowd=(4, 20), tls=True, holds=shaking, lives=lambda _: 0.0, flood="key_update",
    ),
)  # fmt: skip

BY_NAME = {attack.name: attack for attack in ATTACKS}
