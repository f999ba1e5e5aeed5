"""A server that reads requests as badly as support/model_front.py, and answers as the application of the tests
does: behind a front end that errs the other way it must be seen to lose."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from typing import Self

from .model_front import Ended, Refused, fields_of, read_body, read_head


class Gullible:
    """``kind`` as for the model front end. On a port that the kernel chose, in this process."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._numbers = itertools.count(1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream, contextlib.suppress(OSError, Ended):
            while True:
                lines = read_head(stream)
                if lines[0].strip():
                    client.sendall(self._answer(lines, stream))

    def _answer(self, lines: list[bytes], stream: object) -> bytes:
        try:
            body = read_body(stream, lines, self._kind)  # type: ignore[arg-type]
            method, target, _ = lines[0].decode("latin-1").split(" ", 2)
        except (Refused, ValueError):
            return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        number = next(self._numbers)
        fields = [
            [name.decode("latin-1"), value.decode("latin-1")] for name, value in fields_of(lines)
        ]
        seen = {
            "number": number,
            "method": method,
            "target": target,
            "headers": fields,
            "body": body.decode("latin-1"),
        }
        answer = json.dumps(seen).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\nX-Seen: {number} {method} {target}\r\n\r\n"
        return head.encode("latin-1") + answer
