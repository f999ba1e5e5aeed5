"""What gunicorn's settings want done around each request: hooks and loggers written in Python.

The application is wrapped where a setting asks for it, and only then: a wrapper costs a multiple of
what the core needs for a request.
"""

import io
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http.wsgi import FileWrapper

from .. import _core
from ..interface import ASGI3Application, Receive, Scope, Send
from .settings import Settings, Values, is_default

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
_FAILED = "500 Internal Server Error"


@dataclass(slots=True)
class Request:
    """A request as hooks and ``Logger.access`` know it. Names of ``headers`` are in upper case."""

    method: str
    uri: str
    path: str
    query: str
    version: tuple[int, int]
    headers: list[tuple[str, str]]
    scheme: str
    remote_addr: tuple[str, int] | str
    trailers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def peer_addr(self) -> tuple[str, int] | str:
        return self.remote_addr


@dataclass(slots=True)
class Response:
    """An answer, so too. ``sent`` is bytes of its body."""

    status: str | int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    bodiless: bool = False

    @property
    def status_code(self) -> int | None:
        return None if self.status is None else int(str(self.status).split(maxsplit=1)[0])

    def begin(self, status: str | int, headers: list[tuple[str, str]], method: str) -> None:
        self.status, self.headers = status, headers
        code = self.status_code
        self.bodiless = method == "HEAD" or code in (204, 304)

    def count(self, size: int) -> None:
        if not self.bodiless:
            self.sent += size


@dataclass(frozen=True, slots=True)
class Watch:
    """Who wants to be told of requests; None: nobody."""

    worker: Any
    before: Callable[[Any, Request], None] | None
    after: Callable[[Any, Request, dict[str, Any], Response], None] | None
    access: Callable[[Response, Request, dict[str, Any], timedelta], None] | None

    def __bool__(self) -> bool:
        return any(one is not None for one in (self.before, self.after, self.access))

    def begins(self, request: Request) -> float:
        if self.before is not None:
            self.before(self.worker, request)
        return time.monotonic()

    def answered(
        self, response: Response, request: Request, environ: dict[str, Any], begun: float
    ) -> None:
        if self.access is not None:
            self.access(response, request, environ, timedelta(seconds=time.monotonic() - begun))

    def ended(self, response: Response, request: Request, environ: dict[str, Any]) -> None:
        if self.after is None:
            return
        try:
            self.after(self.worker, request, environ, response)
        except Exception:
            self.worker.log.exception("Exception in post_request hook")


def core_access_log(cfg: Settings, log: Any) -> Values:
    """Options by which the core writes the lines that gunicorn's logger would write. Empty where
    that is not the same: another logger, handler, filter, place or format.
    """
    handlers = log.access_log.handlers
    plain = (
        type(log) is Logger
        and cfg.accesslog
        and not (cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or cfg.syslog)
        and [type(one) for one in handlers] in ([logging.StreamHandler], [logging.FileHandler])
        and not (log.access_log.filters or handlers[0].filters or log.access_log.propagate)
    )
    to_file = cfg.accesslog != "-"
    if not plain or (to_file and not os.access(cfg.accesslog, os.W_OK)):
        return {}
    if "%(" not in cfg.access_log_format or "%(U)" in cfg.access_log_format:
        return {}  # The name of one of our presets; a path that gunicorn decodes, and we do not.
    try:
        _core.check_access_log_format(cfg.access_log_format)
    except ValueError:
        return {}
    return {
        "access_log": True,
        "access_log_file": cfg.accesslog if to_file else None,
        # No bytes are "-" for the core, as for Apache, and 0 for gunicorn.
        "access_log_format": cfg.access_log_format.replace("%(b)s", "%(B)s"),
    }


def watch(worker: Any) -> Watch:
    """As the worker's settings say."""
    cfg, log = worker.cfg, worker.log
    # gunicorn's own pre_request logs, at level debug.
    quiet = is_default(cfg, "pre_request") and not log.error_log.isEnabledFor(logging.DEBUG)
    return Watch(
        worker,
        before=None if quiet else cfg.pre_request,
        after=None if is_default(cfg, "post_request") else cfg.post_request,
        access=log.access if not worker.config.access_log and _logs_access(log) else None,
    )


def _logs_access(log: Any) -> bool:
    """Its ``access()`` would do something."""
    return type(log).access is not Logger.access or log.access_log_enabled


# --- WSGI ---


