"""How lines look: uvicorn's form, with colours on a terminal."""

import http
import logging
import os
import sys
from typing import IO, Literal

from .loggers import TRACE

_ACCESS_FIELDS = 5  # client, method, target, HTTP version, status

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
