"""Real WebSocket clients under one roof: ``websockets``, ``aiohttp``, and ``wsproto`` over a socket.

    with Websockets(server.authority, "/echo", deflate=True) as client:
        client.send("text")
        assert client.recv() == "text"

``recv`` gives str or bytes and raises Closed where the server has closed; a handshake that the server
does not accept raises Denied. Each wait has a time-out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import websockets.exceptions
import websockets.extensions.permessage_deflate as deflate_of_websockets
import websockets.sync.client
import wsproto
import wsproto.events
import wsproto.extensions
import wsproto.frame_protocol
from wsproto.utilities import RemoteProtocolError

from .client import SLOWNESS

TIMEOUT = 15.0 * SLOWNESS  # seconds
NO_LIMIT = 1 << 40

Data = str | bytes


class Denied(Exception):
    """The server answered the handshake with a response of HTTP."""

    def __init__(self, status: int, body: bytes | None) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body  # None: this client does not tell


class Closed(Exception):
    """The server closed, with a close frame; 1005: without a code, 1006: without a frame."""

    def __init__(self, code: int | None, reason: str | None) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason or ""


@dataclass(frozen=True)
class Handshake:
    """What a client asks for. ``authority``: host and port. ``deflate``: offer permessage-deflate."""

    authority: str
    target: str = "/"
    subprotocols: Sequence[str] = ()
    deflate: bool = False
    fields: Sequence[tuple[str, str]] = ()


class Client:
    """What all of them can do. Made with what a Handshake is made with, and a client's own options."""

    subprotocol: str | None
    deflated: bool  # permessage-deflate was agreed on
    extensions: str  # what was agreed on, where the client tells

    def __init__(
        self,
        authority: str,
        target: str = "/",
        *,
        subprotocols: Sequence[str] = (),
        deflate: bool = False,
        fields: Sequence[tuple[str, str]] = (),
        **options: Any,
    ) -> None:
        self._open(Handshake(authority, target, subprotocols, deflate, fields), **options)

    def _open(self, asked: Handshake, **options: Any) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def send(self, data: Data) -> None:
        raise NotImplementedError

    def send_fragments(self, fragments: Iterable[Data]) -> None:
        raise NotImplementedError

    def recv(self) -> Data:
        raise NotImplementedError

    def ping(self, payload: bytes) -> None:
        """Returns when the pong with the same payload is there. No message may come before it."""
        raise NotImplementedError

    def close(self, code: int = 1000, reason: str = "") -> int:
        """Closes as the standard says; the code of the server's answer."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Leaves without a close frame. Idempotent."""
        raise NotImplementedError

    def await_close(self) -> Closed:
        """What the server closes with. A message before that is a failure."""
        try:
            data = self.recv()
        except Closed as closed:
            return closed
        raise AssertionError(f"expected the end, got {data[:100]!r}")


# --- websockets ----------------------------------------------------------------------------------


class Websockets(Client):
    """With its interface for threads. ``offer``: permessage-deflate with parameters of one's own."""

    def _open(
        self,
        asked: Handshake,
        offer: deflate_of_websockets.ClientPerMessageDeflateFactory | None = None,
        **options: Any,
    ) -> None:
        try:
            self._connection = websockets.sync.client.connect(
                f"ws://{asked.authority}{asked.target}",
                subprotocols=list(asked.subprotocols) or None,
                compression="deflate" if asked.deflate and offer is None else None,
                extensions=None if offer is None else [offer],
                additional_headers=list(asked.fields),
                max_size=None,
                open_timeout=TIMEOUT,
                close_timeout=TIMEOUT,
                ping_interval=None,
                proxy=None,
                legacy=True,  # closed by abandon(), not by a block
                **options,
            )
        except websockets.exceptions.InvalidStatus as error:
            response = error.response
            raise Denied(response.status_code, response.body) from error
        response = self._connection.response
        self.subprotocol = self._connection.subprotocol
        self.extensions = response.headers.get("Sec-WebSocket-Extensions", "")
        self.deflated = "permessage-deflate" in self.extensions

    def send(self, data: Data) -> None:
        self._connection.send(data)

    def send_fragments(self, fragments: Iterable[Data]) -> None:
        self._connection.send(fragments)

    def recv(self) -> Data:
        try:
            return self._connection.recv(TIMEOUT)
        except websockets.exceptions.ConnectionClosed:
            raise Closed(self._connection.close_code, self._connection.close_reason) from None

    def ping(self, payload: bytes) -> None:
        assert self._connection.ping(payload).wait(TIMEOUT), "no pong"

    def close(self, code: int = 1000, reason: str = "") -> int:
        self._connection.close(code, reason)
        answer = self._connection.protocol.close_rcvd
        return 1006 if answer is None else answer.code

    def abandon(self) -> None:
        self._connection.close_socket()


# --- aiohttp -------------------------------------------------------------------------------------


