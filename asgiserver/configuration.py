"""The settings as people give them: command line, environment and file, put together to a ``Config``.

Each setting keeps where it came from and how its name was written there, for ``--print-config`` and
for errors. The command line wins over the environment, that over the file, and that over variables
which other servers use too (WEB_CONCURRENCY). An address is one setting with several spellings: one
that is given in a stronger place takes the place of whatever a weaker one says about listening.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import options
from .config import Config, Conflict
from .errors import USAGE, StartError
from .hints import did_you_mean
from .options import OPTIONS, Option

_PROJECT = "pyproject.toml"
_PROJECT_TABLE = ("tool", "asgiserver")

# Ways to say where to listen, of which only one can count.
_LISTENING = ({"bind"}, {"host", "port"}, {"uds"}, {"fd"})

_RELOADING = ("reload_dir", "reload_include", "reload_exclude")


@dataclass(frozen=True, slots=True)
class Given:
    """One setting as somebody gave it."""

    value: Any
    origin: str  # "command line", "environment variable ASGISERVER_PORT", "asgiserver.toml:3"
    spelling: str  # "--port", "ASGISERVER_PORT", "port (asgiserver.toml:3)"


# The settings of one place by their names in ``Config``; ``app`` is one of them.
Layer = Mapping[str, Given]


@dataclass(frozen=True, slots=True)
class Settings:
    """What was read, and from where. What is not in ``given`` has its default."""

    config: Config
    given: Layer


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from. All but the file stay as they are while a process runs."""

    command_line: Layer = field(default_factory=dict)
    environment: Layer = field(default_factory=dict)
    common: Layer = field(default_factory=dict)  # variables that other servers use too
    file: str | None = None  # None: the table of a pyproject.toml, if there is one

    def read(self) -> Settings:
        """Reads the file, puts everything together and checks it.

        Raises StartError: with status 1 for a file that cannot be read, else with 2.
        """
        layers = (self.command_line, self.environment, self._read_file(), self.common)
        given = _merged(layers)
        _refuse_idle_words(self.command_line, given)
        try:
            config = Config(**{name: one.value for name, one in given.items()})
        except (TypeError, ValueError) as error:
            raise _wrong(_explained(error, given)) from None
        return Settings(config, given)

    def _read_file(self) -> Layer:
        if self.file is not None:
            path = Path(self.file)
            table = _PROJECT_TABLE if path.name == _PROJECT else ()
            return _File(path, table).layer()
        app_dir = self.command_line.get("app_dir") or self.environment.get("app_dir")
        for folder in ("", *([app_dir.value] if app_dir is not None else [])):
            path = Path(folder, _PROJECT)
            if path.is_file() and (layer := _File(path, _PROJECT_TABLE).layer()):
                return layer
        return {}


def _wrong(text: str) -> StartError:
    return StartError(text if text.endswith("?") else f"{text}.", exit_code=USAGE)


def _merged(layers: tuple[Layer, ...]) -> dict[str, Given]:
    """The strongest of each setting, by the order of ``layers``."""
    merged: dict[str, Given] = {}
    for layer in layers:
        others = _other_addresses(merged)
        merged |= {
            name: given
            for name, given in layer.items()
            if name not in merged and name not in others
        }
    return merged


def _other_addresses(given: Layer) -> set[str]:
    """The spellings of an address that do not count any more."""
    chosen = [names for names in _LISTENING if names & given.keys()]
    return set[str]().union(*(names for names in _LISTENING if chosen and names not in chosen))


def _refuse_idle_words(command_line: Layer, given: Layer) -> None:
    """In a file they wait for a ``--reload`` on the command line; there, they mean a mistake."""
    reload = given.get("reload")
    for name in _RELOADING:
        if name in command_line and (reload is None or reload.value is not True):
            raise _wrong(f"{command_line[name].spelling}: does nothing without --reload")


def _explained(error: Exception, given: Layer) -> str:
    """The error of ``Config`` with names as they were written."""
    name, _, text = str(error).partition(": ")
    if name not in options.BY_NAME:
        return str(error)
    if isinstance(error, Conflict):
        text = f"{text.removesuffix(error.other)}{_spelling(error.other, given)}"
    return f"{_spelling(name, given)}: {text}"


def _spelling(name: str, given: Layer) -> str:
    return given[name].spelling if name in given else f"--{options.BY_NAME[name].word}"


# --- the file ---


