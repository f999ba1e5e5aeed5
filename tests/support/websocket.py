"""WebSocket frames by hand (RFC 6455, 5): a client that can be as wrong as a test wants, and forgives
a server nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from .client import RawClient, Response

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN = 0x80
KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(
    hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
)


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes
    first: int = FIN  # the bits beside the opcode

    @property
    def code(self) -> int | None:
        """Of a close frame; None without one."""
        assert self.opcode == CLOSE
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None

    @property
    def reason(self) -> str:
        return self.payload[2:].decode()


def frame(
    opcode: int,
    payload: bytes | str = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """One frame of a client. ``length`` is what its header claims, where that is not the truth."""
    data = payload.encode() if isinstance(payload, str) else payload
    n = len(data) if length is None else length
    head = bytes([(FIN if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if n < 126:
        head += bytes([bit | n])
    elif n < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", n)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", n)
    if not masked:
        return head + data
    key = os.urandom(4) if mask is None else mask
    return head + key + masking(data, key)


def masking(data: bytes, key: bytes) -> bytes:
    """RFC 6455, 5.3: the same in both directions."""
    n = len(data)
    if n == 0:
        return b""
    long_key = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(data, "big") ^ int.from_bytes(long_key, "big")).to_bytes(n, "big")


def close_frame(code: int | None = 1000, reason: str = "") -> bytes:
    payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
    return frame(CLOSE, payload)


def handshake(target: str = "/", *fields: str, key: str = KEY) -> str:
    """The request. A field given takes the place of the usual one of that name; one that ends with
    a colon leaves it out."""
    usual = {
        "host": "Host: test",
        "connection": "Connection: Upgrade",
        "upgrade": "Upgrade: websocket",
        "sec-websocket-key": f"Sec-WebSocket-Key: {key}",
        "sec-websocket-version": "Sec-WebSocket-Version: 13",
    }
    for line in fields:
        usual.pop(line.partition(":")[0].lower(), None)
    lines = [*usual.values(), *(line for line in fields if not line.endswith(":"))]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines]) + "\r\n\r\n"


class WebSocket:
    """A client's side, over a RawClient."""

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.raw.close()

    def open(self, target: str = "/", *fields: str) -> Response:
        """The handshake, which has to succeed; the answer's head."""
        self.raw.send(handshake(target, *fields))
        return self.opened()

    def opened(self) -> Response:
        head = self.raw.recv_head()
        assert head.status == 101, (head, self.raw.buffer)
        assert head.get("sec-websocket-accept") == ACCEPT
        assert (head.get("upgrade") or b"").lower() == b"websocket"
        assert (head.get("connection") or b"").lower() == b"upgrade"
        assert head.get("content-length") is None
        assert head.get("transfer-encoding") is None
        return head

    def send(self, opcode: int, payload: bytes | str = b"") -> None:
        self.raw.send(frame(opcode, payload))

    def text(self, text: str) -> None:
        self.send(TEXT, text)

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        self.raw.send(close_frame(code, reason))

    def recv(self) -> Frame:
        """The next frame, whose form has to be a server's."""
        first, second = self.raw.recv_exactly(2)
        n = second & 0x7F
        assert second & 0x80 == 0, "a server masks nothing (RFC 6455, 5.1)"
        if n == 126:
            n = struct.unpack("!H", self.raw.recv_exactly(2))[0]
            assert n > 125, "not the shortest form (RFC 6455, 5.2)"
        elif n == 127:
            n = struct.unpack("!Q", self.raw.recv_exactly(8))[0]
            assert n > 65535, "not the shortest form (RFC 6455, 5.2)"
        opcode = first & 0x0F
        assert opcode < CLOSE or (n <= 125 and first & FIN), "RFC 6455, 5.5"
        return Frame(opcode, self.raw.recv_exactly(n), first & 0xF0)

    def expect(self, opcode: int, payload: bytes | str) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        assert self.recv() == Frame(opcode, data)

    def expect_close(self, code: int | None, reason: str = "") -> None:
        """The server's close frame; other frames before it are a failure."""
        got = self.recv()
        assert got.opcode == CLOSE, got
        assert (got.code, got.reason) == (code, reason)

    def at_end(self) -> bool:
        """The server closes its side, and nothing comes before."""
        return self.raw.at_end()

    def texts(self, n: int) -> Sequence[str]:
        frames = [self.recv() for _ in range(n)]
        assert all(got.opcode == TEXT for got in frames)
        return [got.payload.decode() for got in frames]
