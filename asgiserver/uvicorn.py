"""uvicorn's ``run``, ``Config`` and ``Server``: ``import asgiserver.uvicorn as uvicorn``.

The same names for the same things. What has no meaning here is refused by its name, unless its
value asks for what is done anyway. What is left out has this server's default.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from configparser import RawConfigParser
from contextlib import contextmanager
from dataclasses import dataclass, fields
from socket import socket
from typing import Any, TypeAlias

from . import config, logs, options, server
from .running import run_in_program
from .signatures import settings_of

__all__ = ["Config", "Server", "run"]

Path: TypeAlias = str | os.PathLike[str]

# The default of log_config. None, uvicorn's word for it, leaves logging as the program has set it up.
_OUR_LOGGING = ""
_LOGGING_AS_IT_IS = {"version": 1, "incremental": True}

# What uvicorn reads from the environment also where a program sets it up.
_WORKERS = options.BY_NAME["workers"].fallback
_FORWARDED_ALLOW_IPS = options.BY_NAME["forwarded_allow_ips"].fallback

_LEVELS = {
    logs.TRACE: "trace",
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}


@dataclass
class Config:
    """uvicorn's settings. Raises TypeError or ValueError, naming the setting, for one that has no
    meaning here and for a value out of its range.
    """

    app: Callable[..., Any] | str
    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    fd: int | None = None
    loop: str = "auto"
    http: Any = "auto"
    http2: bool = False
    ws: Any = "auto"
    ws_max_size: int = 16 * 1024 * 1024
    ws_max_queue: int = 32
    ws_ping_interval: float | None = 20.0
    ws_ping_timeout: float | None = 20.0
    ws_per_message_deflate: bool = True
    lifespan: str = "auto"
    env_file: Path | None = None
    log_config: Mapping[str, Any] | Path | None = _OUR_LOGGING
    log_level: str | int | None = None
    access_log: bool = True
    use_colors: bool | None = None
    interface: str = "auto"
    reload: bool = False
    reload_dirs: list[str] | str | None = None
    reload_delay: float = 0.25
    reload_includes: list[str] | str | None = None
    reload_excludes: list[str] | str | None = None
    workers: int | None = None
    proxy_headers: bool = True
    server_header: bool = True
    date_header: bool = True
    forwarded_allow_ips: list[str] | str | None = None
    root_path: str = ""
    limit_concurrency: int | None = None
    limit_max_requests: int | None = None
    limit_max_requests_jitter: int = 0
    backlog: int = 2048
    timeout_keep_alive: float = 5
    timeout_notify: int = 30
    timeout_graceful_shutdown: float | None = None
    timeout_worker_healthcheck: float = 5
    callback_notify: Callable[..., Any] | None = None
    ssl_keyfile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile_password: str | None = None
    ssl_version: int = 17
    ssl_cert_reqs: int = 0
    ssl_ca_certs: Path | None = None
    ssl_ciphers: str | None = None
    ssl_context_factory: Callable[..., Any] | None = None
    headers: list[tuple[str, str]] | None = None
    factory: bool = False
    h11_max_incomplete_event_size: int | None = None
    reset_contextvars: bool = False
    app_dir: str | None = None

    def __post_init__(self) -> None:
        if self.forwarded_allow_ips is None:
            self.forwarded_allow_ips = os.environ.get(_FORWARDED_ALLOW_IPS)
        self.translated()

    def translated(self) -> config.Config:
        """This server's own configuration. Raises TypeError or ValueError."""
        settings: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in _REFUSED:
                _refuse(item.name, value, item.default)
            elif item.name == "log_config":
                settings |= _log_config(value)
            elif item.name in _TRANSLATED and (value is not None or item.default is not None):
                name, translate = _TRANSLATED[item.name]
                settings[name] = translate(value)
            elif value != item.default:
                settings[item.name] = value
        return config.Config(**settings)


class Server(server.Server):
    """uvicorn's: in the main thread ``serve`` too stops at SIGINT and SIGTERM, and raises the signal
    again when it has ended, for the rest of the program. A start that fails raises StartError.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config.translated())

    async def serve(self, sockets: Sequence[socket] | None = None, *, signals: bool = True) -> None:
        if not signals:
            await super().serve(sockets)
            return
        with self.capture_signals():
            await super().serve(sockets)

    async def main_loop(self) -> None:
        """Returns when the server has been stopped."""
        await self.wait_closed()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Within, signals stop the server; to be overridden where they should not."""
        with self._stop.on_signals(keep_set=True):
            yield
        if self._stop.number:
            signal.raise_signal(self._stop.number)


