"""Setting logging up as a configuration says, and putting it back."""

import json
import logging
import logging.config
import os
import stat
import threading
from collections.abc import Callable
from typing import Any

from .. import options
from ..config import Config
from ..errors import StartError
from .access_lines import access_path
from .forms import AccessFormatter, Formatter
from .handlers import MessageFile, StandardHandler, file_handlers, open_to_append
from .loggers import TRACE, access, parent

# A file is read later, and by those who have several processes.
_FILE_FORMAT = "%(asctime)s [%(process)d] %(levelprefix)s %(message)s"

# What prepare_file was last given, by the name of the option.
prepared: "dict[str, tuple[Config, str]]" = {}


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
        attach_handler(parent, _message_handler(config))
        handler = StandardHandler("stdout")
        handler.setFormatter(AccessFormatter(use_colors=config.use_colors))
        attach_handler(access, handler)
    level = config.log_level or (None if config.log_config is not None else "info")
    if level is not None:
        parent.setLevel(TRACE if level == "trace" else level.upper())


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
                    for logger in (parent, access)
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
            if handler not in handlers and isinstance(handler, StandardHandler | MessageFile):
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
        for present in file_handlers():
            if isinstance(present, MessageFile) and present.baseFilename == handler.baseFilename:
                handler = present  # somebody may have its descriptor (error_stream)
        handler.setFormatter(Formatter(_FILE_FORMAT, use_colors=bool(config.use_colors)))
    return handler


def attach_handler(logger: logging.Logger, handler: logging.Handler) -> None:
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
    prepared.clear()
    if config.log_file is not None:
        prepare_file(config, "log_file", config.log_file)
    if (path := access_path(config)) is not None:
        prepare_file(config, "access_log_file", path)


def prepare_file(config: Config, name: str, path: str) -> None:
    prepared[name] = config, path
    option = options.BY_NAME[name]
    try:
        descriptor = open_to_append(path)
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
