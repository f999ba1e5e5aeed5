"""Requests over HTTP/2 (RFC 9113) that no library would send: any bytes as names and values, over cleartext
with prior knowledge."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence

DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0x0, 0x1, 0x3, 0x4, 0x6
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Request = tuple[Sequence[tuple[bytes, bytes]], bytes]  # fields, body


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def hpack_string(text: bytes) -> bytes:
    """RFC 7541, 5.2, without Huffman's code."""
    n = len(text)
    if n < 127:
        return bytes([n]) + text
    size, n = bytearray([127]), n - 127
    while n >= 128:
        size.append(n % 128 + 128)
        n //= 128
    size.append(n)
    return bytes(size) + text


def hpack(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """RFC 7541, 6.2.2: literals without indexing."""
    return b"".join(b"\0" + hpack_string(name) + hpack_string(value) for name, value in fields)


def request(stream: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
    head = frame(HEADERS, END_HEADERS | (0 if body else END_STREAM), stream, hpack(fields))
    return head + (frame(DATA, END_STREAM, stream, body) if body else b"")


def ask(port: int, requests: Sequence[Request], quiet: float) -> list[bytes | None]:
    """The body of each answer that came whole. Waits until each request is answered or refused, or nothing came
    for ``quiet`` seconds."""
    bodies = {2 * at + 1: b"" for at in range(len(requests))}
    ended: dict[int, bytes | None] = {}
    with socket.create_connection(("127.0.0.1", port), 10) as sock, contextlib.suppress(OSError):
        sock.settimeout(quiet)
        stream_of_bytes = sock.makefile("rb")
        sock.sendall(PREFACE + frame(SETTINGS, 0, 0))
        for at, (fields, body) in enumerate(requests):
            sock.sendall(request(2 * at + 1, fields, body))
        while len(ended) < len(requests):
            head = stream_of_bytes.read(9)
            if len(head) < 9:
                break
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = stream_of_bytes.read(int.from_bytes(head[:3], "big"))
            if kind == SETTINGS and not flags & ACK:
                sock.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                sock.sendall(frame(PING, ACK, 0, payload))
            elif kind == RST_STREAM:
                ended[stream] = None
            elif kind in (DATA, HEADERS) and stream in bodies:
                if kind == DATA:
                    bodies[stream] += payload
                if flags & END_STREAM:
                    ended[stream] = bodies[stream]
    return [ended.get(stream) for stream in bodies]
