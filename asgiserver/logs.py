"""Logging in uvicorn's form, through the standard ``logging``.

Three loggers: ``asgiserver.error`` (everything about the server), ``asgiserver.access`` (a line for
each request) and ``asgiserver.asgi`` (messages, at level trace). Their parent ``asgiserver`` has
the handlers.
"""

import contextlib
import http
import json
import logging
import logging.config
import os
import stat
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from . import options
from .config import Config
from .errors import StartError

if TYPE_CHECKING:
    from ._core import Server as Core

TRACE = 5

error = logging.getLogger("asgiserver.error")
access = logging.getLogger("asgiserver.access")
_parent = logging.getLogger("asgiserver")

AccessRecord = tuple[str, str, str, str, int]  # client, method, target, HTTP version, status
_ACCESS_FIELDS = 5
ACCESS_FORMAT = '%s - "%s %s HTTP/%s" %d'

# A file is read later, and by those who have several processes.
_FILE_FORMAT = "%(asctime)s [%(process)d] %(levelprefix)s %(message)s"

# What _prepare_file was last given, by the name of the option.
_prepared: "dict[str, tuple[Config, str]]" = {}
_access_files: "weakref.WeakKeyDictionary[Core, str]" = weakref.WeakKeyDictionary()

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
        if not isinstance(record.args, tuple) or len(record.args) != _ACCESS_FIELDS:
            return record.getMessage()  # A line that has its format (--access-log-format) already.
        client, method, target, version, status = record.args
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


class MessageFile(logging.FileHandler):
    """The handler of ``--log-file``."""

    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace", delay=True)

    def _open(self) -> Any:
        return open(
            self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=_open
        )

    def opened(self) -> IO[str]:
        """Its stream, open; the descriptor stays the same until ``close_file``."""
        self.acquire()
        try:
            if self.stream is None:
                self.stream = self._open()
            return self.stream
        finally:
            self.release()

    def reopen(self) -> None:
        """Opens the file anew, which may be another one by now. After an OSError it is as before."""
        new = _open(self.baseFilename)
        try:
            os.dup2(new, self.opened().fileno(), inheritable=False)
        finally:
            os.close(new)

    def close_file(self) -> None:
        """The next message opens it again."""
        _close_stream(self)


def _open(path: str, _flags: int = 0) -> int:
    """For appending: several processes may write to one file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    return os.open(path, flags, 0o644)


# --- set-up ---


def configure(config: Config) -> None:
    """Sets logging up as ``config`` says.

    Without ``log_config``, loggers to which the program gave handlers are left as they are. Raises
    StartError for a file that cannot be read or means nothing, or cannot be written.
    """
    logging.addLevelName(TRACE, "TRACE")
    _prepare_files(config)
    if config.log_config is not None:
        _load(config.log_config)
    else:
        _attach(_parent, _message_handler(config))
        handler = StandardHandler("stdout")
        handler.setFormatter(AccessFormatter(use_colors=config.use_colors))
        _attach(access, handler)
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


def _message_handler(config: Config) -> logging.Handler:
    if config.log_file is None:
        handler: logging.Handler = StandardHandler("stderr")
        handler.setFormatter(Formatter(use_colors=config.use_colors))
    else:
        handler = MessageFile(config.log_file)
        for present in _file_handlers():
            if isinstance(present, MessageFile) and present.baseFilename == handler.baseFilename:
                handler = present  # somebody may have its descriptor (error_stream)
        handler.setFormatter(Formatter(_FILE_FORMAT, use_colors=bool(config.use_colors)))
    return handler


def _attach(logger: logging.Logger, handler: logging.Handler) -> None:
    """In the place of a handler of ours. One of the program's stays, and stays alone, unless a file
    was asked for.
    """
    ours = [one for one in logger.handlers if isinstance(one, StandardHandler | MessageFile)]
    if len(logger.handlers) > len(ours) and not isinstance(handler, MessageFile):
        return
    for one in ours:
        logger.removeHandler(one)
        if one is not handler:
            one.close()
    logger.addHandler(handler)
    logger.propagate = False


def _prepare_files(config: Config) -> None:
    """Finds out whether the files can be written, while the process may still do what root may."""
    _prepared.clear()
    if config.log_file is not None:
        _prepare_file(config, "log_file", config.log_file)
    if (path := _access_path(config)) is not None:
        _prepare_file(config, "access_log_file", path)


def _prepare_file(config: Config, name: str, path: str) -> None:
    _prepared[name] = config, path
    option = options.BY_NAME[name]
    try:
        descriptor = _open(path)
        try:
            if os.geteuid() == 0 and stat.S_ISREG(os.fstat(descriptor).st_mode):
                _give_away(descriptor, config)
        finally:
            os.close(descriptor)
    except (OSError, LookupError) as problem:
        text = problem.strerror if isinstance(problem, OSError) else problem
        raise StartError(f"--{option.word} {path}: {text}") from None


def _give_away(descriptor: int, config: Config) -> None:
    """To those who write it, and open it again, when the process has become them."""
    import shutil  # noqa: PLC0415 (only root needs it)

    user, group = (
        int(name) if name and name.isdecimal() else name for name in (config.user, config.group)
    )
    if user is not None:
        shutil.chown(descriptor, user=user)
    if group is not None:
        shutil.chown(descriptor, group=group)


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


class AccessSink(NamedTuple):
    """Where the core is to send access lines, and in which form: its arguments."""

    target: int | Callable[[list[AccessRecord]], None] | Callable[[list[str]], None] | None
    format: str | None = None
    colors: bool = False
    path: str | None = None  # of the file that ``target`` is a fresh descriptor of


def attach(config: Config, make: Callable[..., "Core"]) -> "Core":
    """The core that ``make`` makes when it is given the arguments about the access log.

    ``reopen`` knows it from then on. Call after ``configure``. Raises StartError.
    """
    sink = access_sink(config)
    try:
        core = make(
            access_log=sink.target,
            access_log_format=sink.format,
            access_log_colors=sink.colors,
        )
    finally:
        if sink.path is not None and isinstance(sink.target, int):
            os.close(sink.target)  # The core has a duplicate.
    if sink.path is not None:
        _access_files[core] = sink.path
    return core


def access_sink(config: Config) -> AccessSink:
    """A file is written by the core, whatever else is set up. Otherwise the core writes to the
    standard output where nobody asked for anything else, and lines go through the logger where
    ``log_config``, a handler, a filter or a replaced ``sys.stdout`` wants them.
    """
    path = _access_path(config)
    if path is not None:
        try:
            colors = bool(config.use_colors)
            return AccessSink(_open(path), config.access_log_format, colors, path)
        except OSError as problem:
            raise StartError(f"--access-log-file {path}: {problem.strerror}") from None
    if not config.access_log or not access.isEnabledFor(logging.INFO):
        return AccessSink(None)
    descriptor = _plain_descriptor(config)
    if descriptor is not None:
        colors = wants_colors(sys.stdout, config.use_colors)
        return AccessSink(descriptor, config.access_log_format, colors)
    if config.access_log_format == "uvicorn":
        return AccessSink(log_access)
    return AccessSink(log_lines, config.access_log_format)


def _access_path(config: Config) -> str | None:
    """Of the access log's file, if there is one."""
    wanted = config.access_log and config.access_log_file != "-"
    return config.access_log_file if wanted else None


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


