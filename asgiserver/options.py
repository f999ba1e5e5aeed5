"""The table of options: every setting, limit, timeout and default of the server, once.

From it follow the command line (cli.py), the environment names, the keys of a TOML file
(configuration.py), the defaults and checks of ``Config`` (config.py), the C struct of limits
(limits.gen.h) and docs/config.md. Pure standard library and free of imports from this package,
since the build loads this file alone.

Sizes are bytes and times are seconds, here and everywhere in Python; the C core takes milliseconds.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["str", "int", "float", "bool", "mode", "list", "headers"]

PREFIX = "ASGISERVER_"

APPLICATION = "Application"
LISTENING = "Listening"
PROCESSES = "Processes"
PROXY = "Behind a proxy"
TLS = "TLS"
HTTP = "HTTP"
WEBSOCKET = "WebSocket"
LIMITS = "Limits"
TIMEOUTS = "Timeouts"
LOGGING = "Logging"
GROUPS = {
    APPLICATION: "",
    LISTENING: "",
    PROCESSES: "",
    TLS: "",
    HTTP: "",
    WEBSOCKET: "ASGI; times in seconds, fractions allowed",
    PROXY: "",
    LIMITS: "sizes in bytes; 0: no limit where it says so",
    TIMEOUTS: "in seconds, fractions allowed; 0: none",
    LOGGING: "",
}

DAY = 86_400.0
GIB = 1 << 30
UINT32_MAX = (1 << 32) - 1
INT64_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Option:
    """One row.

    ``name`` is the attribute of ``Config`` and the key in a file; ``flag`` the word on the command
    line where it differs, ``short`` its letter.
    ``default`` None means "decided at start", as ``help`` says. ``c_type`` is set for rows that the
    C core reads: its field has the row's name. ``minimum`` and ``maximum`` are inclusive; ``zero``
    is allowed below the minimum, ``words`` beside the numbers. ``metavar`` stands for the value in
    the help. ``fallback`` is a variable of the environment that other servers use, read where
    nothing else sets the option. A ``secret`` value is never shown.
    """

    name: str
    kind: Kind
    default: Any
    group: str
    help: str
    metavar: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    c_type: str = ""
    flag: str = ""
    short: str = ""
    zero: bool = False
    words: tuple[str, ...] = ()
    fallback: str = ""
    secret: bool = False

    @property
    def word(self) -> str:
        """The option's name on the command line, without dashes before it."""
        return self.flag or self.name.replace("_", "-")

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.word.replace("-", "_").upper()

    @property
    def spelling(self) -> str:
        """As the help shows it: ``--port N``, ``--factory``, ``--access-log / --no-access-log``."""
        if self.kind == "bool":
            return (
                f"--{self.word}" if self.default is False else f"--{self.word} / --no-{self.word}"
            )
        short = f"-{self.short}, " if self.short else ""
        return f"{short}--{self.word} {self.placeholder}"

    @property
    def placeholder(self) -> str:
        if self.choices:
            return "|".join(self.choices)
        if self.words:
            return "|".join(("N", *self.words))
        return self.metavar or {"int": "N", "float": "SECONDS"}.get(self.kind, "TEXT")

    def text(self, value: Any) -> str:
        """``value`` as it would be written on the command line."""
        if self.kind == "bool":
            return "on" if value else "off"
        if self.kind == "mode":
            return f"{value:o}"
        if self.kind == "list":
            return ",".join(value)
        return f"{value:g}" if isinstance(value, float) else str(value)


def _seconds(name: str, default: float, text: str, group: str = TIMEOUTS) -> Option:
    """A timeout that the core watches."""
    # Not less than the core's unit, or it would be 0 there, and that means "none".
    return Option(
        name, "float", default, group, text,
        minimum=0.001, maximum=DAY, zero=True, c_type="uint32_t",
    )  # fmt: skip


def _size(name: str, default: int, text: str, minimum: int, maximum: int = GIB) -> Option:
    """A limit that the core watches."""
    return Option(
        name, "int", default, LIMITS, text,
        metavar="BYTES" if "bytes" in text.lower() else "",
        minimum=minimum, maximum=maximum,
        c_type="uint64_t" if maximum > UINT32_MAX else "uint32_t",
    )  # fmt: skip


