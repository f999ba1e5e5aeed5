"""The command line: ``asgiserver [OPTIONS] [APP]``, made from the table of options."""

import atexit
import os
import platform
import signal
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from . import configuration, hints, logs, options, stop
from ._version import __version__
from .config import Config, check_header
from .configuration import Given, Sources
from .errors import StartError
from .options import OPTIONS, Option

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:  # generic since 8.4 only
    _ParamType = click.ParamType

_WIDTH = 80

_INTRODUCTION = """\
Serve the Python web application APP, ASGI or WSGI.

APP is module:name or path/to/file.py:name. Without :name, app or application is taken. Without APP,
main.py, app.py, asgi.py or wsgi.py in the current folder is looked for.
"""

_EPILOGUE = """\
Each option is also an environment variable: ASGISERVER_PORT=9000, ASGISERVER_ACCESS_LOG=off, and
ASGISERVER_APP for the application. And a key in the file of --config: port = 9000.

The command line wins over the environment, the environment over the file.
"""

_CONFIG = "config"
_CONFIG_HELP = (
    "Read settings from a TOML file. Default: the table [tool.asgiserver] of pyproject.toml in the "
    "current folder, if there is one."
)
_CHECK_HELP = "Check the configuration, import the application, say OK and end."
_PRINT_HELP = "Show every setting and where it comes from, as a file for --config, and end."


class _Mode(_ParamType):
    """Access rights in octal."""

    name = "mode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else int(value, 8)
        except ValueError:
            self.fail(f"{value!r} is not an octal number like 660.", param, ctx)


class _Header(_ParamType):
    """``NAME:VALUE``."""

    name = "header"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, colon, text = value.partition(":")
        if not colon:
            self.fail(f"{value!r} is not NAME:VALUE.", param, ctx)
        pair = name.strip(), text.strip()
        try:
            check_header(*pair)
        except ValueError as problem:
            self.fail(f"{str(problem).removeprefix('headers: ')}.", param, ctx)
        return pair

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return [line for line in rv.splitlines() if line.strip()]  # Values may hold spaces.


class _Words(_ParamType):
    """One of several values."""

    name = "text"

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return rv.replace(",", " ").split()


class _Number(_ParamType):
    """A number in the row's range, or 0 where that is allowed below it."""

    def __init__(self, row: Option) -> None:
        self.name = "integer" if row.kind == "int" else "number"
        self._row = row

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self._row.words:
            return value
        try:
            number = int(value) if self._row.kind == "int" else float(value)
        except ValueError:
            self.fail(
                f"{value!r} is not {'a whole number' if self._row.kind == 'int' else 'a number'}.",
                param,
                ctx,
            )
        try:
            return options.check(self._row, number)
        except ValueError as problem:
            self.fail(f"{str(problem).partition(': ')[2]}.", param, ctx)


def _type(row: Option) -> _ParamType:
    if row.choices:
        return click.Choice(row.choices)
    match row.kind:
        case "int" | "float":
            return _Number(row)
        case "mode":
            return _Mode()
        case "headers":
            return _Header()
        case "list":
            return _Words()
        case _:
            return click.STRING


def _parameter(row: Option) -> click.Option:
    """The row as click wants it. Defaults stay with ``Config``: None means "not given"."""
    if row.kind == "bool":
        declarations = [row.name, f"--{row.word}/--no-{row.word}"]
        return click.Option(declarations, default=None, envvar=row.env, help=row.help)
    short = [f"-{row.short}"] if row.short else []
    return click.Option(
        [row.name, *short, f"--{row.word}"],
        type=_type(row),
        default=None,
        multiple=row.kind in ("headers", "list"),
        envvar=[row.env, row.fallback] if row.fallback else row.env,
        help=row.help,
    )


