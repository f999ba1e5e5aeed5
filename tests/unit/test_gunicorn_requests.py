"""asgiserver.gunicorn.requests: what hooks and loggers see of a request, and who writes the access log."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from asgiserver.gunicorn import requests
from asgiserver.gunicorn.requests import core_access_log

ENVIRON = {
    "REQUEST_METHOD": "GET",
    "RAW_URI": "/a%20b?c=d",
    "QUERY_STRING": "c=d",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "10.0.0.1",
    "REMOTE_PORT": "5000",
    "HTTP_X_A": "1",
    "wsgi.url_scheme": "http",
}
SCOPE = {
    "type": "http",
    "method": "GET",
    "scheme": "http",
    "http_version": "1.1",
    "path": "/a b",
    "raw_path": b"/a%20b",
    "query_string": b"c=d",
    "headers": [(b"x-a", b"1")],
    "client": ("10.0.0.1", 5000),
    "server": ("10.0.0.2", 80),
}


@pytest.fixture
def hook() -> Mock:
    return Mock()


def watched(hook: Mock) -> requests.Watch:
    return requests.Watch(Mock(), None, hook, None)


def seen(hook: Mock) -> tuple[requests.Request, requests.Response]:
    (_, request, _, response), _ = hook.call_args
    return request, response


@pytest.mark.parametrize("closes", [True, False])
def test_bytes_of_write_and_of_the_iterable_are_counted(hook: Mock, closes: bool) -> None:
    closed: list[None] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"cde", b"f"])

        if closes:

            def close(self) -> None:
                assert not hook.called  # it is a part of the request
                closed.append(None)

    def app(environ: Any, start_response: Any) -> Body:
        start_response("200 OK", [("X-A", "b")])(b"ab")
        return Body()

    written: list[bytes] = []
    body = requests._watched_wsgi(app, watched(hook))(ENVIRON, lambda *_: written.append)
    assert list(body) == [b"cde", b"f"]
    assert not hook.called
    body.close()
    assert closed == [None] * closes
    request, response = seen(hook)
    assert (request.path, request.query, request.peer_addr) == ("/a%20b", "c=d", ("10.0.0.1", 5000))
    assert request.headers == [("X-A", "1")]
    assert (response.status_code, response.sent, written) == (200, 6, [b"ab"])


def test_bytes_of_a_file_are_counted(hook: Mock, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": str(path)})

    async def send(_: Any) -> None: ...

    asyncio.run(requests._watched_asgi(app, watched(hook))(dict(SCOPE), Mock(), send))  # type: ignore[arg-type]
    _, response = seen(hook)
    assert (response.status_code, response.sent) == (200, 5)


def test_the_stream_of_errors() -> None:
    log = logging.Logger("errors")
    log.addHandler(logging.StreamHandler(stream := io.StringIO()))
    log.addHandler(logging.NullHandler())
    errors = requests._Errors(log)
    assert errors.writable()
    print("told", file=errors)
    assert stream.getvalue() == "told\n"


@pytest.mark.parametrize(
    ("wanted", "form"),
    [
        (True, "%(h)s %(m)s"),
        (False, "%(h)s %(Z)s"),  # there is no such atom: gunicorn's logger has its own words for it
        (False, "common"),
        (False, "%(U)s"),
    ],
)
def test_who_writes_the_access_log(wanted: bool, form: str) -> None:
    cfg = Config()
    cfg.set("accesslog", "-")
    cfg.set("access_log_format", form)
    assert bool(core_access_log(cfg, Logger(cfg))) == wanted
