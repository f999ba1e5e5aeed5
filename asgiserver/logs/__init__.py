"""Logging in uvicorn's form, through the standard ``logging``.

Three loggers: ``asgiserver.error`` (everything about the server), ``asgiserver.access`` (a line for
each request) and ``asgiserver.asgi`` (messages, at level trace). Their parent ``asgiserver`` has
the handlers.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from ..config import Config
from ..errors import StartError
from .access_lines import (
    AccessRecord,
    AccessSink,
    access_files,
    access_sink,
    attach,
    log_access,
    log_lines,
)
from .forms import AccessFormatter, Formatter, wants_colors
from .handlers import MessageFile, StandardHandler, close_stream, file_handlers, open_to_append
from .loggers import TRACE, access, error, parent
from .setup import attach_handler, configure, hold, prepare_file, prepared

__all__ = [
    "TRACE", "AccessFormatter", "AccessRecord", "AccessSink", "Formatter", "MessageFile", "StandardHandler",
    "access", "access_sink", "attach", "close_files", "configure", "error", "error_stream", "hold",
    "log_access", "log_cut", "log_from_core", "log_lines", "reopen", "report", "say", "wants_colors",
]  # fmt: skip


# --- files, later on ---


def reopen() -> None:
    """Opens the log files of this process anew, by their names, for who has renamed them.

    Those of ``log_file`` and ``access_log_file``, and of handlers that ``log_config`` made. What
    cannot be opened is logged, and stays as it is. A supervisor calls it before its workers do: as
    root it makes the files that they could not make. Messages come first: who sees a line in the
    new access file knows that whatever that process says from now on is in the new message file.
    """
    for name, (config, path) in list(prepared.items()):
        with contextlib.suppress(StartError):  # It is found again below, or by the workers.
            prepare_file(config, name, path)
    for handler in file_handlers():
        if isinstance(handler, MessageFile):
            with _reported("--log-file", handler.baseFilename):
                handler.reopen()
        elif handler.mode == "a":
            close_stream(handler)
    for core, path in list(access_files.items()):
        with _reported("--access-log-file", path):
            descriptor = open_to_append(path)
            try:
                core.reopen_access_log(descriptor)
            except RuntimeError:  # It is closed.
                access_files.pop(core, None)
            finally:
                os.close(descriptor)


def close_files() -> None:
    """Closes the file of ``log_file``, until there is another message."""
    for handler in file_handlers():
        if isinstance(handler, MessageFile):
            handler.close_file()


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
    for handler in file_handlers():
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
    if not parent.hasHandlers():
        handler = StandardHandler("stderr")
        handler.setFormatter(Formatter())
        attach_handler(parent, handler)
    error.error("%s", problem, exc_info=problem.cause)
    if any(isinstance(handler, MessageFile) for handler in parent.handlers) and sys.stderr:
        print(f"ERROR:    {problem}", file=sys.stderr)  # Who started it looks there.
