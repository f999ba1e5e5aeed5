"""Guessing which application is meant when none is named, without running any of its code."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILES = ("main.py", "app.py", "asgi.py", "wsgi.py")
NAMES = ("app", "application")
FACTORIES = ("create_app", "make_app", "get_app", "create_application", "make_application", "main")


@dataclass(frozen=True, slots=True)
class Found:
    module: str
    attribute: str  # empty where the file cannot be parsed: importing it shows why


def find(folder: Path) -> Found | None:
    """The first of FILES that binds one of NAMES at its top level."""
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        bound = bound_names(path)
        if bound is None:
            return Found(path.stem, "")
        for attribute in NAMES:
            if attribute in bound:
                return Found(path.stem, attribute)
    return None


def suggest(folder: Path) -> str:
    """`` Did you mean …?`` with an application one level deeper (Django's lies there), or a
    factory.
    """
    for path in (path for name in reversed(FILES) for path in sorted(folder.glob(f"*/{name}"))):
        bound = bound_names(path) or set()
        for attribute in NAMES:
            if attribute in bound and path.parent.name.isidentifier():
                return f" Did you mean {path.parent.name}.{path.stem}:{attribute}?"
    for path in (folder / name for name in FILES):
        bound = (bound_names(path) or set()) if path.is_file() else set()
        for name in FACTORIES[:-1]:
            if name in bound:
                return f" Did you mean --factory {path.stem}:{name}?"
    return ""


def module_file(folder: Path, module: str) -> Path | None:
    """The source of ``module`` below ``folder``, if it is there."""
    base = folder.joinpath(*module.split("."))
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def bound_names(path: Path) -> set[str] | None:
    """The names that a file binds at its top level; None when it cannot be read or parsed."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    return set(_bound(tree.body))


def _bound(statements: list[ast.stmt]) -> Iterator[str]:
    for statement in statements:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name
            case ast.Import() | ast.ImportFrom():
                for alias in statement.names:
                    yield (alias.asname or alias.name).partition(".")[0]
            case ast.Assign():
                for target in statement.targets:
                    yield from _targets(target)
            case ast.AnnAssign(value=ast.expr()):
                yield from _targets(statement.target)
            case ast.If() | ast.Try() | ast.With():
                yield from _bound(statement.body)
                yield from _bound(getattr(statement, "orelse", []))
                yield from _bound(getattr(statement, "finalbody", []))
                for handler in getattr(statement, "handlers", []):
                    yield from _bound(handler.body)


def _targets(target: ast.expr) -> Iterator[str]:
    match target:
        case ast.Name():
            yield target.id
        case ast.Tuple() | ast.List():
            for element in target.elts:
                yield from _targets(element)
