"""The settings of a server: ``Config``, with defaults and checks from the table of options."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from . import addresses, networks, options

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5

# Seconds; when reloading, somebody waits for the change.
_GRACE, _GRACE_RELOADING = 30.0, 3.0
_LAST_WAIT = 2.0
_BODIES = 4  # of the largest size that have room in files, where nobody said how many

# Fields that frame a message or belong to one connection: the server makes them.
_OWN_FIELDS = frozenset(
    ("connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


# Settings of which only one can be given, since each says where to listen.
_LISTENING = ("bind", "uds", "fd", "host", "port")


# Settings that say how to speak TLS, and not that it is spoken.
_OF_TLS = tuple(
    row.name for row in options.OPTIONS if row.group == options.TLS and row.name != "ssl_certfile"
)


class Conflict(ValueError):
    """Two settings that do not go together: ``name`` is refused because of ``other``.

    ``str()`` begins with the one and ends with the other.
    """

    def __init__(self, name: str, text: str, other: str) -> None:
        super().__init__(f"{name}: {text} {other}")
        self.name = name
        self.other = other


def _default(name: str) -> Any:
    return options.BY_NAME[name].default


@dataclass(kw_only=True)
class Config:
    """What a server serves, and how. Every setting is also an option of the command line.

    ``app`` is the application (an ASGI or WSGI callable), or where to import it from:
    ``"module:name"``, ``"path/to/file.py:name"``, either without the name (then ``app`` or
    ``application`` is taken), or None: ``main.py``, ``app.py``, ``asgi.py`` or ``wsgi.py`` in
    ``app_dir`` is looked for. Sizes (``limit_*``) are bytes or counts, times (``timeout_*``) are
    seconds. docs/config.md explains each setting.

    Raises TypeError or ValueError, naming the setting, for a value out of its range.
    """

    app: str | Callable[..., Any] | None = field(default=None, kw_only=False)

    interface: str = _default("interface")
    factory: bool = _default("factory")
    app_dir: str = _default("app_dir")
    env_file: str | None = _default("env_file")
    lifespan: str = _default("lifespan")
    root_path: str = _default("root_path")
    loop: str = _default("loop")

    bind: Sequence[str] = _default("bind")
    host: str = _default("host")
    port: int = _default("port")
    uds: str | None = _default("uds")
    uds_mode: int = _default("uds_mode")
    fd: int | None = _default("fd")
    backlog: int = _default("backlog")
    reuse_port: bool = _default("reuse_port")

    workers: int | Literal["auto"] = _default("workers")
    threads: int = _default("threads")
    preload: bool = _default("preload")
    reload: bool = _default("reload")
    reload_dir: Sequence[str] = _default("reload_dir")
    reload_include: Sequence[str] = _default("reload_include")
    reload_exclude: Sequence[str] = _default("reload_exclude")
    pid: str | None = _default("pid")
    user: str | None = _default("user")
    group: str | None = _default("group")
    umask: int | None = _default("umask")

    ssl_certfile: str | None = _default("ssl_certfile")
    ssl_keyfile: str | None = _default("ssl_keyfile")
    ssl_keyfile_password: str | None = field(default=_default("ssl_keyfile_password"), repr=False)
    ssl_sni_dir: str | None = _default("ssl_sni_dir")
    ssl_ca_certs: str | None = _default("ssl_ca_certs")
    ssl_cert_reqs: int | Literal["none", "optional", "required"] = _default("ssl_cert_reqs")
    ssl_ciphers: str | None = _default("ssl_ciphers")
    ssl_min_version: str = _default("ssl_min_version")
    ssl_reload_interval: float = _default("ssl_reload_interval")

    server_header: bool = _default("server_header")
    date_header: bool = _default("date_header")
    headers: Sequence[tuple[str, str]] = _default("headers")
    health_path: str | None = _default("health_path")

    ws: str = _default("ws")
    ws_max_size: int = _default("ws_max_size")
    ws_max_queue: int = _default("ws_max_queue")
    ws_ping_interval: float = _default("ws_ping_interval")
    ws_ping_timeout: float = _default("ws_ping_timeout")
    ws_close_timeout: float = _default("ws_close_timeout")
    ws_per_message_deflate: bool = _default("ws_per_message_deflate")

    proxy_headers: bool = _default("proxy_headers")
    forwarded_allow_ips: str = _default("forwarded_allow_ips")
    proxy_protocol: str = _default("proxy_protocol")

    limit_request_line: int = _default("limit_request_line")
    limit_request_head: int = _default("limit_request_head")
    limit_request_fields: int = _default("limit_request_fields")
    limit_request_field_size: int = _default("limit_request_field_size")
    limit_request_body: int = _default("limit_request_body")
    limit_concurrency: int = _default("limit_concurrency")
    limit_connections: int = _default("limit_connections")
    limit_tls_handshakes: int = _default("limit_tls_handshakes")
    limit_pipeline: int = _default("limit_pipeline")
    limit_body_buffer: int = _default("limit_body_buffer")
    limit_write_buffer: int = _default("limit_write_buffer")
    limit_body_memory: int = _default("limit_body_memory")
    limit_body_spool: int = _default("limit_body_spool")
    limit_body_discard: int = _default("limit_body_discard")
    min_body_rate: int = _default("min_body_rate")
    min_write_rate: int = _default("min_write_rate")
    limit_max_requests: int = _default("limit_max_requests")
    limit_max_requests_jitter: int = _default("limit_max_requests_jitter")
    limit_max_age: float = _default("limit_max_age")
    limit_max_rss: int = _default("limit_max_rss")

    timeout_tls_handshake: float = _default("timeout_tls_handshake")
    timeout_request_head: float = _default("timeout_request_head")
    timeout_request_body: float = _default("timeout_request_body")
    timeout_keep_alive: float = _default("timeout_keep_alive")
    timeout_write: float = _default("timeout_write")
    timeout_linger: float = _default("timeout_linger")
    timeout_graceful_shutdown: float | None = _default("timeout_graceful_shutdown")
    shutdown_delay: float = _default("shutdown_delay")
    timeout_disconnect: float = _default("timeout_disconnect")
    timeout_cancel: float = _default("timeout_cancel")
    timeout_worker_healthcheck: float = _default("timeout_worker_healthcheck")

    log_level: str | None = _default("log_level")
    log_config: str | Mapping[str, Any] | None = _default("log_config")
    log_file: str | None = _default("log_file")
    access_log: bool = _default("access_log")
    access_log_file: str | None = _default("access_log_file")
    access_log_format: str = _default("access_log_format")
    use_colors: bool | None = _default("use_colors")
    quiet: bool = _default("quiet")

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name == "app":
                continue
            value = getattr(self, item.name)
            if item.name == "log_config" and isinstance(value, Mapping):
                continue  # From Python only: what logging.config.dictConfig takes.
            setattr(self, item.name, options.check(options.BY_NAME[item.name], value))
        self._check_listening()
        self._check_conflicts()
        self._check_tls()
        self._check_access_log_format()
        if self.health_path is not None and not self.health_path.startswith("/"):
            raise ValueError(f"health_path: {self.health_path!r} does not begin with /")
        if self.root_path and not self.root_path.startswith("/"):
            raise ValueError(f"root_path: {self.root_path!r} does not begin with /")
        for name, value in self.headers:
            check_header(name, value)
        self._check_proxy()

    def _check_listening(self) -> None:
        given = [name for name in _LISTENING if getattr(self, name) != _default(name)]
        if len(given) > 1 and given != ["host", "port"]:
            raise Conflict(given[0], "not together with", given[1])
        for one in self.bind:
            try:
                addresses.parse(one)
            except ValueError as error:
                raise ValueError(f"bind: {error}") from None

    def _check_conflicts(self) -> None:
        alone = "not together with"
        if self.reload and self.app is not None and not isinstance(self.app, str):
            raise ValueError(
                "reload: an application is imported anew by its name, as in "
                "run('module:name', reload=True); an object cannot be"
            )
        for wrong, name, text, other in (
            (self.reload and self.workers != 1, "reload", alone, "workers"),
            (self.reload and self.preload, "reload", alone, "preload"),
            (self.reuse_port and self.fd is not None, "reuse_port", alone, "fd"),
            (self.reuse_port and self.uds is not None, "reuse_port", alone, "uds"),
            (
                self.log_file is not None and self.log_config is not None,
                "log_file", alone, "log_config",
            ),
            (
                self.threads > 0 and self.interface.startswith("asgi"),
                "threads", "is for WSGI applications; ASGI is asked for by", "interface",
            ),
            (
                self.limit_max_requests_jitter > 0 and not self.limit_max_requests,
                "limit_max_requests_jitter", "does nothing without", "limit_max_requests",
            ),
        ):  # fmt: skip
            if wrong:
                raise Conflict(name, text, other)

    def _check_tls(self) -> None:
        if self.ssl_certfile is None:
            for name in _OF_TLS:
                if getattr(self, name) != _default(name):
                    raise Conflict(name, "does nothing without", "ssl_certfile")
        if self.client_certificates and self.ssl_ca_certs is None:
            raise Conflict(
                "ssl_cert_reqs", "nobody could show a certificate without", "ssl_ca_certs"
            )
        if self.ssl_ca_certs is not None and not self.client_certificates:
            # Said by someone who wants clients checked, or who takes it for the chain's place.
            raise Conflict(
                "ssl_ca_certs",
                "is for certificates of clients (the server's own chain belongs into "
                "ssl_certfile); it does nothing without",
                "ssl_cert_reqs",
            )

    def _check_proxy(self) -> None:
        try:
            trusted = networks.parse(self.forwarded_allow_ips)
        except ValueError as error:
            raise ValueError(f"forwarded_allow_ips: {error}") from None
        if self.proxy_protocol != "off" and not trusted:
            raise ValueError("proxy_protocol: forwarded_allow_ips trusts nobody")

    def _check_access_log_format(self) -> None:
        if self.access_log_format == _default("access_log_format"):
            return
        try:
            from ._core import check_access_log_format  # noqa: PLC0415 (rarely needed)
        except ImportError:  # The start says so.
            return
        try:
            check_access_log_format(self.access_log_format)
        except ValueError as problem:
            raise ValueError(f"access_log_format: {problem}") from None

    @property
    def client_certificates(self) -> int:
        """0: clients are not asked for one, 1: they may have one, 2: they must."""
        words = options.BY_NAME["ssl_cert_reqs"].words
        value = self.ssl_cert_reqs
        return words.index(value) if isinstance(value, str) else int(value)

    @property
    def grace(self) -> float:
        """Seconds for running requests when the server stops."""
        if self.timeout_graceful_shutdown is not None:
            return self.timeout_graceful_shutdown
        return _GRACE_RELOADING if self.reload else _GRACE

    @property
    def last_wait(self) -> float:
        """Seconds for idle connections once the delay is over: the load balancer that it is for may
        just be sending a request on one.
        """
        return min(self.shutdown_delay, _LAST_WAIT)

    @property
    def body_spool(self) -> int:
        """Bytes of all bodies in files; 0: no limit. What nobody has set grows with
        ``limit_request_body``: a body that may be so large has room.
        """
        spool, body = self.limit_body_spool, self.limit_request_body
        if spool != options.BY_NAME["limit_body_spool"].default:
            return spool
        return max(spool, _BODIES * body) if body else 0

    def core_limits(self) -> dict[str, int]:
        """The rows that the C core reads, in its units."""
        values = {
            row.name: options.core_value(row, getattr(self, row.name))
            for row in options.core_rows()
        }
        values["limit_body_spool"] = self.body_spool
        # A header given by the user takes the place of the server's own.
        for name, _ in self.headers:
            if name.lower() in ("server", "date"):
                values[f"{name.lower()}_header"] = 0
        return values

    def core_proxy(self) -> networks.ProxySettings:
        """What the core believes of proxies, and of which."""
        return {
            "trusted": networks.parse(self.forwarded_allow_ips),
            "fields": self.proxy_headers,
            "protocol": self.proxy_protocol,
        }

    def core_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers added to every response, as they are sent."""
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]


def check_header(name: str, value: str) -> None:
    """Raises ValueError for a response header that could break the framing of responses."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"headers: {name!r} is not a header name")
    if not _VALUE.fullmatch(value) or value != value.strip():
        raise ValueError(f"headers: {value!r} cannot be the value of a header")
    if name.lower() in _OWN_FIELDS:
        raise ValueError(f"headers: {name} is set by the server")