class _Errors(io.TextIOBase):
    """``wsgi.errors``: what is written to it goes where the error log goes."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for handler in self._log.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.stream.write(text)
                handler.flush()
        return len(text)


def adapt_wsgi(app: Any, worker: Any) -> Any:
    """``app`` as the settings want it served."""
    cfg, log = worker.cfg, worker.log
    changes: dict[str, Any] = {}
    if cfg.errorlog != "-" or len(log.error_log.handlers) != 1:
        changes["wsgi.errors"] = _Errors(log.error_log)
    if not cfg.sendfile:
        changes["wsgi.file_wrapper"] = FileWrapper
    if changes:
        app = _with_environ(app, changes)
    watching = watch(worker)
    return _watched_wsgi(app, watching) if watching else app


def _with_environ(app: Any, changes: dict[str, Any]) -> Any:
    def changed(environ: dict[str, Any], start_response: Any) -> Any:
        environ.update(changes)
        return app(environ, start_response)

    return changed


def _watched_wsgi(app: Any, watching: Watch) -> Any:
    def watched(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request, response = _request_of_environ(environ), Response()
        begun = watching.begins(request)

        def start(
            status: str, headers: list[tuple[str, str]], *exc_info: ExcInfo | None
        ) -> Callable[[bytes], None]:
            write = start_response(status, headers, *exc_info)
            response.begin(status, headers, request.method)

            def counted(data: bytes) -> None:
                write(data)
                response.count(len(data))

            return counted

        def end(close: Callable[[], None] | None) -> None:
            watching.answered(response, request, environ, begun)
            try:
                if close is not None:
                    close()
            finally:
                watching.ended(response, request, environ)

        try:
            body = app(environ, start)
        except BaseException:
            response.status = response.status or _FAILED
            end(None)
            raise
        return _Body(body, response, end)

    return watched


class _Body:
    """The application's iterable, whose bytes are counted."""

    def __init__(
        self,
        body: Iterable[bytes],
        response: Response,
        end: Callable[[Callable[[], None] | None], None],
    ) -> None:
        self._body, self._response, self._end = body, response, end
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._pieces is None:
            self._pieces = iter(self._body)
        piece = next(self._pieces)
        self._response.count(len(piece))
        return piece

    def close(self) -> None:
        self._end(getattr(self._body, "close", None))


def _request_of_environ(environ: dict[str, Any]) -> Request:
    headers = [
        (name.removeprefix("HTTP_").replace("_", "-"), value)
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
    ]
    client, port = environ["REMOTE_ADDR"], environ.get("REMOTE_PORT")
    uri = environ["RAW_URI"]
    return Request(
        method=environ["REQUEST_METHOD"],
        uri=uri,
        path=uri.partition("?")[0],
        query=environ["QUERY_STRING"],
        version=_version(environ["SERVER_PROTOCOL"].removeprefix("HTTP/")),
        headers=headers,
        scheme=environ["wsgi.url_scheme"],
        remote_addr=(client, int(port)) if port is not None else client,
    )


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


# --- ASGI ---


def adapt_asgi(app: ASGI3Application, worker: Any) -> ASGI3Application:
    """``app`` as the settings want it served."""
    cfg = worker.cfg
    if cfg.root_path:
        app = _mounted(app, cfg.root_path)
    if not cfg.sendfile:
        app = _without_sendfile(app)
    watching = watch(worker)
    return _watched_asgi(app, watching) if watching else app


def _mounted(app: Any, root_path: str) -> ASGI3Application:
    """gunicorn leaves the path as it came, where our option puts the prefix before it."""

    def mounted(scope: Scope, receive: Receive, send: Send) -> Any:
        scope["root_path"] = root_path
        return app(scope, receive, send)

    return mounted


def _without_sendfile(app: Any) -> ASGI3Application:
    def plain(scope: Scope, receive: Receive, send: Send) -> Any:
        scope.get("extensions", {}).pop("http.response.pathsend", None)
        return app(scope, receive, send)

    return plain


def _watched_asgi(app: ASGI3Application, watching: Watch) -> ASGI3Application:
    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request, response = _request_of_scope(scope), Response()
        environ = _environ(request)
        begun = watching.begins(request)

        async def counted(message: dict[str, Any]) -> None:
            await send(message)
            _note(message, response, request.method)

        try:
            await app(scope, receive, counted)
        finally:
            if response.status is None:
                response.status = 500
            watching.answered(response, request, environ, begun)
            watching.ended(response, request, environ)

    return watched


def _note(message: dict[str, Any], response: Response, method: str) -> None:
    match message["type"]:
        case "http.response.start":
            response.begin(message["status"], _texts(message.get("headers", ())), method)
        case "http.response.body":
            response.count(len(message.get("body", b"")))
        case "http.response.pathsend":
            response.count(os.path.getsize(message["path"]))


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [
        (bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers
    ]


def _request_of_scope(scope: Scope) -> Request:
    path = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    client = scope.get("client")
    return Request(
        method=scope["method"],
        uri=f"{path}?{query}" if query else path,
        path=scope["path"],
        query=query,
        version=_version(scope["http_version"]),
        headers=[(name.upper(), value) for name, value in _texts(scope["headers"])],
        scheme=scope["scheme"],
        remote_addr=(client[0], client[1]) if client else "",
    )


def _environ(request: Request) -> dict[str, Any]:
    """As much of a WSGI environ as loggers ask for."""
    client = request.remote_addr
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "RAW_URI": request.uri,
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "SERVER_PROTOCOL": f"HTTP/{request.version[0]}.{request.version[1]}",
        "REMOTE_ADDR": client[0] if isinstance(client, tuple) else client,
    }
    for name, value in request.headers:
        environ["HTTP_" + name.replace("-", "_")] = value
    return environ
