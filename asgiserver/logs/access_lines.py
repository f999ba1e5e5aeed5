"""The access log: whether the core writes it, or the logger ``asgiserver.access``."""

import logging
import os
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..config import Config
from ..errors import StartError
from .forms import wants_colors
from .handlers import StandardHandler, open_to_append
from .loggers import access

if TYPE_CHECKING:
    from .._core import Server as Core

AccessRecord = tuple[str, str, str, str, int]  # client, method, target, HTTP version, status
ACCESS_FORMAT = '%s - "%s %s HTTP/%s" %d'

# The file that a core writes, to be opened again.
access_files: "weakref.WeakKeyDictionary[Core, str]" = weakref.WeakKeyDictionary()


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
        access_files[core] = sink.path
    return core


def access_sink(config: Config) -> AccessSink:
    """A file is written by the core, whatever else is set up. Otherwise the core writes to the
    standard output where nobody asked for anything else, and lines go through the logger where
    ``log_config``, a handler, a filter or a replaced ``sys.stdout`` wants them.
    """
    path = access_path(config)
    if path is not None:
        try:
            colors = bool(config.use_colors)
            return AccessSink(open_to_append(path), config.access_log_format, colors, path)
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


def access_path(config: Config) -> str | None:
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
