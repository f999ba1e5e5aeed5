"""Where messages go: a standard stream, or a file that can be opened again."""

import contextlib
import logging
import os
import sys
from typing import IO, Any, Literal

from .loggers import access, asgi, error, parent


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
            self.baseFilename,
            "a",
            encoding=self.encoding,
            errors=self.errors,
            opener=open_to_append,
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
        new = open_to_append(self.baseFilename)
        try:
            os.dup2(new, self.opened().fileno(), inheritable=False)
        finally:
            os.close(new)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """What a full disk has no room for goes to standard error: a line, not logging's traceback."""
        problem = sys.exception()
        if not isinstance(problem, OSError) or sys.stderr is None:
            super().handleError(record)
            return
        with contextlib.suppress(OSError):
            text = f"{self.baseFilename}: {problem.strerror}: {self.format(record)}"
            print(text, file=sys.stderr)

    def close_file(self) -> None:
        """The next message opens it again."""
        close_stream(self)


def open_to_append(path: str, _flags: int = 0) -> int:
    """For appending: several processes may write to one file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    return os.open(path, flags, 0o644)


def file_handlers() -> list[logging.FileHandler]:
    """Those of the server's loggers that write to a file."""
    loggers = (logging.getLogger(), parent, error, access, asgi)
    found = {handler: None for logger in loggers for handler in logger.handlers}
    return [handler for handler in found if isinstance(handler, logging.FileHandler)]


def close_stream(handler: logging.FileHandler) -> None:
    """A FileHandler without a stream opens its file at the next message.

    What a full disk has not taken until now is lost: the handler has told of it.
    """
    handler.acquire()
    try:
        stream, handler.stream = handler.stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    finally:
        handler.release()
