"""Answers of one turn of the loop leave together (csrc/net/late.c); none waits for a handler that blocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.client import RawClient
from support.server import Server

Factory = Callable[..., Server]
MANY = 70  # more answers than one turn can keep


@pytest.fixture
def server(serve: Factory, backend: Any) -> Server:
    return serve(f"blocking:{backend.interface}", "--lifespan", "off", **backend.options)


@contextmanager
def blocked(server: Server, client: RawClient, path: Path) -> Iterator[None]:
    """The server runs a handler that waits for the end of this block."""
    os.mkfifo(path)
    client.get(f"/block?{quote(str(path))}")
    pipe = os.open(path, os.O_WRONLY)  # returns when the handler has opened it
    try:
        yield
    finally:
        os.write(pipe, b"blocked")
        os.close(pipe)


@pytest.mark.parametrize("target", ["/", "/list"])
@pytest.mark.parametrize("count", [1, 3, MANY])
def test_a_handler_that_blocks_holds_up_no_answer(
    server: Server, tmp_path: Path, target: str, count: int
) -> None:
    """All ask while the server is busy, so that they are served in one turn: the answers that were made before
    a handler blocks again arrive while it does."""
    with ExitStack() as stack:
        first, *others, last = [stack.enter_context(server.raw()) for _ in range(count + 2)]
        pipe = tmp_path / "second"
        os.mkfifo(pipe)
        with blocked(server, first, tmp_path / "first"):
            for client in others:
                client.get(target)
            last.get(f"/block?{quote(str(pipe))}")
        writer = os.open(pipe, os.O_WRONLY)  # the last handler runs
        for client in others:
            assert client.recv_response().text == "quick"
        os.write(writer, b"over")
        os.close(writer)
        assert last.recv_response().text == "over"
        assert first.recv_response().text == "blocked"
        for client in others:
            client.shutdown()
            assert client.recv_all() == b""  # one answer, once


def test_answers_of_a_client_that_left(server: Server, tmp_path: Path) -> None:
    """It has gone when its answer is written: nobody else notices."""
    with server.raw() as first, server.raw() as other:
        gone = [server.raw() for _ in range(5)]
        with blocked(server, first, tmp_path / "first"):
            for client in gone:
                client.get("/")
                client.reset()
            other.get("/")
        assert other.recv_response().text == "quick"
        assert first.recv_response().text == "blocked"
    assert server.get("/") == "quick"