class _Command(click.Command):
    """Help in the table's groups, and hints for other servers' options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            text = hints.hint(error.option_name)
            if text is None:
                raise
            raise click.UsageError(text, ctx) from None
        except click.BadParameter as error:
            row = options.BY_NAME.get((error.param and error.param.name) or "")
            if row is not None and _is_of_environment(ctx, row.name):
                error.param_hint = f"environment variable {_variable(row)}"
            raise

    def format_help(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(_help_text())


def _help_text() -> str:
    parts = ["Usage: asgiserver [OPTIONS] [APP]\n", _paragraphs(_INTRODUCTION)]
    for group, note in options.GROUPS.items():
        rows = [_entry(row.spelling, _described(row)) for row in OPTIONS if row.group == group]
        parts.append(f"{group}{f' ({note})' if note else ''}:\n" + "".join(rows))
    parts.append(
        "Other:\n"
        + _entry("-c, --config FILE", _CONFIG_HELP)
        + _entry("--check-config", _CHECK_HELP)
        + _entry("--print-config", _PRINT_HELP)
        + _entry("--version", "Show the versions of asgiserver and what it is made of.")
        + _entry("-h, --help", "Show this.")
    )
    parts.append(_paragraphs(_EPILOGUE))
    return "\n".join(parts)


def _described(row: Option) -> str:
    if row.kind in ("bool", "headers") or row.default in (None, "", ()):
        shown = " Default: on." if row.default is True else ""
        return row.help + shown
    return f"{row.help} Default: {row.text(row.default)}."


def _paragraphs(text: str) -> str:
    filled = [textwrap.fill(paragraph, _WIDTH - 1) for paragraph in text.strip().split("\n\n")]
    return "\n\n".join(filled) + "\n"


def _entry(spelling: str, text: str, indent: int = 30) -> str:
    """An option and its help in two columns; a long spelling has a line of its own."""
    lines = textwrap.wrap(text, _WIDTH - 1 - indent, break_on_hyphens=False)
    head = f"  {spelling}"
    if len(head) > indent - 2:
        return "\n".join([head, *(" " * indent + line for line in lines)]) + "\n"
    return (
        "\n".join([head.ljust(indent) + lines[0], *(" " * indent + line for line in lines[1:])])
        + "\n"
    )


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from . import _core  # noqa: PLC0415 (the help works without the core)

    python = f"{platform.python_implementation()} {platform.python_version()}"
    click.echo(
        f"asgiserver {__version__} ({python}, libuv {_core.LIBUV_VERSION}, "
        f"llhttp {_core.LLHTTP_VERSION}, OpenSSL {_core.OPENSSL_VERSION}, {platform.system()} {platform.machine()})"
    )
    ctx.exit()


# --- what was given ---


def _is_of_environment(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT


def _variable(row: Option) -> str:
    """Where the environment has the setting: ours, or the one that servers share."""
    return row.env if os.environ.get(row.env) else row.fallback or row.env


def _sources(ctx: click.Context) -> Sources:
    """The settings of the command line and of the environment, with their origins."""
    command_line: dict[str, Given] = {}
    environment: dict[str, Given] = {}
    common: dict[str, Given] = {}
    for parameter in ctx.command.params:
        name, row = parameter.name, options.BY_NAME.get(parameter.name or "")
        if name is None or (row is None and name != "app"):
            continue
        value = ctx.params[name]
        if value == ():  # a variable with nothing but spaces
            continue
        match ctx.get_parameter_source(name):
            case ParameterSource.COMMANDLINE:
                command_line[name] = Given(value, "command line", _word(row, value))
            case ParameterSource.ENVIRONMENT:
                variable = f"{options.PREFIX}APP" if row is None else _variable(row)
                given = Given(value, f"environment variable {variable}", variable)
                is_common = row is not None and variable == row.fallback
                (common if is_common else environment)[name] = given
    return Sources(command_line, environment, common, ctx.params[_CONFIG])


def _word(row: Option | None, value: Any) -> str:
    if row is None:
        return "APP"
    return f"--no-{row.word}" if row.kind == "bool" and not value else f"--{row.word}"


def _serve(check_config: bool, print_config: bool, **_given: Any) -> None:
    sources = _sources(click.get_current_context())
    try:
        settings = sources.read()
        if print_config:
            click.echo(configuration.shown(settings), nl=False)
        if check_config:
            click.echo(_checked(settings.config))
    except StartError as problem:
        logs.report(problem)
        sys.exit(problem.exit_code)
    if check_config or print_config:
        return
    from .checks import check_files  # noqa: PLC0415
    from .running import run_config  # noqa: PLC0415

    def reread() -> Config:
        config = sources.read().config
        check_files(config)
        return config

    atexit.register(stop.ignore_signals)  # Before the application's: called behind them.
    for number in stop.SIGNALS:
        signal.signal(number, stop.end_process)
    sys.exit(run_config(settings.config, reread))


def _checked(config: Config) -> str:
    """The line that says that a server could be started, but for its addresses."""
    from .checks import check  # noqa: PLC0415
    from .interface import TITLES  # noqa: PLC0415

    application = check(config)
    return f"OK: {application.name} ({TITLES[application.interface]})"


main = _Command(
    "asgiserver",
    callback=_serve,
    params=[
        click.Argument(["app"], required=False, envvar=f"{options.PREFIX}APP", metavar="[APP]"),
        *(_parameter(row) for row in OPTIONS),
        click.Option([_CONFIG, "-c", "--config"], envvar=f"{options.PREFIX}CONFIG"),
        click.Option(["--check-config"], is_flag=True),
        click.Option(["--print-config"], is_flag=True),
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDTH},
)
