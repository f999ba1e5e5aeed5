"""The table of options: every setting, limit, timeout and default of the server, once.

From it follow the command line (cli.py), the environment names, the defaults and checks of
``Config`` (config.py), the C struct of limits (limits.gen.h) and docs/config.md. Pure standard
library and free of imports from this package, since the build loads this file alone.

Sizes are bytes and times are seconds, here and everywhere in Python; the C core takes milliseconds.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["str", "int", "float", "bool", "mode", "headers"]

PREFIX = "ASGISERVER_"

APPLICATION = "Application"
LISTENING = "Listening"
HTTP = "HTTP"
LIMITS = "Limits"
TIMEOUTS = "Timeouts"
LOGGING = "Logging"
GROUPS = {
    APPLICATION: "",
    LISTENING: "",
    HTTP: "",
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

    ``name`` is the attribute of ``Config``; ``flag`` the word on the command line where it differs.
    ``default`` None means "decided at start", as ``help`` says. ``c_type`` is set for rows that the
    C core reads: its field has the row's name. ``minimum`` and ``maximum`` are inclusive; ``zero``
    is allowed below the minimum. ``metavar`` stands for the value in the help.
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
    zero: bool = False

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
        return f"--{self.word} {self.placeholder}"

    @property
    def placeholder(self) -> str:
        if self.choices:
            return "|".join(self.choices)
        return self.metavar or {"int": "N", "float": "SECONDS"}.get(self.kind, "TEXT")

    def text(self, value: Any) -> str:
        """``value`` as it would be written on the command line."""
        if self.kind == "bool":
            return "on" if value else "off"
        if self.kind == "mode":
            return f"{value:o}"
        return f"{value:g}" if isinstance(value, float) else str(value)


def _seconds(name: str, default: float, text: str) -> Option:
    """A timeout that the core watches."""
    # Not less than the core's unit, or it would be 0 there, and that means "none".
    return Option(
        name, "float", default, TIMEOUTS, text,
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
    # --- HTTP ---
    Option("server_header", "bool", True, HTTP, "Send the Server header.", c_type="bool"),
    Option("date_header", "bool", True, HTTP, "Send the Date header.", c_type="bool"),
    Option(
        "headers", "headers", (), HTTP,
        "Add a header to every response. May be given more than once; "
        "one a line in the environment.",
        "NAME:VALUE", flag="header",
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
        minimum=1, maximum=10_000,
    ),
    _size(
        "limit_request_body", GIB, "Largest request body in bytes; above: 413. 0: no limit.",
        minimum=0, maximum=INT64_MAX,
    ),
    _size(
        "limit_concurrency", 0, "Requests worked on at once; above: 503. 0: no limit.",
        minimum=0, maximum=UINT32_MAX,
    ),
    _size(
        "limit_connections", 0, "Open connections; above, new ones wait. 0: no limit.",
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
        "limit_body_discard", 65536,
        "Unread request body bytes that are skipped to keep the connection; above, it is closed.",
        minimum=0,
    ),
    # --- timeouts ---
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
        "timeout_graceful_shutdown", "float", 30.0, TIMEOUTS,
        "For running requests when the server stops; then they are cut. 0: at once.",
        minimum=0.0, maximum=DAY,
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
    Option("access_log", "bool", True, LOGGING, "Log a line for every request."),
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
        "headers": (list, tuple),
    }[option.kind]  # fmt: skip
    kind = type(value)
    if not issubclass(kind, wanted) or (kind is bool and option.kind != "bool"):
        names = " or ".join(one.__name__ for one in wanted)
        raise TypeError(f"{option.name}: {names} expected, not {kind.__name__}")
    if option.choices and value not in option.choices:
        raise ValueError(f"{option.name}: {value!r} is not one of {', '.join(option.choices)}")
    if option.kind in ("int", "float", "mode"):
        _check_range(option, value)
    return float(value) if option.kind == "float" else value


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
    """``value`` in the C core's unit: milliseconds for times."""
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
