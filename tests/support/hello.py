"""ClientHellos made by hand, which offer what no library offers any more, and what a server says to them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SSL3, TLS10, TLS11, TLS12, TLS13 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304
ALERT, HANDSHAKE = 21, 22
_SCSV = 0x00FF  # renegotiation is known to the client (RFC 5746)


@dataclass(frozen=True)
class Reply:
    """``alert`` is its number, None: a ServerHello, of which the rest is."""

    alert: int | None = None
    version: int = 0
    cipher: int = 0
    compression: int = 0
    extensions: tuple[int, ...] = ()


def _vector(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size, "big") + data


def _extension(number: int, data: bytes) -> bytes:
    return struct.pack("!H", number) + _vector(data, 2)


def _numbers(values: Sequence[int]) -> bytes:
    return b"".join(struct.pack("!H", value) for value in values)


def hello(
    version: int,
    ciphers: Sequence[int],
    compressions: Sequence[int] = (0,),
    name: str = "localhost",
) -> bytes:
    """The record with a ClientHello for that version alone."""
    extensions = _extension(0, _vector(b"\0" + _vector(name.encode(), 2), 2))
    extensions += _extension(10, _vector(_numbers([0x001D, 0x0017, 0x0018]), 2))
    extensions += _extension(11, _vector(b"\0", 1))
    schemes = [0x0403, 0x0503, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0203, 0x0201]
    extensions += _extension(13, _vector(_numbers(schemes), 2))
    extensions += _extension(35, b"")
    if version == TLS13:
        key = X25519PrivateKey.generate().public_key()
        share = _numbers([0x001D]) + _vector(key.public_bytes(Encoding.Raw, PublicFormat.Raw), 2)
        extensions += _extension(51, _vector(share, 2))
        extensions += _extension(43, _vector(_numbers([TLS13]), 1))
    body = struct.pack("!H", min(version, TLS12)) + bytes(range(32)) + _vector(b"", 1)
    body += _vector(_numbers([*ciphers, _SCSV]), 2) + _vector(bytes(compressions), 1)
    if version > SSL3:
        body += _vector(extensions, 2)
    record = b"\x01" + _vector(body, 3)
    return bytes([HANDSHAKE]) + struct.pack("!H", min(version, TLS10)) + _vector(record, 2)


def _exactly(sock: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        assert more, f"closed after {data!r}"
        data += more
    return data


def ask(sock: socket.socket, record: bytes) -> Reply:
    """Sends it, and reads the server's first record."""
    sock.sendall(record)
    kind, _, size = struct.unpack("!BHH", _exactly(sock, 5))
    data = _exactly(sock, size)
    if kind == ALERT:
        return Reply(alert=data[1])
    assert (kind, data[0]) == (HANDSHAKE, 2), data
    version, at = struct.unpack("!H", data[4:6])[0], 38
    at += 1 + data[at]
    cipher, compression = struct.unpack("!HB", data[at : at + 3])
    at, end = at + 5, 4 + int.from_bytes(data[1:4], "big")
    found = []
    while at < end:
        number, size = struct.unpack("!HH", data[at : at + 4])
        if number == 43:
            version = struct.unpack("!H", data[at + 4 : at + 6])[0]
        found.append(number)
        at += 4 + size
    return Reply(None, version, cipher, compression, tuple(found))
