"""``#include`` points only inwards through the rings of the C core (docs/design.md), and no module of the
Python around it needs itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent.parent / "csrc"

# What each ring may include of ours, and of others' (beside libc).
INWARDS = {
    "base": {"base"},
    "http": {"base", "http"},
    "net": {"base", "http", "net"},
    "gateway": {"base", "http", "net", "gateway"},
    "": {"base", "http", "net", "gateway", ""},
}
FOREIGN = {
    "base": set(),
    "http": {"llhttp.h", "openssl/err.h", "openssl/sha.h", "zlib.h"},
    "net": {
        "uv.h",
        "openssl/err.h",
        "openssl/pem.h",
        "openssl/rand.h",
        "openssl/ssl.h",
        "openssl/x509.h",
        "openssl/x509v3.h",
    },
    "gateway": {"Python.h", "structmember.h"},
    "": {"Python.h", "llhttp.h", "uv.h"},  # for their versions
}
# Headers through which a ring's includes come indirectly, and that only one ring may name.
GUARDED = {"llhttp.h", "uv.h", "Python.h", "structmember.h", "zlib.h"}
GUARDED_FOLDERS = {"openssl"}

SOURCES = sorted(path for path in CSRC.rglob("*.[ch]"))
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def ring(path: Path) -> str:
    parts = path.relative_to(CSRC).parts
    return parts[0] if len(parts) > 1 else ""


def is_guarded(name: str) -> bool:
    return name in GUARDED or name.partition("/")[0] in GUARDED_FOLDERS


def includes(text: str) -> list[tuple[str, bool]]:
    """Each name, and whether it is one of ours."""
    return [(own or foreign, bool(own)) for own, foreign in INCLUDE.findall(text)]


def faults(place: str, text: str) -> list[str]:
    found = []
    for name, own in includes(text):
        if own and not name.endswith(".gen.h"):
            target = name.partition("/")[0] if "/" in name else ""
            if target not in INWARDS[place]:
                found.append(f"{place or 'module.c'} includes {name}")
        elif is_guarded(name) and name not in FOREIGN[place]:
            found.append(f"{place or 'module.c'} includes <{name}>")
    return found


def test_there_are_sources() -> None:
    assert {ring(path) for path in SOURCES} == set(INWARDS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_includes_point_inwards(path: Path) -> None:
    assert faults(ring(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("base", '#include "http/head.h"\n'),
        ("http", '#include "net/loop.h"\n'),
        ("net", '#  include "gateway/gateway.h"\n'),
        ("net", "#include <Python.h>\n"),
        ("http", "#include <uv.h>\n"),
        ("gateway", "#include <uv.h>\n"),
        ("gateway", "#include <llhttp.h>\n"),
        ("gateway", "#include <zlib.h>\n"),
        ("net", "#include <openssl/sha.h>\n"),
        ("gateway", "#include <openssl/bio.h>\n"),
        ("http", "#include <openssl/ssl.h>\n"),
    ],
)
def test_a_wrong_include_is_found(place: str, text: str) -> None:
    assert len(faults(place, text)) == 1


# --- the Python around it ------------------------------------------------------------------------

PACKAGE = CSRC.parent / "asgiserver"


def modules(folder: Path) -> dict[str, Path]:
    """By their names within the package."""
    names = {path: path.relative_to(folder).with_suffix("").parts for path in folder.rglob("*.py")}
    return {".".join(name).removesuffix(".__init__"): path for path, name in names.items()}


def imported(tree: ast.AST, package: list[str]) -> set[str]:
    """What a module of ``package`` takes from the whole package when it runs: at its beginning or, for
    a quicker start, within a function. What only type checkers follow is no dependency."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            name = ".".join(filter(None, base))
            found |= {name} if node.module else {f"{name}.{one.name}" for one in node.names}
        found |= imported(node, package)
    return {name.removeprefix(".") for name in found}


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Names each of which needs the next one, and the last one the first; none: []."""
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        done.add(name)
        return next(
            filter(None, (follow(one, [*path, name]) for one in sorted(arrows.get(name, ())))), []
        )

    return next(filter(None, (follow(name, []) for name in sorted(arrows))), [])


def test_no_module_needs_itself() -> None:
    found = modules(PACKAGE)
    arrows = {
        name: imported(ast.parse(path.read_text()), [*path.relative_to(PACKAGE).parent.parts])
        for name, path in found.items()
    }
    assert {"sockets", "serving"} <= arrows["worker"]
    assert {"gunicorn.requests", "tls"} <= arrows["gunicorn.workers"]
    assert circle(arrows) == []


def test_a_circle_is_found() -> None:
    sources = {
        "a": "from . import b",
        "b": "def late():\n    from .c import name",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import a",
    }
    arrows = {name: imported(ast.parse(text), []) for name, text in sources.items()}
    assert circle(arrows) == []
    arrows["c"] |= imported(ast.parse("from .a import x"), [])
    assert circle(arrows) == ["a", "b", "c"]
    assert imported(ast.parse("from ..config import Config\nfrom .x import y"), ["gunicorn"]) == {
        "config", "gunicorn.x",
    }  # fmt: skip
