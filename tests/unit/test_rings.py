"""The rings of the C core: ``#include`` points only inwards (docs/design.md)."""

from __future__ import annotations

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
