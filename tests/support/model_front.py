"""A front end as bad as the worst of those that advisories tell of: it passes on what it got, byte by byte, over a
connection that all its clients share, and is wrong about it in one way.

    python -m support.model_front PORT SERVER TOKEN KIND

``length``   Content-Length decides, as int() reads it, also beside Transfer-Encoding.
``coding``   Whatever looks like "chunked" decides, and sizes are what int(…, 16) makes of them.
``early``    As length; and when the answer is there before the body is sent, the body stays where it is.
``patient``  As early; and it waits for the answer before it sends the body, however late the server is.
``tunnel``   As length; and what asks for WebSocket gets it: all that follows is passed on unseen.

Lines end with LF, names end where a colon is, white space or not. What is no HTTP even so is refused.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import sys
import threading
from typing import BinaryIO

EARLY = {"early": 0.03, "patient": 20.0}  # seconds that a body waits for the answer


class Refused(Exception):
    pass


class Ended(Exception):
    pass


def read_line(stream: BinaryIO) -> bytes:
    line = stream.readline(200_000)
    if not line.endswith(b"\n"):
        raise Ended
    return line


def read_head(stream: BinaryIO) -> list[bytes]:
    lines = [read_line(stream)]
    while lines[-1].strip(b"\r\n"):
        lines.append(read_line(stream))
    return lines


def read_exactly(stream: BinaryIO, n: int) -> bytes:
    data = stream.read(n)
    if len(data) < n:
        raise Ended
    return data


def number(text: bytes, base: int) -> int:
    try:
        found = int(text, base)
    except ValueError:
        raise Refused from None
    if not 0 <= found < 1_000_000:
        raise Refused
    return found


def read_chunks(stream: BinaryIO) -> bytes:
    """As they came."""
    raw = b""
    while True:
        line = read_line(stream)
        size = number(line.split(b";")[0].strip(), 16)
        raw += line
        if size == 0:
            while line.strip(b"\r\n"):
                line = read_line(stream)
                raw += line
            return raw if raw.endswith(b"\n") else raw + read_line(stream)
        raw += read_exactly(stream, size)
        raw += read_line(stream)


def fields_of(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    pairs = [line.partition(b":") for line in lines[1:-1]]
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs]


def read_body(stream: BinaryIO, lines: list[bytes], kind: str) -> bytes:
    fields = fields_of(lines)
    lengths = [value for name, value in fields if name == b"content-length"]
    chunked = any(
        name == b"transfer-encoding" and b"chunked" in value.lower() for name, value in fields
    )
    if chunked and (kind == "coding" or not lengths):
        return read_chunks(stream)
    return read_exactly(stream, number(lengths[0], 10)) if lengths else b""


class Upstream:
    """The connection to the server. One request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self.lock = threading.Lock()

    def ask(self, request: bytes, body: bytes, early: float) -> tuple[bytes, bool]:
        """The answer, and whether the server closes behind it. A connection that was closed meanwhile is made anew."""
        for _ in range(2):
            fresh = self._socket is None
            try:
                if self._socket is None:
                    self._socket = socket.create_connection(("127.0.0.1", self._port), 10)
                    self._stream = self._socket.makefile("rb")
                late = body if early else b""
                self._socket.sendall(request if late else request + body)
                if late and not select.select([self._socket], [], [], early)[0]:
                    self._socket.sendall(late)
                    late = b""
                return self._read_answer(self._socket, request, late)
            except (OSError, Ended):
                self.close()
                if fresh:
                    break
        return b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", True

    def _read_answer(
        self, server: socket.socket, request: bytes, late: bytes
    ) -> tuple[bytes, bool]:
        lines = read_head(self._stream)
        while lines[0].startswith(b"HTTP/1.1 100"):
            server.sendall(late)
            late = b""
            lines = read_head(self._stream)
        answer = b"".join(lines)
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", answer)
        if length and not request.startswith(b"HEAD "):
            answer += read_exactly(self._stream, int(length[1]))
        closes = re.search(rb"(?i)\r\nconnection: *close", answer) is not None
        if closes:
            self.close()
        return answer, closes

    def take(self) -> socket.socket:
        """For a tunnel."""
        assert self._socket is not None
        taken, self._socket = self._socket, None
        return taken

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def tunnel(client: socket.socket, stream: BinaryIO, head: bytes, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as server:
        server.sendall(head)
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := stream.read1(65536):  # type: ignore[attr-defined]
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
        back.join(10)


def serve(client: socket.socket, upstream: Upstream, server: int, token: str, kind: str) -> None:
    stream = client.makefile("rb")
    with client, contextlib.suppress(OSError, Ended):
        while True:
            lines = read_head(stream)
            while not lines[0].strip():
                lines = read_head(stream)
            front = f"X-Front: {token}\r\n".encode()
            asks = any(n == b"upgrade" and b"websocket" in v.lower() for n, v in fields_of(lines))
            try:
                if kind == "tunnel" and asks:
                    tunnel(client, stream, lines[0] + front + b"".join(lines[1:]), server)
                    return
                body = read_body(stream, lines, kind)
            except Refused:
                client.sendall(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                return
            with upstream.lock:
                head = lines[0] + front + b"".join(lines[1:])
                answer, closes = upstream.ask(head, body, EARLY.get(kind, 0.0))
            client.sendall(answer)
            if closes or any(
                name == b"connection" and b"close" in value.lower()
                for name, value in fields_of(lines)
            ):
                return


def main(port: str, server: str, token: str, kind: str) -> None:
    upstream = Upstream(int(server))
    with socket.create_server(("127.0.0.1", int(port))) as listener:
        while True:
            client, _ = listener.accept()
            words = (client, upstream, int(server), token, kind)
            threading.Thread(target=serve, args=words, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