OPTIONS: tuple[Option, ...] = (
    # --- the application ---
    Option(
        "interface", "str", "auto", APPLICATION,
        "What the application speaks; auto finds out. asgi: ASGI 3 or 2.",
        choices=("auto", "asgi", "asgi3", "asgi2", "wsgi"),
    ),
    Option("factory", "bool", False, APPLICATION, "APP is a function that makes the application."),
    Option(
        "app_dir", "str", "", APPLICATION,
        "Folder to import APP from. Default: the current one.", "DIRECTORY",
    ),
    Option(
        "env_file", "str", None, APPLICATION,
        "File of NAME=VALUE lines, put into the environment before APP is imported. "
        "Needs python-dotenv.", "FILE",
    ),
    Option(
        "lifespan", "str", "auto", APPLICATION,
        "Start-up and shutdown events of ASGI. auto: if the application knows them.",
        choices=("auto", "on", "off"),
    ),
    Option(
        "root_path", "str", "", APPLICATION,
        "Where the application is mounted, behind a proxy that removes this prefix.", "PATH",
    ),
    Option(
        "loop", "str", "auto", APPLICATION,
        "Event loop for ASGI. auto: uvloop if installed.",
        choices=("auto", "uvloop", "asyncio"),
    ),
    # --- listening ---
    Option(
        "bind", "list", (), LISTENING,
        "Listen here: HOST:PORT, [HOST]:PORT, unix:PATH or fd://N. May be given more than once; "
        "the four options below are short forms of one.", "ADDRESS", short="b",
    ),
    Option(
        "host", "str", "127.0.0.1", LISTENING,
        "Address or name; all addresses of a name are used. "
        "0.0.0.0 is all of IPv4, :: is all of IPv4 and IPv6.",
        "ADDRESS",
    ),
    Option(
        "port", "int", 8000, LISTENING,
        "TCP port. 0: a free one is chosen.", minimum=0, maximum=65535,
    ),
    Option("uds", "str", None, LISTENING, "Listen on a Unix socket instead of TCP.", "PATH"),
    Option(
        "uds_mode", "mode", 0o666, LISTENING,
        "Access rights of the Unix socket, octal.", "MODE", minimum=0, maximum=0o777,
    ),
    Option(
        "fd", "int", None, LISTENING,
        "Listen on this inherited socket instead, as systemd gives one.",
        minimum=0, maximum=1 << 20,
    ),
    Option(
        "backlog", "int", 2048, LISTENING,
        "Connections that may wait to be accepted.", minimum=1, maximum=1 << 20,
    ),
    Option(
        "reuse_port", "bool", False, LISTENING,
        "Each worker listens on a socket of its own (SO_REUSEPORT), among which the kernel "
        "divides the connections.",
    ),
    # --- processes ---
    Option(
        "workers", "int", 1, PROCESSES,
        "Processes that serve. auto: as many as there are processors, or as the control group "
        "allows.", minimum=1, maximum=1024, words=("auto",), fallback="WEB_CONCURRENCY", short="w",
    ),
    Option(
        "threads", "int", 0, PROCESSES,
        "WSGI: threads in each process that run the application. 0: it runs on the thread that "
        "serves, one request at a time.", minimum=0, maximum=1024,
    ),
    Option(
        "preload", "bool", False, PROCESSES,
        "Import the application once, before the workers are forked, which then share its memory.",
    ),
    Option(
        "reload", "bool", False, PROCESSES,
        "Start anew when a file changes: for development. Needs watchfiles.",
    ),
    Option(
        "reload_dir", "list", (), PROCESSES,
        "Folder to watch, with what is in it; may be given more than once. "
        "Default: the current one and --app-dir.",
        "DIRECTORY",
    ),
    Option(
        "reload_include", "list", (), PROCESSES,
        "Files to watch besides *.py, as a pattern, or one more folder; may be given more than "
        "once.", "GLOB",
    ),
    Option(
        "reload_exclude", "list", (), PROCESSES,
        "Files and folders not to watch, as a pattern; may be given more than once. "
        "Hidden ones, node_modules and the like are left out anyway.", "GLOB",
    ),
    Option("pid", "str", None, PROCESSES, "Write the process id to this file.", "FILE"),
    Option("user", "str", None, PROCESSES, "User, by name or number, to become once bound.", "USER"),
    Option(
        "group", "str", None, PROCESSES, "Group, by name or number, to become once bound.", "GROUP",
    ),
    Option(
        "umask", "mode", None, PROCESSES, "Access rights that new files do not get, octal.",
        "MODE", minimum=0, maximum=0o777,
    ),
    # --- TLS ---
    Option(
        "ssl_certfile", "str", None, TLS,
        "Speak TLS, with the certificate in this file (PEM), and those between it and the root "
        "behind it. Read again when it changes, and on SIGHUP.", "FILE",
    ),
    Option(
        "ssl_keyfile", "str", None, TLS,
        "Its private key (PEM). Default: it is in the file of the certificate.", "FILE",
    ),
    Option(
        "ssl_keyfile_password", "str", None, TLS,
        "What the private key is encrypted with; better in the environment than on the command "
        "line, which others can see.", secret=True,
    ),
    Option(
        "ssl_sni_dir", "str", None, TLS,
        "Further certificates, chosen by the name that the client asks for: a folder of FILE.pem "
        "(or .crt, .cer), each with its FILE.key, or with the key in it.", "DIRECTORY",
    ),
    Option(
        "ssl_ca_certs", "str", None, TLS,
        "Authorities whose certificates clients may show (PEM).", "FILE",
    ),
    Option(
        "ssl_cert_reqs", "int", 0, TLS,
        "Ask clients for a certificate: none (0), optional (1) or required (2).",
        minimum=0, maximum=2, words=("none", "optional", "required"),
    ),
    Option(
        "ssl_ciphers", "str", None, TLS,
        "Cipher suites, as OpenSSL writes them. Default: those with forward secrecy and "
        "authenticated encryption.", "LIST",
    ),
    Option(
        "ssl_min_version", "str", "TLSv1.2", TLS, "Oldest version of TLS that is spoken.",
        choices=("TLSv1.2", "TLSv1.3"),
    ),
    Option(
        "ssl_reload_interval", "float", 5.0, TLS,
        "Seconds between two looks whether the files have changed. 0: only on SIGHUP.",
        minimum=0.1, maximum=DAY, zero=True,
    ),
    # --- HTTP ---
    Option("server_header", "bool", True, HTTP, "Send the Server header.", c_type="bool"),
    Option("date_header", "bool", True, HTTP, "Send the Date header.", c_type="bool"),
    Option(
        "headers", "headers", (), HTTP,
        "Add a header to every response. May be given more than once; "
        "one a line in the environment.",
        "NAME:VALUE", flag="header",
    ),
    Option(
        "health_path", "str", None, HTTP,
        "The server itself answers GET and HEAD for this path: 200, and 503 as soon as it is told "
        "to stop. Not logged.", "PATH",
    ),
    # --- WebSocket ---
    Option(
        "ws", "str", "on", WEBSOCKET,
        "WebSocket. off: who asks for it is served as by any other request.",
        choices=("on", "off"), c_type="bool",
    ),
    Option(
        "ws_max_size", "int", 16 << 20, WEBSOCKET,
        "Largest message in bytes, once it is inflated; above: closed with 1009. Reading pauses while "
        "as many wait for the application. 0: no limit.",
        "BYTES", minimum=0, maximum=INT64_MAX, c_type="uint64_t",
    ),
    Option(
        "ws_max_queue", "int", 32, WEBSOCKET,
        "Messages that may wait for the application before reading pauses.",
        minimum=1, maximum=1 << 20, c_type="uint32_t",
    ),
    _seconds("ws_ping_interval", 20.0, "Between two pings. 0: none are sent.", WEBSOCKET),
    _seconds(
        "ws_ping_timeout", 20.0,
        "For the client to answer a ping; then: closed with 1011. 0: no matter how long.", WEBSOCKET,
    ),
    _seconds(
        "ws_close_timeout", 10.0,
        "For the client to answer a close; then the connection is closed. 0: no matter how long.",
        WEBSOCKET,
    ),
    Option(
        "ws_per_message_deflate", "bool", True, WEBSOCKET,
        "Compress messages where the client can (permessage-deflate).", c_type="bool",
    ),
    # --- behind a proxy ---
    Option(
        "proxy_headers", "bool", True, PROXY,
        "Take client, scheme and prefix from X-Forwarded-* and Forwarded of a trusted proxy.",
    ),
    Option(
        "forwarded_allow_ips", "str", "127.0.0.1,::1,unix", PROXY,
        "Whom to trust: addresses and networks with commas between them, unix for Unix sockets, "
        "or * for all.", "LIST", fallback="FORWARDED_ALLOW_IPS",
    ),
    Option(
        "proxy_protocol", "str", "off", PROXY,
        "Connections from trusted proxies begin with a header of the PROXY protocol.",
        choices=("off", "v1", "v2", "auto"),
    ),
    # --- limits ---
    _size(
        "limit_request_line", 8190, "Longest request line in bytes; above: 414.",
        minimum=16, maximum=1 << 20,
    ),
    _size(
        "limit_request_head", 65536, "Largest request head in bytes; above: 431.",
        minimum=64, maximum=1 << 24,
    ),
    _size(
        "limit_request_fields", 100, "Most header fields in a request; above: 431.",
        minimum=1, maximum=1 << 15,
    ),
    _size(
        "limit_request_field_size", 0,
        "Longest line of a header field in bytes, with its end; above: 431. 0: the head's limit alone.",
        minimum=0, maximum=1 << 24,
    ),
    _size(
        "limit_request_body", GIB, "Largest request body in bytes; above: 413. 0: no limit.",
        minimum=0, maximum=INT64_MAX,
    ),
    _size(
        "limit_concurrency", 0,
        "Requests worked on at once, open WebSockets among them; above: 503. 0: no limit.",
        minimum=0, maximum=UINT32_MAX,
    ),
    _size(
        "limit_connections", 0, "Open connections; above, new ones wait. 0: no limit.",
        minimum=0, maximum=UINT32_MAX,
    ),
    _size(
        "limit_tls_handshakes", 1000,
        "TLS handshakes under way at once; above, the one that waits longest is cut. 0: no limit.",
        minimum=0, maximum=UINT32_MAX,
    ),
    _size(
        "limit_pipeline", 65536,
        "Bytes that may wait on a connection behind a running request.",
        minimum=1024,
    ),
    _size(
        "limit_body_buffer", 65536,
        "Request body bytes held for the application before reading pauses.",
        minimum=1024,
    ),
    _size(
        "limit_write_buffer", 65536,
        "Response bytes held for the client before the application waits.",
        minimum=1024,
    ),
    _size(
        "limit_body_memory", 524288,
        "WSGI: bytes of a request body above which it goes to a file.",
        minimum=0,
    ),
    _size(
        "limit_body_spool", 4 * GIB,
        "WSGI: bytes of all request bodies that are in files, together; above: 503, and 413 for one "
        "that is more by itself. 0: no limit. The default grows with --limit-request-body: four times "
        "that, or no limit.",
        minimum=0, maximum=INT64_MAX,
    ),
    _size(
        "limit_body_discard", 0,
        "Request body bytes that are still to come behind the response and are skipped to keep the "
        "connection; above, it is closed. Some proxies do not send them: 0 is safe behind all.",
        minimum=0,
    ),
    _size(
        "min_body_rate", 240,
        "Bytes a second of a request body, beyond the first timeout-request-body seconds; a slower "
        "one: 408. 0: no matter how slow.",
        minimum=0,
    ),
    _size(
        "min_write_rate", 240,
        "Bytes a second that a client takes of what waits for it, beyond the first timeout-write "
        "seconds; a slower one is cut. 0: no matter how slow.",
        minimum=0,
    ),
    Option(
        "limit_max_requests", "int", 0, LIMITS,
        "Requests after which a worker is replaced. 0: never.", minimum=0, maximum=INT64_MAX,
    ),
    Option(
        "limit_max_requests_jitter", "int", 0, LIMITS,
        "Up to so many more, at random, so that workers are not replaced together.",
        minimum=0, maximum=INT64_MAX,
    ),
    Option(
        "limit_max_age", "float", 0.0, LIMITS,
        "Seconds after which a worker is replaced; up to a tenth more, at random. 0: never.",
        minimum=0.0, maximum=365 * DAY,
    ),
    Option(
        "limit_max_rss", "int", 0, LIMITS,
        "Resident memory in bytes above which a worker is replaced. 0: never.", "BYTES",
        minimum=0, maximum=INT64_MAX,
    ),
    # --- timeouts ---
    _seconds("timeout_tls_handshake", 10.0, "For a TLS handshake, from the connection on."),
    _seconds(
        "timeout_request_head", 10.0, "For a whole request head, from its first byte; then: 408.",
    ),
    _seconds("timeout_request_body", 30.0, "Between two pieces of a request body; then: 408."),
    _seconds("timeout_keep_alive", 5.0, "For the next request. 0: close after every response."),
    _seconds(
        "timeout_write", 30.0, "For a client that takes nothing of its response; then it is cut.",
    ),
    _seconds(
        "timeout_linger", 2.0,
        "For the client to read a last response before the connection closes.",
    ),
    Option(
        "timeout_graceful_shutdown", "float", None, TIMEOUTS,
        "For running requests when the server stops; then they are cut. 0: at once. "
        "Default: 30, with --reload 3.",
        minimum=0.0, maximum=DAY,
    ),
    Option(
        "shutdown_delay", "float", 0.0, TIMEOUTS,
        "To go on serving after SIGTERM while --health-path says 503, so that load balancers "
        "notice.", minimum=0.0, maximum=DAY,
    ),
    Option(
        "timeout_disconnect", "float", 1.0, TIMEOUTS,
        "ASGI: for running requests when the server stops, before receive() says that the client "
        "has left, which ends streams and long polls, and WebSockets are closed with 1012.",
        minimum=0.0, maximum=DAY,
    ),
    _seconds(
        "timeout_cancel", 0.0,
        "ASGI: for an application to end once its client has left, as receive() says; then it is "
        "cancelled. 0: it never is.",
    ),
    Option(
        "timeout_worker_healthcheck", "float", 30.0, TIMEOUTS,
        "For a worker to give a sign of life; then it is killed and replaced. 0: none.",
        minimum=0.5, maximum=DAY, zero=True,
    ),
    # --- logging ---
    Option(
        "log_level", "str", None, LOGGING,
        "Least important messages to log. Default: info.",
        choices=("critical", "error", "warning", "info", "debug", "trace"),
    ),
    Option(
        "log_config", "str", None, LOGGING,
        "Set up the logging module from a file: .ini, .json or .yaml (needs PyYAML).", "FILE",
    ),
    Option("log_file", "str", None, LOGGING, "Write messages to this file.", "FILE"),
    Option("access_log", "bool", True, LOGGING, "Log a line for every request."),
    Option(
        "access_log_file", "str", None, LOGGING,
        "Write the access log to this file; - is the standard output. Default: -.", "FILE",
    ),
    Option(
        "access_log_format", "str", "uvicorn", LOGGING,
        "uvicorn, common, combined, json, or a format with %(…)s atoms as gunicorn has them.",
        "FORMAT",
    ),
    Option(
        "use_colors", "bool", None, LOGGING,
        "Colours in the log. Default: on a terminal, unless NO_COLOR is set.",
    ),
    Option(
        "quiet", "bool", False, LOGGING, "Leave out the lines about starting and stopping.",
    ),
)  # fmt: skip