def log_lines(lines: list[str]) -> None:
    """Hands lines that have their format to the logger."""
    for line in lines:
        access.info("%s", line)


# --- files, later on ---


def reopen() -> None:
    """Opens the log files of this process anew, by their names, for who has renamed them.

    Those of ``log_file`` and ``access_log_file``, and of handlers that ``log_config`` made. What
    cannot be opened is logged, and stays as it is. A supervisor calls it before its workers do: as
    root it makes the files that they could not make.
    """
    for name, (config, path) in list(_prepared.items()):
        with contextlib.suppress(StartError):  # It is found again below, or by the workers.
            _prepare_file(config, name, path)
    for handler in _file_handlers():
        if isinstance(handler, MessageFile):
            with _reported("--log-file", handler.baseFilename):
                handler.reopen()
        elif handler.mode == "a":
            _close_stream(handler)
    for core, path in list(_access_files.items()):
        with _reported("--access-log-file", path):
            descriptor = _open(path)
            try:
                core.reopen_access_log(descriptor)
            except RuntimeError:  # It is closed.
                _access_files.pop(core, None)
            finally:
                os.close(descriptor)


def close_files() -> None:
    """Closes the file of ``log_file``, until there is another message."""
    for handler in _file_handlers():
        if isinstance(handler, MessageFile):
            handler.close_file()


def _file_handlers() -> list[logging.FileHandler]:
    loggers = (logging.getLogger(), _parent, error, access, logging.getLogger("asgiserver.asgi"))
    found = {handler: None for logger in loggers for handler in logger.handlers}
    return [handler for handler in found if isinstance(handler, logging.FileHandler)]


def _close_stream(handler: logging.FileHandler) -> None:
    """A FileHandler without a stream opens its file at the next message."""
    handler.acquire()
    try:
        if handler.stream is not None:
            handler.stream.close()
            handler.stream = None
    finally:
        handler.release()


@contextmanager
def _reported(option: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        error.error("Cannot reopen %s %s: %s", option, path, problem.strerror)


# --- what the core says ---


def log_from_core(level: str, message: str, exception: BaseException | None) -> None:
    """What the core wants logged."""
    error.log(getattr(logging, level.upper()), "%s", message, exc_info=exception)


def error_stream() -> IO[str]:
    """Where a process that dies can write to, without Python's help."""
    for handler in _file_handlers():
        if isinstance(handler, MessageFile):
            return handler.opened()
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
        handler = StandardHandler("stderr")
        handler.setFormatter(Formatter())
        _attach(_parent, handler)
    error.error("%s", problem, exc_info=problem.cause)
    if any(isinstance(handler, MessageFile) for handler in _parent.handlers) and sys.stderr:
        print(f"ERROR:    {problem}", file=sys.stderr)  # Who started it looks there.
