"""A plain socket that ends in TLS: what a test does with it happens to the TLS connection.

``open_pipe`` makes a pair of TCP sockets within this process. One is for the test, which may send, wait with
``select``, half-close or reset it as any other; a thread carries bytes between the other one and the server.
A half-close becomes a close_notify and a FIN, the server's close_notify the end of what is read. An end
without close_notify, a broken record or a refused handshake is a reset for the test, and stands in
``socket.pipe.error``.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
from typing import Any

ROOM = 65536  # bytes that wait on their way, in either direction
_RESET = struct.pack("ii", 1, 0)


class PipeSocket(socket.socket):
    """The test's end, with the address by which the server knows it."""

    pipe: Pipe | None = None

    def getsockname(self) -> Any:
        return super().getsockname() if self.pipe is None else self.pipe.remote_name

    def setsockopt(self, level: int, name: int, value: Any, *rest: Any) -> None:
        """Buffers are small already; smaller ones made now would only make the kernel slow."""
        if (level, name) != (socket.SOL_SOCKET, socket.SO_RCVBUF) or self.pipe is None:
            super().setsockopt(level, name, value, *rest)


class Pipe:
    """One connection. Everything but ``__init__`` runs on the carrier's thread."""

    def __init__(
        self,
        local: socket.socket,
        remote: socket.socket,
        context: ssl.SSLContext,
        name: str | None,
    ) -> None:
        self.local, self.remote, self.remote_name = local, remote, remote.getsockname()
        self.error: Exception | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._shaken = False
        self._to_remote, self._to_local = b"", b""
        self._local_ended = self._remote_ended = False  # nothing more will be read there
        self._told_remote = self._told_local = False  # that there comes nothing more
        remote.setblocking(False)
        self.local.setblocking(False)

    def wanted(self) -> list[tuple[socket.socket, int]]:
        """What to wait for; empty: it is over."""
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        local = (
            read if self._shaken and not self._local_ended and len(self._to_remote) < ROOM else 0
        )
        remote = read if not self._remote_ended and len(self._to_local) < ROOM else 0
        local |= write if self._to_local else 0
        remote |= write if self._to_remote else 0
        found = [(self.local, local), (self.remote, remote)]
        return [] if self._told_local and self._told_remote else [one for one in found if one[1]]

    def turn(self, ready: dict[socket.socket, int]) -> None:
        try:
            self._turn(ready)
        except (ssl.SSLError, OSError) as error:
            self.error = self.error or error
            self.break_off()

    def _turn(self, ready: dict[socket.socket, int]) -> None:
        if ready.get(self.remote, 0) & selectors.EVENT_READ:
            data = self.remote.recv(ROOM)
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
        self._decrypt()
        if self._shaken and ready.get(self.local, 0) & selectors.EVENT_READ:
            self._read_local()
        self._to_remote += self._outgoing.read()
        self._write()

    def _decrypt(self) -> None:
        if self._remote_ended:
            return
        try:
            if not self._shaken:
                self.tls.do_handshake()
                self._shaken = True
            while data := self.tls.read(ROOM):
                self._to_local += data
            self._remote_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._remote_ended = True
        except ssl.SSLError:
            self._to_remote += self._outgoing.read()  # an alert
            with contextlib.suppress(OSError):
                self._write()
            raise

    def _read_local(self) -> None:
        data = self.local.recv(ROOM)
        if data:
            self.tls.write(data)
            return
        self._local_ended = True
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLSyscallError):
            self.tls.unwrap()  # which sends close_notify, and need not see the other one

    def _write(self) -> None:
        if self._to_remote:
            with contextlib.suppress(BlockingIOError):
                self._to_remote = self._to_remote[self.remote.send(self._to_remote) :]
        if self._to_local:
            with contextlib.suppress(BlockingIOError):
                self._to_local = self._to_local[self.local.send(self._to_local) :]
        if self._local_ended and not self._to_remote and not self._told_remote:
            self._told_remote = True
            self.remote.shutdown(socket.SHUT_WR)
        if self._remote_ended and not self._to_local and not self._told_local:
            self._told_local = True
            self.local.shutdown(socket.SHUT_WR)

    def break_off(self) -> None:
        """Resets what is open on either side."""
        for sock in (self.local, self.remote):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()

    @property
    def over(self) -> bool:
        return self.local.fileno() < 0

    def close(self) -> None:
        self.local.close()
        self.remote.close()


class _Carrier(threading.Thread):
    """One thread for all pipes of this process."""

    def __init__(self) -> None:
        super().__init__(name="pipes", daemon=True)
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._new: list[Pipe] = []
        self.start()

    def add(self, pipe: Pipe) -> None:
        self._new.append(pipe)
        self._wake.send(b".")

    def run(self) -> None:
        watched: dict[socket.socket, int] = {}
        while True:
            ready: dict[Pipe, dict[socket.socket, int]] = {}
            for key, events in self._selector.select():
                if key.data is None:
                    self._woken.recv(4096)
                else:
                    ready.setdefault(key.data, {})[key.fileobj] = events
            while self._new:
                ready.setdefault(self._new.pop(0), {})
            for pipe, events in ready.items():
                sockets = (pipe.local, pipe.remote)
                numbers = {sock: sock.fileno() for sock in sockets}
                pipe.turn(events)
                wanted = {} if pipe.over else dict(pipe.wanted())
                for sock in sockets:
                    before, now = watched.pop(sock, 0), wanted.get(sock, 0)
                    if before and (not now or pipe.over):
                        self._selector.unregister(sock if not pipe.over else numbers[sock])
                    elif before and before != now:
                        self._selector.modify(sock, now, pipe)
                    elif now and not before:
                        self._selector.register(sock, now, pipe)
                    if now:
                        watched[sock] = now
                if not wanted:
                    pipe.close()


_lock = threading.Lock()
_listener: socket.socket | None = None
_carrier: _Carrier | None = None


def _pair() -> tuple[PipeSocket, socket.socket]:
    """The test's end and the carrier's. They are TCP's, which knows resets."""
    global _listener  # noqa: PLW0603
    ours = PipeSocket(socket.AF_INET, socket.SOCK_STREAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    with _lock:
        if _listener is None:
            _listener = socket.create_server(("127.0.0.1", 0))
            _listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        ours.connect(_listener.getsockname())
        local, _ = _listener.accept()
    for sock in (local, ours):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, local


def open_pipe(remote: socket.socket, context: ssl.SSLContext, name: str | None) -> PipeSocket:
    """``remote`` is connected; ``name`` is the server's, as its certificate has it."""
    global _carrier  # noqa: PLW0603
    remote.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)  # It would grow to megabytes.
    ours, local = _pair()
    ours.pipe = Pipe(local, remote, context, name)
    with _lock:
        _carrier = _carrier or _Carrier()
    _carrier.add(ours.pipe)
    return ours