@settings_of(Config)
def run(*args: Any, **settings: Any) -> None:
    """Serves until SIGINT or SIGTERM; takes what ``Config`` takes.

    What prevents a start is logged, and ends the program with SystemExit: 1, or 3 when the
    application's start-up failed.
    """
    config = Config(*args, **settings)
    if config.workers is None and not config.reload and _WORKERS in os.environ:
        config.workers = int(os.environ[_WORKERS])
    run_in_program(config.translated())


# --- uvicorn's settings, and this server's ---


def _listed(value: list[str] | str) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _joined(value: list[str] | str) -> str:
    return ",".join(_listed(value))


def _level(value: str | int) -> str:
    if isinstance(value, str):
        return value.lower()
    if value not in _LEVELS:
        raise ValueError(f"log_level: {value} is none of {', '.join(map(str, _LEVELS))}")
    return _LEVELS[value]


def _log_config(value: Any) -> dict[str, Any]:
    if value == _OUR_LOGGING:
        return {}
    if value is None:
        return {"log_config": _LOGGING_AS_IT_IS}
    if isinstance(value, RawConfigParser) or hasattr(value, "read"):
        raise TypeError(
            "log_config: is the path of a file, or a dict for logging.config.dictConfig"
        )
    return {"log_config": value if isinstance(value, Mapping) else os.fspath(value)}


def _same(value: Any) -> Any:
    return value


def _websocket(value: Any) -> str:
    if value not in ("auto", "none", "websockets", "websockets-sansio", "wsproto"):
        raise ValueError("ws: WebSocket has one implementation here")
    return "off" if value == "none" else "on"


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None else value


# uvicorn's name: ours, and what makes our value of a value that is not a default None. Names that are
# missing here and below are the same, with the same values.
_TRANSLATED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "uds": ("uds", os.fspath),
    "env_file": ("env_file", os.fspath),
    "reload_dirs": ("reload_dir", _listed),
    "reload_includes": ("reload_include", _listed),
    "reload_excludes": ("reload_exclude", _listed),
    "forwarded_allow_ips": ("forwarded_allow_ips", _joined),
    "ssl_certfile": ("ssl_certfile", os.fspath),
    "ssl_keyfile": ("ssl_keyfile", os.fspath),
    "ssl_ca_certs": ("ssl_ca_certs", os.fspath),
    "ssl_cert_reqs": ("ssl_cert_reqs", int),
    "log_level": ("log_level", _level),
    "h11_max_incomplete_event_size": ("limit_request_head", _same),
    "ws": ("ws", _websocket),
    "ws_ping_interval": ("ws_ping_interval", _or_zero),
    "ws_ping_timeout": ("ws_ping_timeout", _or_zero),
}

_TLS_VERSIONS = "TLS 1.2 and 1.3 are spoken; asgiserver.Config has ssl_min_version for 1.3 alone"
_CONTEXT = "a context made in Python cannot be used by the C core: give ssl_certfile and the like"
_NOTIFY = "run a task of your own beside `await server.serve()`"

# Why, and which values beside uvicorn's default ask for what is done anyway.
_REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "http": ("HTTP/1.1 has one implementation here", ("h11", "httptools", "zttp")),
    "http2": ("there is no HTTP/2 yet: put a proxy that speaks it in front", ()),
    "reload_delay": ("a change is noticed when it happens, with no delay to set", ()),
    "timeout_notify": (_NOTIFY, ()),
    "callback_notify": (_NOTIFY, ()),
    "ssl_version": (_TLS_VERSIONS, (2,)),  # PROTOCOL_TLS; the default is PROTOCOL_TLS_SERVER
    "ssl_context_factory": (_CONTEXT, ()),
    "reset_contextvars": ("every request has a context of its own", (True,)),
}


def _refuse(name: str, value: Any, default: Any) -> None:
    reason, harmless = _REFUSED[name]
    if value != default and value not in harmless:
        raise ValueError(f"{name}: {reason}")
