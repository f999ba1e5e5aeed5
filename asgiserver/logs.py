"""Logging in uvicorn's form, through the standard ``logging``.

Three loggers: ``asgiserver.error`` (everything about the server), ``asgiserver.access`` (a line for
each request) and ``asgiserver.asgi`` (messages, at level trace). Their parent ``asgiserver`` has
the handlers.
"""

import http
import json
import logging
import logging.config
import os
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, Literal

from .config import Config
from .errors import StartError

TRACE = 5

error = logging.getLogger("asgiserver.error")
access = logging.getLogger("asgiserver.access")
_parent = logging.getLogger("asgiserver")

AccessRecord = tuple[str, str, str, str, int]  # client, method, target, HTTP version, status
ACCESS_FORMAT = '%s - "%s %s HTTP/%s" %d'

_COLORS = {
    TRACE: "34",
    logging.DEBUG: "36",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "91",
}
_STATUS_COLORS = {1: "97", 2: "32", 3: "33", 4: "31", 5: "91"}


def _paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def wants_colors(stream: IO[str] | None, chosen: bool | None) -> bool:
    """``chosen``, or whether ``stream`` is a terminal with colours, unless NO_COLOR is set."""
    if chosen is not None:
        return chosen
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream is not None and stream.isatty()


class Formatter(logging.Formatter):
    """Knows ``%(levelprefix)s``: the level's name, a colon, and spaces up to a fixed width."""

    stream_name: Literal["stdout", "stderr"] = "stderr"

    def __init__(
        self,
        fmt: str | None = "%(levelprefix)s %(message)s",
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        self.colors = wants_colors(getattr(sys, self.stream_name), use_colors)
        super().__init__(fmt, datefmt, style)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        name = record.levelname
        shown = _paint(name, _COLORS.get(record.levelno, "0")) if self.colors else name
        record.levelprefix = f"{shown}:{' ' * (8 - len(name))}"
        return super().formatMessage(record)


class AccessFormatter(Formatter):
    """Knows also ``%(client_addr)s``, ``%(request_line)s`` and ``%(status_code)s`` of an access
    record.
    """

    stream_name = "stdout"

    def __init__(
        self,
        fmt: str | None = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        super().__init__(fmt, datefmt, style, use_colors)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        client, method, target, version, status = record.args  # type: ignore[misc]
        line, answer = f"{method} {target} HTTP/{version}", _status_text(int(str(status)))
        if self.colors:
            line = _paint(line, "1")
            answer = _paint(answer, _STATUS_COLORS.get(int(str(status)) // 100, "0"))
        record.client_addr, record.request_line, record.status_code = client, line, answer
        return super().formatMessage(record)


def _status_text(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} "


class StandardHandler(logging.StreamHandler[Any]):
    """Writes to what ``sys.stdout`` or ``sys.stderr`` is at that moment."""

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        logging.Handler.__init__(self)
        self.stream_name = name

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is not None:  # as it is in a process started with the descriptor closed
            super().emit(record)

    @property
    def stream(self) -> Any:
        return getattr(sys, self.stream_name)

    @stream.setter
    def stream(self, _value: Any) -> None:
        raise AttributeError("the stream is looked up by its name")


# --- set-up ---


def configure(config: Config) -> None:
    """Sets logging up as ``config`` says.

    Without ``log_config``, loggers to which the program gave handlers are left as they are. Raises
    StartError for a file that cannot be read or means nothing.
    """
    logging.addLevelName(TRACE, "TRACE")
    if config.log_config is not None:
        _load(config.log_config)
    else:
        _attach(_parent, "stderr", Formatter(use_colors=config.use_colors))
        _attach(access, "stdout", AccessFormatter(use_colors=config.use_colors))
    level = config.log_level or (None if config.log_config is not None else "info")
    if level is not None:
        _parent.setLevel(TRACE if level == "trace" else level.upper())


class _Hold:
    """The loggers as the program left them, for as long as a server inside of it has set them up:
    from the first of several that run at a time to the last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers = 0
        self._before: list[tuple[logging.Logger, list[logging.Handler], int, bool]] = []

    def take(self) -> None:
        """To be called before ``configure``."""
        with self._lock:
            self._servers += 1
            if self._servers == 1:
                self._before = [
                    (logger, list(logger.handlers), logger.level, logger.propagate)
                    for logger in (_parent, access)
                ]

    def release(self) -> None:
        """To be called in the end."""
        with self._lock:
            self._servers -= 1
            if self._servers == 0:
                for before in self._before:
                    self._restore(*before)

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_error: object) -> None:
        self.release()

    @staticmethod
    def _restore(
        logger: logging.Logger, handlers: list[logging.Handler], level: int, propagate: bool
    ) -> None:
        for handler in list(logger.handlers):
            if handler not in handlers and type(handler).__module__ == __name__:
                logger.removeHandler(handler)
                handler.close()
        logger.setLevel(level)
        logger.propagate = propagate


hold = _Hold()


def _attach(
    logger: logging.Logger, stream: Literal["stdout", "stderr"], formatter: Formatter
) -> None:
    ours = [handler for handler in logger.handlers if isinstance(handler, StandardHandler)]
    if logger.handlers and not ours:
        return
    for handler in ours:
        logger.removeHandler(handler)
    added = StandardHandler(stream)
    added.setFormatter(formatter)
    logger.addHandler(added)
    logger.propagate = False


def _load(source: Any) -> None:
    if not isinstance(source, str):
        _apply(lambda: logging.config.dictConfig(dict(source)), "log_config")
        return
    name = f"--log-config {source}"
    if not os.path.isfile(source):
        raise StartError(f"{name}: there is no such file.")
    if source.endswith((".json", ".yaml", ".yml")):
        _apply(lambda: logging.config.dictConfig(_read(source)), name)
    else:
        _apply(lambda: logging.config.fileConfig(source, disable_existing_loggers=False), name)


def _read(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        if path.endswith(".json"):
            return json.load(file)
        try:
            import yaml  # noqa: PLC0415 (optional)
        except ImportError:
            raise StartError(f"--log-config {path} needs PyYAML: pip install PyYAML") from None
        try:
            return yaml.safe_load(file)
        except yaml.YAMLError as problem:
            raise ValueError(" ".join(str(problem).split())) from None


def _apply(action: Callable[[], None], name: str) -> None:
    try:
        action()
    except StartError:
        raise
    except Exception as problem:  # A configuration can run any code.
        because = f" ({problem.__cause__})" if problem.__cause__ else ""
        raise StartError(f"{name}: {type(problem).__name__}: {problem}{because}") from None


# --- access lines ---


def access_sink(config: Config) -> tuple[int | Callable[[list[AccessRecord]], None] | None, bool]:
    """Where the core is to send access lines, and whether in colours. Call after ``configure``.

    A descriptor (the core formats and writes them in batches) where nobody asked for anything else;
    a function that hands them to the logger where ``log_config``, a handler, a filter or a replaced
    ``sys.stdout`` wants them; None when they are off.
    """
    if not config.access_log or not access.isEnabledFor(logging.INFO):
        return None, False
    descriptor = _plain_descriptor(config)
    if descriptor is None:
        return log_access, False
    return descriptor, wants_colors(sys.stdout, config.use_colors)


def _plain_descriptor(config: Config) -> int | None:
    if config.log_config is not None or access.filters or access.propagate:
        return None
    if len(access.handlers) != 1 or type(access.handlers[0]) is not StandardHandler:
        return None
    if access.handlers[0].filters or sys.stdout is not sys.__stdout__ or sys.stdout is None:
        return None
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError):
        return None


def log_access(records: list[AccessRecord]) -> None:
    """Hands access records to the logger, with arguments in uvicorn's order."""
    for record in records:
        access.info(ACCESS_FORMAT, *record)


def log_from_core(level: str, message: str, exception: BaseException | None) -> None:
    """What the core wants logged."""
    error.log(getattr(logging, level.upper()), "%s", message, exc_info=exception)


def reopen() -> None:
    """Opens the log files of this process again, after they were moved away."""


def error_stream() -> IO[str]:
    """Where a process that dies can write to, without Python's help."""
    return sys.__stderr__ or sys.stderr


# --- what several parts say ---


def say(config: Config, message: str, *args: object) -> None:
    """A line about starting or stopping."""
    if not config.quiet:
        error.info(message, *args)


def log_cut(count: int, seconds: float, *, asked: bool) -> None:
    """Says that ``count`` requests were cut, because someone asked or the grace time was over."""
    if count:
        why = "as asked for" if asked else f"that did not end within {seconds:g} s"
        error.warning("Cut requests %s: %d", why, count)


def report(problem: StartError) -> None:
    """Why the server does not start. Works before ``configure`` too, and after it failed."""
    if not _parent.hasHandlers():
        _attach(_parent, "stderr", Formatter())
    error.error("%s", problem, exc_info=problem.cause)