BY_NAME: dict[str, Option] = {option.name: option for option in OPTIONS}


def check(option: Option, value: Any) -> Any:
    """``value`` in the type that ``Config`` holds.

    Raises TypeError or ValueError; the text begins with the option's name.
    """
    if value is None and option.default is None:
        return None
    wanted: tuple[type, ...] = {
        "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "mode": (int,),
        "list": (list, tuple), "headers": (list, tuple),
    }[option.kind]  # fmt: skip
    kind = type(value)
    if kind is str and value in option.words:
        return value
    if option.kind == "list" and kind in (list, tuple):
        return _checked_words(option, value)
    if not issubclass(kind, wanted) or (kind is bool and option.kind != "bool"):
        names = " or ".join(one.__name__ for one in wanted)
        raise TypeError(f"{option.name}: {names} expected, not {kind.__name__}")
    if option.choices and value not in option.choices:
        raise ValueError(f"{option.name}: {value!r} is not one of {', '.join(option.choices)}")
    if option.kind in ("int", "float", "mode"):
        _check_range(option, value)
    if option.kind == "headers":
        return tuple(value)
    return float(value) if option.kind == "float" else value


def _checked_words(option: Option, value: Iterable[Any]) -> tuple[str, ...]:
    for one in value:
        if not isinstance(one, str):
            raise TypeError(f"{option.name}: str expected, not {type(one).__name__}")
        if not one:
            raise ValueError(f"{option.name}: a value is empty")
    return tuple(value)