class _File:
    """A TOML file, or one table of it."""

    def __init__(self, path: Path, table: tuple[str, ...]) -> None:
        self._path = path
        self._table = table
        try:
            self._text = path.read_bytes().decode("utf-8")
            self._values: Any = tomllib.loads(self._text)
        except OSError as error:
            raise StartError(f"--config {path}: {error.strerror}.") from None
        except ValueError as error:  # of TOML or of UTF-8
            raise _wrong(f"{path}: {str(error).rstrip('.')}") from None
        for name in table:
            self._values = self._values.get(name, {}) if isinstance(self._values, dict) else None
        if not isinstance(self._values, dict):
            raise _wrong(f"{path}: {'.'.join(table)} is not a table")

    def layer(self) -> dict[str, Given]:
        found: dict[str, Given] = {}
        for key, value in self._values.items():
            name = key.replace("-", "_")
            line = self._line(key)
            origin = f"{self._path}:{line}" if line else str(self._path)
            spelling = f"{key} ({origin})"
            if name != "app" and name not in options.BY_NAME:
                near = did_you_mean(name, ["app", *options.BY_NAME])
                raise _wrong(f"{spelling}: there is no such setting{near and f'.{near}'}")
            if name in found:
                raise _wrong(f"{spelling}: it is {found[name].spelling} too")
            try:
                converted = _from_toml(name, value, self._source(line))
            except ValueError as error:
                raise _wrong(f"{spelling}: {error}") from None
            found[name] = Given(converted, origin, spelling)
        return found

    def _line(self, key: str) -> int:
        """On which line of the file a key of the table stands; 0 where that cannot be told."""
        within: tuple[str, ...] = ()
        name = rf"[\"']?{re.escape(key)}[\"']?"
        for number, line in enumerate(self._text.splitlines(), 1):
            if header := re.match(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$", line):
                within = tuple(part.strip("\"' ") for part in header[1].split("."))
                if within[: len(self._table) + 1] == (*self._table, key):
                    return number
            elif within == self._table and re.match(rf"\s*{name}\s*[=.]", line):
                return number
        return 0

    def _source(self, line: int) -> str:
        return self._text.splitlines()[line - 1].partition("=")[2].strip() if line else ""


def _from_toml(name: str, value: Any, source: str) -> Any:
    """``value`` as ``Config`` takes it, which checks the rest. ``source`` is how it is written.

    Raises ValueError.
    """
    if name == "app":
        if not isinstance(value, str):
            raise ValueError("a string expected")
        return value
    match options.BY_NAME[name].kind:
        case "list":
            return [value] if isinstance(value, str) else value
        case "mode":
            return _mode(value, source)
        case "headers":
            return _headers(value)
        case _:
            return value


def _mode(value: Any, source: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if value and source and not source.startswith("0o"):
            raise ValueError(f"{value} is not octal; write 0o{value}")
        return value
    if isinstance(value, str) and re.fullmatch(r"(0o)?[0-7]+", value):
        return int(value, 8)
    raise ValueError(f"{value!r} is not an octal number like 0o660")


def _headers(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list) and all(isinstance(one, str) and ":" in one for one in value):
        pairs = [tuple(part.strip() for part in one.split(":", 1)) for one in value]
    else:
        pairs = [("", None)]
    if any(not isinstance(text, str) for _, text in pairs):
        raise ValueError('a table of strings, or an array of "NAME: VALUE", expected')
    return pairs


# --- showing it ---


def shown(settings: Settings) -> str:
    """Every setting as TOML, with a comment where it came from. It can be read as a file again."""
    config, given = settings.config, settings.given
    lines = [_entry("app", None if config.app is None else _toml(config.app), given)]
    for group in options.GROUPS:
        lines += ["", f"# {group}"]
        lines += [
            _entry(row.name, _text(row, getattr(config, row.name)), given)
            for row in OPTIONS
            if row.group == group
        ]
    return "\n".join(lines) + "\n"


def _entry(name: str, text: str | None, given: Layer) -> str:
    if text is None:
        return f"# {name} is not set"
    origin = given[name].origin if name in given else "default"
    if name in options.BY_NAME and options.BY_NAME[name].secret:
        return f"# {name} is set, and not shown: {origin}"
    return f"{name} = {text}  # {origin}"


def _text(row: Option, value: Any) -> str | None:
    if value is None:
        return None
    if row.kind == "mode":
        return f"0o{value:o}"
    if row.kind == "headers":
        return _toml([f"{name}: {text}" for name, text in value])
    return _toml(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A basic string is JSON's, but for DEL; what is not UTF-8 has no spelling.
        text = json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)
        return text.replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = (f"{_toml(name)} = {_toml(one)}" for name, one in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return repr(value)
