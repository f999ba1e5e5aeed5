"""Stands between a front end and the server, passes everything on, and keeps what went through each connection."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Recorded:
    """One connection of a front end. Both streams only grow."""

    sent: bytearray = field(default_factory=bytearray)  # by the front end
    answered: bytearray = field(default_factory=bytearray)  # by the server
    ended: bool = False


class Relay:
    """Runs on a thread of its own, on a port that the kernel chose."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self.connections: list[Recorded] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port: int = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> int:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        record = Recorded()
        self.connections.append(record)
        upstream, upstream_writer = await asyncio.open_connection(*self._server)
        try:
            await asyncio.gather(
                self._pump(reader, upstream_writer, record.sent),
                self._pump(upstream, writer, record.answered),
            )
        except (OSError, asyncio.CancelledError):
            pass  # One side has gone: so does the other.
        finally:
            record.ended = True
            for one in (writer, upstream_writer):
                one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray
    ) -> None:
        while data := await reader.read(65536):
            record += data
            writer.write(data)
            await writer.drain()
        if not writer.is_closing():
            writer.write_eof()