def _check_range(option: Option, value: Any) -> None:
    if math.isnan(value):
        raise ValueError(f"{option.name}: not a number")
    if value == 0 and option.zero:
        return
    if option.minimum is not None and value < option.minimum:
        least = 0.0 if option.zero and value < 0 else option.minimum
        raise ValueError(f"{option.name}: {option.text(value)} is less than {option.text(least)}")
    if option.maximum is not None and value > option.maximum:
        raise ValueError(
            f"{option.name}: {option.text(value)} is more than {option.text(option.maximum)}"
        )


def core_value(option: Option, value: Any) -> int:
    """``value`` in the C core's unit: milliseconds for times, a bool for a switch."""
    if option.kind == "str":
        return int(value == "on")
    if option.kind == "float":
        return math.ceil(round(float(value) * 1000, 3))
    return int(value)


def core_rows() -> Iterable[Option]:
    """The rows that the C core reads."""
    return (option for option in OPTIONS if option.c_type)


def limits_header() -> str:
    """The text of limits.gen.h: ``AS_LIMITS(X)`` with ``X(type, field, default)`` for each row."""
    rows = [
        f"    X({option.c_type}, {option.name}, {core_value(option, option.default)})"
        for option in core_rows()
    ]
    return (
        "/* Made from asgiserver/options.py by tools/gen_limits.py. Bytes; milliseconds. */\n"
        "#define AS_LIMITS(X) \\\n" + " \\\n".join(rows) + "\n"
    )