class Aiohttp(Client):
    """In an event loop of its own, which runs while a call waits."""

    extensions = ""

    def _open(self, asked: Handshake) -> None:
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None
        try:
            self._run(self._connect(asked))
        except BaseException:
            self.abandon()
            raise
        self.subprotocol = self._socket.protocol
        self.deflated = self._socket.compress != 0

    async def _connect(self, asked: Handshake) -> None:
        self._session = aiohttp.ClientSession()
        try:
            self._socket = await self._session.ws_connect(
                f"http://{asked.authority}{asked.target}",
                protocols=asked.subprotocols,
                compress=15 if asked.deflate else 0,
                headers=list(asked.fields),
                max_msg_size=0,
                autoping=False,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise Denied(error.status, None) from error

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(asyncio.wait_for(coroutine, TIMEOUT))

    def send(self, data: Data) -> None:
        send = self._socket.send_str if isinstance(data, str) else self._socket.send_bytes
        self._run(send(data))  # type: ignore[arg-type]

    def recv(self) -> Data:
        message = self._run(self._receive())
        assert isinstance(message.data, Data), message
        return message.data

    async def _receive(self, wanted: aiohttp.WSMsgType | None = None) -> Any:
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.CLOSE:
                raise Closed(message.data or 1005, message.extra)
            elif message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
                raise Closed(self._socket.close_code, None)
            elif message.type is aiohttp.WSMsgType.ERROR:
                raise AssertionError(f"not WebSocket: {message.data!r}")
            else:
                assert (message.type is aiohttp.WSMsgType.PONG) is (
                    wanted is aiohttp.WSMsgType.PONG
                )
                return message

    def ping(self, payload: bytes) -> None:
        self._run(self._socket.ping(payload))
        assert self._run(self._receive(aiohttp.WSMsgType.PONG)).data == payload

    def close(self, code: int = 1000, reason: str = "") -> int:
        self._run(self._socket.close(code=code, message=reason.encode()))
        return self._socket.close_code or 1005

    def abandon(self) -> None:
        if self._session is not None:
            # Its close() alone would leave as the standard says.
            connector = self._session.connector
            assert connector is not None
            self._run(close(connector))
            self._run(self._session.close())
            self._session = None
        self._runner.close()


async def close(connector: aiohttp.BaseConnector) -> None:
    await connector.close()


# --- wsproto -------------------------------------------------------------------------------------


class Wsproto(Client):
    """The protocol without I/O, on a socket: its bytes are counted in ``bytes_in`` and ``bytes_out``.
    ``parameters``: of wsproto's PerMessageDeflate."""

    def _open(self, asked: Handshake, **parameters: Any) -> None:
        host, _, port = asked.authority.rpartition(":")
        self.bytes_in = self.bytes_out = 0
        self._events: list[wsproto.events.Event] = []
        self._socket = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT)
        self._connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        offers = [wsproto.extensions.PerMessageDeflate(**parameters)] if asked.deflate else []
        self._send(
            wsproto.events.Request(
                host=asked.authority,
                target=asked.target,
                subprotocols=list(asked.subprotocols),
                extensions=offers,
                extra_headers=[(name.encode(), value.encode()) for name, value in asked.fields],
            )
        )
        try:
            answer = self._next()
            if isinstance(answer, wsproto.events.RejectConnection):
                body, more = b"", answer.has_body
                while more:
                    data = self._next()
                    assert isinstance(data, wsproto.events.RejectData)
                    body, more = body + data.data, not data.body_finished
                raise Denied(answer.status_code, body)
            assert isinstance(answer, wsproto.events.AcceptConnection), answer
        except BaseException:
            self.abandon()
            raise
        self.subprotocol = answer.subprotocol
        self.deflated = bool(answer.extensions)
        self.extensions = ", ".join(repr(extension) for extension in answer.extensions)

    def _send(self, event: wsproto.events.Event) -> None:
        data = self._connection.send(event)
        self.bytes_out += len(data)
        self._socket.sendall(data)

    def _next(self) -> wsproto.events.Event:
        while not self._events:
            data = self._socket.recv(1 << 16)
            self.bytes_in += len(data)
            try:
                self._connection.receive_data(data or None)
            except RemoteProtocolError as error:
                raise AssertionError(f"not WebSocket: {error}") from error
            self._events += self._connection.events()
        return self._events.pop(0)

    def send(self, data: Data) -> None:
        self._send(wsproto.events.Message(data=data))

    def send_fragments(self, fragments: Iterable[Data]) -> None:
        rest = iter(fragments)
        fragment = next(rest)
        for following in rest:
            self._send(wsproto.events.Message(data=fragment, message_finished=False))
            fragment = following
        self._send(wsproto.events.Message(data=fragment))

    def recv(self) -> Data:
        pieces: list[Any] = []
        while True:
            event = self._next()
            if isinstance(event, wsproto.events.Message):
                pieces.append(event.data)
                if event.message_finished:
                    return pieces[0][:0].join(pieces)  # type: ignore[no-any-return]
            elif isinstance(event, wsproto.events.Ping):
                self._send(event.response())
            elif isinstance(event, wsproto.events.CloseConnection):
                if self._connection.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                    self._send(event.response())
                raise Closed(event.code, event.reason)
            else:
                raise AssertionError(f"unexpected {event}")

    def ping(self, payload: bytes) -> None:
        self._send(wsproto.events.Ping(payload))
        assert self._next() == wsproto.events.Pong(payload)

    def close(self, code: int = 1000, reason: str = "") -> int:
        # wsproto leaves the code out only for this very object.
        wanted = wsproto.frame_protocol.CloseReason(code) if code == 1005 else code
        self._send(wsproto.events.CloseConnection(wanted, reason or None))
        answer = self._next()
        assert isinstance(answer, wsproto.events.CloseConnection), answer
        assert self._socket.recv(1) == b"", (
            "the server closes the connection first (RFC 6455, 7.1.1)"
        )
        return int(answer.code)

    def abandon(self) -> None:
        self._socket.close()


CLIENTS = {client.__name__.lower(): client for client in (Websockets, Aiohttp, Wsproto)}
