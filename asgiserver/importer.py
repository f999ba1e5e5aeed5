"""Finding and importing the application, and saying plainly what is wrong when that fails."""

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from . import discovery
from .discovery import NAMES
from .errors import StartError
from .hints import did_you_mean
from .tracebacks import trim

_FORM = "module:name, path/to/file.py:name, or either without :name"
_MODULE = re.compile(r"\w+(\.\w+)*")


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be imported."""

    module: str  # dotted
    attribute: str  # dotted; empty: one of NAMES
    folder: Path  # to import from
    file: Path | None = None  # the module must be this file

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}" if self.attribute else self.module


def load(app: str | None, app_dir: str = "") -> tuple[Any, str]:
    """Imports the application.

    Returns the object and its name as ``module:name``. Puts ``app_dir`` (empty: the current folder)
    at the head of ``sys.path``. Raises StartError.
    """
    check_folder(app_dir)
    folder = Path(app_dir or ".").resolve()
    target = parse(app, folder) if app is not None else _discovered(folder)
    for path in (folder, target.folder):
        if sys.path[:1] != [str(path)]:
            sys.path.insert(0, str(path))
    module = _import(target)
    value, attribute = _attribute(module, target)
    return value, f"{target.module}:{attribute}"


def parse(text: str, folder: Path) -> Target:
    """What ``text`` (the APP of the command line) names. Raises StartError."""
    name, colon, attribute = text.partition(":")
    if not name or (colon and not attribute):
        raise StartError(f'"{text}" does not say which application to serve. Write {_FORM}.')
    if attribute.endswith("()"):
        raise StartError(f'"{text}": to call a factory, write --factory {text.removesuffix("()")}')
    if not all(part.isidentifier() for part in attribute.split(".")) and attribute:
        raise StartError(f'"{attribute}" in "{text}" is not a name. Write {_FORM}.')
    if name.endswith(".py"):
        return _parse_file(Path(name), attribute, folder)
    if os.sep in name:
        raise StartError(_not_a_module(name, colon + attribute))
    if not _MODULE.fullmatch(name):
        raise StartError(f'"{name}" is not the name of a module. Write {_FORM}.')
    return Target(name, attribute, folder)


def _not_a_module(name: str, rest: str) -> str:
    if Path(f"{name}.py").is_file():
        return f'"{name}" is not the name of a module. Did you mean {name}.py{rest}?'
    dotted = ".".join(part for part in Path(name).parts if part not in (os.sep, "."))
    return f'"{name}" is not the name of a module. Did you mean {dotted}{rest}?'


def _parse_file(path: Path, attribute: str, folder: Path) -> Target:
    """The module that ``path`` is: inside a package, by its full name from the outermost package
    on.
    """
    file = next((base / path for base in (Path.cwd(), folder) if (base / path).is_file()), None)
    if file is None:
        near = did_you_mean(path.name, [entry.name for entry in _entries(Path.cwd() / path.parent)])
        raise StartError(f"There is no file {path} in {Path.cwd()}.{near}")
    file = file.resolve()
    parts = [] if file.name == "__init__.py" else [file.stem]
    root = file.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if any("." in part for part in parts):
        raise StartError(f"{path} cannot be imported: there is a dot in its name. Rename it.")
    return Target(".".join(parts), attribute, root, file)


def _discovered(folder: Path) -> Target:
    found = discovery.find(folder)
    if found is None:
        files = ", ".join(discovery.FILES)
        names = " or ".join(NAMES)
        raise StartError(
            f"No application was named, and {folder} has no {files} with {names}. "
            f"Write: asgiserver module:name.{discovery.suggest(folder)}"
        )
    return Target(found.module, found.attribute, folder, folder / f"{found.module}.py")


# --- importing ---


def _import(target: Target) -> ModuleType:
    try:
        module = importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        if _is_missing(error, target.module):
            raise StartError(_missing(target)) from None
        raise StartError(_failed(target, error), cause=trim(error)) from None
    except SystemExit as error:
        raise StartError(
            f"{target.module} ended the program (exit {error.code}) while it was imported. "
            'Put what runs a server behind: if __name__ == "__main__":',
            cause=trim(error),
        ) from None
    except Exception as error:
        raise StartError(_failed(target, error), cause=trim(error)) from None
    _check_file(module, target)
    return module


def _is_missing(error: ModuleNotFoundError, module: str) -> bool:
    """The module that was asked for does not exist; not: something that it imports does not."""
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
        return False
    return trim(error).__traceback__ is None


def _failed(target: Target, error: Exception) -> str:
    text = f"{target.module} failed while it was imported: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        text += f" (is it installed for {sys.executable}?)"
    return text


def _missing(target: Target) -> str:
    name = target.module
    text = f'There is no module "{name}" in {target.folder}, nor is one installed.'
    parent, _, last = name.rpartition(".")
    if (
        parent
        and (discovery.module_file(target.folder, parent) is not None)
        and not target.attribute
    ):
        return f"{text} Did you mean {parent}:{last}?"
    siblings = target.folder.joinpath(*parent.split(".")) if parent else target.folder
    known = [entry.stem for entry in _entries(siblings) if entry.suffix == ".py" or entry.is_dir()]
    near = did_you_mean(last, known, f"{parent}." if parent else "")
    return text + (near or " Is the current folder right? --app-dir names another one.")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _check_file(module: ModuleType, target: Target) -> None:
    """Another module of the same name, already imported or earlier in the path, is not what was
    meant.
    """
    have = getattr(module, "__file__", None)
    if target.file is not None and (have is None or Path(have).resolve() != target.file):
        raise StartError(
            f'{target.file} cannot be imported as "{target.module}": '
            f"that name belongs to {have or 'a built-in module'}. Rename the file."
        )


# --- the attribute ---


def _attribute(module: ModuleType, target: Target) -> tuple[Any, str]:
    if not target.attribute:
        for name in NAMES:
            if hasattr(module, name):
                return getattr(module, name), name
        raise StartError(_no_application(module))
    value: Any = module
    path, separator = target.module, ":"
    for name in target.attribute.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            near = did_you_mean(name, _public_names(value))
            raise StartError(f'"{path}" has no attribute "{name}".{near}') from None
        path, separator = f"{path}{separator}{name}", "."
    return value, target.attribute


def _public_names(value: Any) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_")]


def _no_application(module: ModuleType) -> str:
    text = f'"{module.__name__}" has neither app nor application'
    made_here = [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and not inspect.isclass(value)
        and (not inspect.isfunction(value) or value.__module__ == module.__name__)
    ]
    makers = [name for name in made_here if name in discovery.FACTORIES]
    if makers:
        return f"{text}. Is it a factory? Then: asgiserver --factory {module.__name__}:{makers[0]}"
    if made_here:
        return f"{text}. Is it {module.__name__}:{made_here[-1]}?"
    return f"{text}. Name it: asgiserver {module.__name__}:NAME"


# --- around the import ---


def call_factory(factory: Callable[[], Any], name: str) -> Any:
    """What the factory makes. Raises StartError with what it raised."""
    if not callable(factory):
        raise StartError(f"{name} is {_article(factory)}, not a factory that can be called.")
    try:
        app = factory()
    except Exception as error:
        if isinstance(trim(error), TypeError) and error.__traceback__ is None:
            raise StartError(
                f"{name} cannot be called without arguments ({error}). "
                "If it is the application itself, leave out --factory."
            ) from None
        text = f"The factory {name} failed: {type(error).__name__}: {error}"
        raise StartError(text, cause=error) from None
    if inspect.iscoroutine(app):
        app.close()
        raise StartError(
            f"The factory {name} is a coroutine function; it must be a plain function."
        )
    return app


def check_callable(app: Any, name: str) -> None:
    """Raises StartError for what cannot be an application."""
    if callable(app):
        return
    if isinstance(app, ModuleType):
        raise StartError(f"{name} is a module, not an application. Write {app.__name__}:app?")
    raise StartError(f"{name} is {_article(app)}, not an application that can be called.")


def _article(value: Any) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def check_folder(app_dir: str) -> None:
    """Raises StartError where the folder to import from is missing."""
    if app_dir and not os.path.isdir(app_dir):
        raise StartError(f"--app-dir {app_dir}: there is no such folder.")


def check_readable(word: str, path: str) -> None:
    """Raises StartError where the file of an option cannot be read."""
    if not os.path.exists(path):  # Not opened, since that would empty a pipe.
        raise StartError(f"{word} {path}: there is no such file.")
    if os.path.isdir(path):
        raise StartError(f"{word} {path}: this is a folder, not a file.")
    if not os.access(path, os.R_OK):
        raise StartError(f"{word} {path}: no permission to read it.")


def check_env_file(path: str) -> None:
    """Raises StartError without the file or without python-dotenv."""
    if importlib.util.find_spec("dotenv") is None:
        raise StartError("--env-file needs python-dotenv: pip install python-dotenv")
    check_readable("--env-file", path)


def load_env_file(path: str) -> None:
    """Puts the variables of a file into the environment, where they are not set already.

    Raises StartError as ``check_env_file`` does.
    """
    check_env_file(path)
    from dotenv import load_dotenv  # noqa: PLC0415 (optional)

    load_dotenv(path)
