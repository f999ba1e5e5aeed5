"""Tracebacks as the application's author wants them: without the frames of who imported it."""

import importlib
import os
from types import TracebackType

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_IMPORTLIB = os.path.dirname(os.path.abspath(importlib.__file__)) + os.sep


def _is_machinery(tb: TracebackType) -> bool:
    name = tb.tb_frame.f_code.co_filename
    return name.startswith(("<frozen importlib", _IMPORTLIB, _OURS))


def _trim(tb: TracebackType | None) -> TracebackType | None:
    kept = []
    while tb is not None:
        if not _is_machinery(tb):
            kept.append(tb)
        tb = tb.tb_next
    trimmed: TracebackType | None = None
    for tb in reversed(kept):
        trimmed = TracebackType(trimmed, tb.tb_frame, tb.tb_lasti, tb.tb_lineno)
    return trimmed


def trim(exception: BaseException) -> BaseException:
    """``exception`` itself; it and its causes lose the frames of importlib and of this package."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [exception]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _trim(one.__traceback__)
        todo += [one.__cause__, one.__context__]
    return exception
