"""A raw HTTP/1 client that forgives nothing: a response that is not well-formed fails the test."""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import Any, Self

from .tls import open_pipe

# Sanitizers and valgrind make everything slower; every time-out of the tests is stretched by this.
SLOWNESS = float(
    os.environ.get("TEST_SLOWNESS", "4" if "asan" in os.environ.get("LD_PRELOAD", "") else "1")
)

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*", re.DOTALL)


class MalformedResponse(AssertionError):
    """What came is not HTTP."""


@dataclass
class Response:
    status: int
    reason: bytes
    fields: list[tuple[bytes, bytes]]  # names in lower case
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    framing: str = "none"  # none | length | chunked | close

    def get(self, name: str) -> bytes | None:
        """The value of the one field of that name; None without one; fails when there are several."""
        values = self.get_all(name)
        assert len(values) <= 1, f"{name} is repeated: {values}"
        return values[0] if values else None

    def get_all(self, name: str) -> list[bytes]:
        return [value for key, value in self.fields if key == name.lower().encode()]

    @property
    def closes(self) -> bool:
        """The response says that the connection closes."""
        options = b",".join(self.get_all("connection")).lower()
        return b"close" in [option.strip() for option in options.split(b",")]

    @property
    def text(self) -> str:
        return self.body.decode()


class RawClient:
    """One connection. What was read beyond a response is kept for the next one."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.buffer = b""
        self.sent = 0.0  # when something was, last; by time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- sending -----------------------------------------------------------------------------------

    def send(self, data: bytes | str) -> None:
        try:
            self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        finally:
            self.sent = time.monotonic()

    def get(
        self, target: str = "/", *fields: str, method: str = "GET", version: str = "1.1"
    ) -> None:
        """Sends a request without a body."""
        lines = [f"{method} {target} HTTP/{version}", "Host: test", *fields]
        self.send("\r\n".join(lines) + "\r\n\r\n")

    def post(self, target: str, body: bytes, *fields: str) -> None:
        """Sends a request with a body of known length in one piece."""
        lines = [f"POST {target} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *fields]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def shutdown(self) -> None:
        """Closes the sending side only."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Closes with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # --- receiving ---------------------------------------------------------------------------------

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def recv_until(self, end: bytes) -> bytes:
        """Everything up to and including ``end``."""
        while (at := self.buffer.find(end)) < 0:
            if not self._more():
                raise MalformedResponse(f"closed before {end!r}: {self.buffer!r}")
        taken, self.buffer = self.buffer[: at + len(end)], self.buffer[at + len(end) :]
        return taken

    def recv_exactly(self, n: int) -> bytes:
        pieces, have = [self.buffer], len(self.buffer)
        while have < n:
            data = self.socket.recv(min(n - have, 1 << 20))
            if not data:
                raise MalformedResponse(f"closed {n - have} bytes before the end")
            pieces.append(data)
            have += len(data)
        data = b"".join(pieces)
        taken, self.buffer = data[:n], data[n:]
        return taken

    def recv_all(self) -> bytes:
        """Everything until the server closes. A reset raises ConnectionResetError."""
        pieces = [self.buffer]
        self.buffer = b""
        while data := self.socket.recv(65536):
            pieces.append(data)
        return b"".join(pieces)

    def at_end(self) -> bool:
        """Waits for the server to close: True, or False when more bytes came instead."""
        return not self.buffer and not self._more()

    def recv_head(self) -> Response:
        """A response head, interim ones included."""
        lines = self.recv_until(b"\r\n\r\n")[:-4].split(b"\r\n")
        found = STATUS_LINE.fullmatch(lines[0])
        if found is None:
            raise MalformedResponse(f"status line {lines[0]!r}")
        return Response(int(found[1]), found[2], [parse_field_line(line) for line in lines[1:]])

    def recv_response(self, method: str = "GET", skip: tuple[int, ...] = ()) -> Response:
        """A whole final response. Interim ones before it are a failure but for those of ``skip``."""
        response = self.recv_head()
        while response.status in skip:
            response = self.recv_head()
        if response.status < 200:
            raise MalformedResponse(f"unexpected interim response {response.status}")
        lengths, codings = response.get_all("content-length"), response.get_all("transfer-encoding")
        if lengths and codings:
            raise MalformedResponse("Content-Length with Transfer-Encoding")
        if method == "HEAD" or response.status in (204, 304):
            if codings and response.status == 204:
                raise MalformedResponse("204 with Transfer-Encoding (RFC 9112, 6.1)")
            return response
        if codings:
            if codings != [b"chunked"]:
                raise MalformedResponse(f"transfer codings {codings}")
            response.framing = "chunked"
            self._recv_chunks(response)
        elif lengths:
            if len(lengths) > 1 or not re.fullmatch(rb"[0-9]+", lengths[0]):
                raise MalformedResponse(f"Content-Length {lengths}")
            response.framing = "length"
            response.body = self.recv_exactly(int(lengths[0]))
        else:
            response.framing = "close"
            response.body = self.recv_all()
        return response

    def _recv_chunks(self, response: Response) -> None:
        while True:
            line = self.recv_until(b"\r\n")[:-2]
            if not re.fullmatch(rb"[0-9a-fA-F]+", line):
                raise MalformedResponse(f"chunk size {line!r}")
            size = int(line, 16)
            if size == 0:
                break
            response.chunks.append(self.recv_exactly(size))
            if self.recv_exactly(2) != b"\r\n":
                raise MalformedResponse("no CRLF behind a chunk")
        while line := self.recv_until(b"\r\n")[:-2]:
            response.trailers.append(parse_field_line(line))
        response.body = b"".join(response.chunks)


def parse_field_line(line: bytes) -> tuple[bytes, bytes]:
    found = FIELD_LINE.fullmatch(line)
    if found is None or re.search(rb"[\r\n\0]", found[2]):
        raise MalformedResponse(f"field line {line!r}")
    return found[1].lower(), found[2]


@dataclass(frozen=True)
class TLSAddress:
    """An address where TLS is spoken; ``name`` is the server's in its certificate."""

    address: Any
    context: ssl.SSLContext
    name: str


def connect(address: Any, timeout: float | None = None) -> RawClient:
    """``address``: a path (Unix socket), (host, port), or either as a TLSAddress. ``timeout``: seconds
    for each receive."""
    if isinstance(address, TLSAddress):
        plain = connect(address.address, timeout).socket
        sock: socket.socket = open_pipe(plain, address.context, address.name)
        sock.settimeout((timeout if timeout is not None else 20) * SLOWNESS)
        return RawClient(sock)
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(address)  # With a time-out set, a full backlog would be an error.
        sock.settimeout((timeout if timeout is not None else 20) * SLOWNESS)
        return RawClient(sock)
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout((timeout if timeout is not None else 20) * SLOWNESS)
    sock.connect(address)
    return RawClient(sock)
