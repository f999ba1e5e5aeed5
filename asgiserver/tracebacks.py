"""Tracebacks as the application's author wants them: without the frames of who imported it."""

import importlib
import os
from collections.abc import Iterator
from itertools import takewhile
from types import TracebackType

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_IMPORTLIB = os.path.dirname(os.path.abspath(importlib.__file__)) + os.sep


def _is_machinery(tb: TracebackType) -> bool:
    name = tb.tb_frame.f_code.co_filename
    return name.startswith(("<frozen importlib", _IMPORTLIB, _OURS))


def _frames(tb: TracebackType | None) -> Iterator[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def _made_of(kept: list[TracebackType]) -> TracebackType | None:
    trimmed: TracebackType | None = None
    for tb in reversed(kept):
        trimmed = TracebackType(trimmed, tb.tb_frame, tb.tb_lasti, tb.tb_lineno)
    return trimmed


def end_at_handler(exception: BaseException) -> BaseException:
    """``exception`` itself, raised by a signal handler of ours: its traceback ends where the handler
    came in, with the code that was interrupted."""
    interrupted = takewhile(lambda tb: not _is_machinery(tb), _frames(exception.__traceback__))
    exception.__traceback__ = _made_of(list(interrupted))
    return exception


def trim(exception: BaseException) -> BaseException:
    """``exception`` itself; it and its causes lose the frames of importlib and of this package."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [exception]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        kept = [tb for tb in _frames(one.__traceback__) if not _is_machinery(tb)]
        one.__traceback__ = _made_of(kept)
        todo += [one.__cause__, one.__context__]
    return exception
