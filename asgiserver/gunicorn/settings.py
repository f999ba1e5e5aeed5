"""What becomes of each of gunicorn's settings: one table, and the ``Config`` that follows from it.

A setting is gunicorn's own affair (the master and the base of its workers see to it), becomes an
option of ours, is heeded by the worker's code, or is refused when it is not at its default. None is
left out, and none is ignored: a test compares the table with the installed gunicorn.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .. import networks, options
from ..config import Config

Interface = Literal["asgi", "wsgi"]
Settings = Any  # gunicorn.config.Config
Values = dict[str, Any]

HOW = {
    "gunicorn": "gunicorn's own",
    "option": "an option",
    "worker": "the worker",
    "refused": "refused",
}


class WorkerConfig(Config):
    """Of proxies gunicorn knows more than our options do: which fields tell the scheme, and how, and
    who may use the PROXY protocol.
    """

    schemes: tuple[tuple[bytes, bytes], ...] = ()
    protocol_trusted = ""

    def core_proxy(self) -> networks.ProxySettings:
        return {
            **super().core_proxy(),
            "schemes": self.schemes,
            "protocol_trusted": networks.parse(self.protocol_trusted),
        }


class Refused(Exception):
    """Settings that cannot be honoured; ``str()`` is one line that names each, and why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. ``note`` says how, or why not. ``convert`` gives our options (``how`` is "option").
    ``only``: the other interface refuses it, for that it has no meaning there.
    """

    how: Literal["gunicorn", "option", "worker", "refused"]
    note: str = ""
    convert: Callable[[Settings], Values] | None = None
    only: Interface | None = None


def _option(
    option: str,
    setting: str,
    note: str = "",
    convert: Callable[[Any], Any] = lambda value: value,
    only: Interface | None = None,
) -> Rule:
    """``setting`` is our ``option``, once converted."""
    return Rule(
        "option",
        f"`{option}`{': ' if note else ''}{note}",
        lambda cfg: {option: convert(cfg.settings[setting].get())},
        only,
    )


_GUNICORN = Rule("gunicorn")
_TLS = Rule("refused", "TLS is not supported yet: put a TLS proxy in front")
_HTTP2 = Rule("refused", "HTTP/2 is not supported yet")
_LAX = Rule("refused", "requests are read strictly, without exceptions")
_UWSGI = Rule("refused", "the uwsgi protocol is not spoken here: let the proxy speak HTTP")

_UNKNOWN = Rule("refused", "it is newer than this version of asgiserver")

_MASTER_KILLS = 2.0  # seconds before the master's SIGKILL, for what follows a cut
_LONGEST_LINE = 8190  # gunicorn's


def _unlimited(option: str) -> int:
    maximum = options.BY_NAME[option].maximum
    assert maximum is not None
    return int(maximum)


def _request_line(value: int) -> int:
    if value == 0:
        return _unlimited("limit_request_line")
    return min(value, _LONGEST_LINE) if value > 0 else _LONGEST_LINE


def _fields(value: int) -> int:
    most = _unlimited("limit_request_fields")
    return min(value, most) if value > 0 else most


def _head(cfg: Settings) -> Values:
    """gunicorn bounds the head by what its lines may add up to."""
    line, count = _request_line(cfg.limit_request_line), _fields(cfg.limit_request_fields)
    size = cfg.limit_request_field_size
    most = _unlimited("limit_request_head")
    whole = line + count * (size + 2) + 4 if size > 0 else most
    return {
        "limit_request_field_size": max(size, 0),
        "limit_request_head": min(max(whole, 64), most),
    }


def _graceful(seconds: int) -> float:
    """Less than the master grants: after a cut, applications still shut down in order."""
    return seconds - min(_MASTER_KILLS, seconds / 3)


def _trusted(addresses: list[str]) -> str:
    """gunicorn trusts whoever connects to a Unix socket."""
    return ",".join([*addresses, "unix"])


SETTINGS: Mapping[str, Rule] = {
    # --- configuration, control, debugging: the master's ---
    "config": _GUNICORN,
    "wsgi_app": _GUNICORN,
    "control_socket": _GUNICORN,
    "control_socket_mode": _GUNICORN,
    "control_socket_disable": _GUNICORN,
    "reload": _GUNICORN,
    "reload_engine": _GUNICORN,
    "reload_extra_files": _GUNICORN,
    "spew": _GUNICORN,
    "check_config": _GUNICORN,
    "print_config": _GUNICORN,
    # --- dirty arbiters: processes of their own ---
    "dirty_apps": _GUNICORN,
    "dirty_workers": _GUNICORN,
    "dirty_timeout": _GUNICORN,
    "dirty_threads": _GUNICORN,
    "dirty_graceful_timeout": _GUNICORN,
    "on_dirty_starting": _GUNICORN,
    "dirty_post_fork": _GUNICORN,
    "dirty_worker_init": _GUNICORN,
    "dirty_worker_exit": _GUNICORN,
    # --- logging: gunicorn's loggers, to which our messages go as well ---
    "accesslog": Rule("worker", "by the core, where gunicorn's own logger would do just that"),
    "access_log_format": Rule(
        "worker", "by the core; with `%(U)s` or `%({…}e)s` by gunicorn's logger, in Python"
    ),
    "disable_redirect_access_to_syslog": _GUNICORN,
    "errorlog": Rule("gunicorn", "also for `wsgi.errors`"),
    "loglevel": _GUNICORN,
    "capture_output": _GUNICORN,
    "logger_class": Rule("worker", "its `access()` is called for each request"),
    "logconfig": _GUNICORN,
    "logconfig_dict": _GUNICORN,
    "logconfig_json": _GUNICORN,
    "syslog_addr": _GUNICORN,
    "syslog": _GUNICORN,
    "syslog_prefix": _GUNICORN,
    "syslog_facility": _GUNICORN,
    "enable_stdio_inheritance": _GUNICORN,
    "statsd_host": Rule("worker", "its logger's `access()` is called for each request"),
    "dogstatsd_tags": _GUNICORN,
    "statsd_prefix": _GUNICORN,
    "enable_backlog_metric": _GUNICORN,
    "proc_name": _GUNICORN,
    "default_proc_name": _GUNICORN,
    # --- TLS, HTTP/2, uwsgi ---
    "keyfile": _TLS,
    "certfile": _TLS,
    "ssl_version": _TLS,
    "cert_reqs": _TLS,
    "ca_certs": _TLS,
    "suppress_ragged_eofs": _TLS,
    "do_handshake_on_connect": _TLS,
    "ciphers": _TLS,
    "ssl_context": Rule("refused", "a context made in Python cannot be used by the C core"),
    "http_protocols": _HTTP2,
    "http2_cleartext": _HTTP2,
    "http2_max_concurrent_streams": _HTTP2,
    "http2_initial_window_size": _HTTP2,
    "http2_max_frame_size": _HTTP2,
    "http2_max_header_list_size": _HTTP2,
    "protocol": _UWSGI,
    "uwsgi_allow_ips": _UWSGI,
    # --- limits ---
    "limit_request_line": _option(
        "limit_request_line", "limit_request_line", "0 is 1 MiB, as in gunicorn", _request_line
    ),
    "limit_request_fields": _option(
        "limit_request_fields", "limit_request_fields", "0 is 32768, as in gunicorn", _fields
    ),
    "limit_request_field_size": Rule(
        "option",
        "`limit_request_field_size`, and `limit_request_head` for all fields together",
        _head,
    ),
    # --- hooks ---
    "on_starting": _GUNICORN,
    "on_reload": _GUNICORN,
    "when_ready": _GUNICORN,
    "pre_fork": _GUNICORN,
    "post_fork": _GUNICORN,
    "post_worker_init": _GUNICORN,
    "worker_int": Rule("worker", "called at SIGINT and SIGQUIT"),
    "worker_abort": Rule("worker", "called at SIGABRT, behind the traceback of what hangs"),
    "pre_exec": _GUNICORN,
    "pre_request": Rule("worker", "called around each request, if set"),
    "post_request": Rule("worker", "called around each request, if set"),
    "child_exit": _GUNICORN,
    "worker_exit": _GUNICORN,
    "nworkers_changed": _GUNICORN,
    "on_exit": _GUNICORN,
    # --- the process ---
    "preload_app": _GUNICORN,
    "sendfile": Rule("worker", "off: files are read and written"),
    "reuse_port": _GUNICORN,
    "chdir": _GUNICORN,
    "daemon": _GUNICORN,
    "raw_env": Rule("gunicorn", "WSGI: `SCRIPT_NAME` in the environment is `root_path`"),
    "pidfile": _GUNICORN,
    "worker_tmp_dir": _GUNICORN,
    "user": _GUNICORN,
    "group": _GUNICORN,
    "umask": _GUNICORN,
    "initgroups": _GUNICORN,
    "tmp_upload_dir": Rule("refused", "large bodies go to TMPDIR: raw_env = ['TMPDIR=…']"),
    "pythonpath": _GUNICORN,
    "paste": _GUNICORN,
    "raw_paste_global_conf": _GUNICORN,
    # --- requests ---
    "secure_scheme_headers": Rule("worker", "by the core; contradicting ones are answered by 400"),
    "forwarded_allow_ips": _option(
        "forwarded_allow_ips",
        "forwarded_allow_ips",
        "and Unix sockets. ASGI: for client and prefix, too, as UvicornWorker has it; WSGI: with "
        "CONFIG_KWARGS `proxy_headers`",
        _trusted,
    ),
    "proxy_protocol": _option("proxy_protocol", "proxy_protocol"),
    "proxy_allow_ips": Rule("worker", "by the core; and Unix sockets"),
    "permit_obsolete_folding": _LAX,
    "strip_header_spaces": _LAX,
    "permit_unconventional_http_method": _LAX,
    "permit_unconventional_http_version": _LAX,
    "casefold_http_method": _LAX,
    "forwarder_headers": Rule(
        "refused",
        "fields with an underscore in their names are dropped, these too: set SCRIPT_NAME in raw_env, "
        "or have the proxy send X-Forwarded-Prefix and say CONFIG_KWARGS = {'proxy_headers': True}",
    ),
    "header_map": Rule("refused", "WSGI: fields with an underscore in their names are dropped"),
    "root_path": Rule("worker", "`root_path` of the scope; the path stays as it came", only="asgi"),
    "http_parser": Rule("refused", "the parser is the core's"),
    # --- sockets ---
    "bind": _GUNICORN,
    "backlog": _GUNICORN,
    # --- workers ---
    "workers": Rule("gunicorn", "WSGI: `wsgi.multiprocess`"),
    "worker_class": _GUNICORN,
    "threads": _option(
        "threads",
        "threads",
        "1 runs the application on the thread that serves",
        lambda value: value if value > 1 else 0,
        only="wsgi",
    ),
    "worker_connections": _option("limit_connections", "worker_connections", "above, others wait"),
    "max_requests": Rule("worker", "the worker's successor serves on: no request is lost"),
    "max_requests_jitter": _GUNICORN,
    "timeout": Rule("worker", "the loop gives a sign of life each second"),
    "graceful_timeout": _option(
        "timeout_graceful_shutdown",
        "graceful_timeout",
        "up to 2 s less, for what follows a cut",
        _graceful,
    ),
    "keepalive": _option("timeout_keep_alive", "keepalive", "0 closes after each response"),
    "asgi_loop": _option("loop", "asgi_loop", only="asgi"),
    "asgi_lifespan": _option("lifespan", "asgi_lifespan", only="asgi"),
    "asgi_disconnect_grace_period": _option(
        "timeout_cancel",
        "asgi_disconnect_grace_period",
        "0 is at once",
        lambda value: value or 0.001,
        only="asgi",
    ),
    "websocket_max_message_size": _option("ws_max_size", "websocket_max_message_size", only="asgi"),
}


# --- CONFIG_KWARGS ---

_FREE = frozenset(
    row.name
    for row in options.OPTIONS
    if row.group in (options.HTTP, options.PROXY, options.LIMITS, options.TIMEOUTS)
    or row.name in ("factory", "interface", "lifespan", "loop", "root_path")
) - {
    "limit_max_requests", "limit_max_requests_jitter", "limit_max_age", "limit_max_rss",
    "timeout_worker_healthcheck",
}  # fmt: skip


def _check_overrides(overrides: Mapping[str, Any]) -> Iterator[str]:
    for name in overrides:
        if name in _FREE:
            continue
        if name in options.BY_NAME:
            yield f"CONFIG_KWARGS[{name!r}] (gunicorn has settings for that)"
        else:
            yield f"CONFIG_KWARGS[{name!r}] (there is no such option)"


# --- from one to the other ---


def is_default(cfg: Settings, name: str) -> bool:
    """The setting has the value that it has when nobody says anything."""
    setting = cfg.settings[name]
    return bool(setting.get() == type(setting)().get())


def _refusals(cfg: Settings, interface: Interface) -> Iterator[str]:
    for name in cfg.settings:
        rule = SETTINGS.get(name, _UNKNOWN)
        if is_default(cfg, name):
            continue
        if rule.how == "refused":
            yield f"{name} ({rule.note})"
        elif rule.only not in (None, interface):
            yield f"{name} (it has no meaning for {interface.upper()})"


def to_config(cfg: Settings, interface: Interface, overrides: Mapping[str, Any]) -> WorkerConfig:
    """What to serve by. ``overrides`` are CONFIG_KWARGS of the worker class.

    Raises Refused.
    """
    problems = [*_refusals(cfg, interface), *_check_overrides(overrides)]
    if problems:
        raise Refused(f"asgiserver cannot honour: {'; '.join(problems)}.")
    values: Values = {
        "workers": max(cfg.workers, 1),
        "reload": cfg.reload,
        "quiet": True,
        "access_log": False,
    }
    if interface == "wsgi":
        values |= {"root_path": os.environ.get("SCRIPT_NAME", ""), "proxy_headers": False}
    for name, rule in SETTINGS.items():
        if name in cfg.settings and rule.convert is not None and rule.only in (None, interface):
            values |= rule.convert(cfg)
    try:
        config = WorkerConfig(None, **{**values, **overrides})
    except (TypeError, ValueError) as problem:
        raise Refused(f"asgiserver cannot honour: {problem}.") from None
    config.schemes = tuple(
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in cfg.secure_scheme_headers.items()
    )
    config.protocol_trusted = _trusted(cfg.proxy_allow_ips)
    return config


# --- the documentation ---


def table() -> str:
    """The rows as a table of docs/gunicorn.md."""
    lines = ["| setting | by | how, or why not |", "|---|---|---|"]
    for name in sorted(SETTINGS):
        rule = SETTINGS[name]
        only = f" ({rule.only.upper()} only)" if rule.only else ""
        lines.append(f"| `{name}` | {HOW[rule.how]} | {rule.note}{only} |")
    return "\n".join(lines) + "\n"
