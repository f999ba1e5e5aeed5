"""The corpus tests/cases/*.toml: raw requests and what must come out.

One ``[[case]]``::

    name      unique within its file
    why       the rule (RFC and section, advisory) that the case stands for
    raw       what the client sends; a character is a byte (Latin-1); ``<NAME>`` is replaced from ``expand``
    expand    {NAME = ["text", n]}: n times the text
    requests  what the application must see, in order; each a table of which only the given keys are looked at:
              method, version, path (decoded), raw_path, query, body,
              headers (all of them: [["name", "value"], …] with names in lower case), has (some of them),
              lacks (names), path_info (for WSGI, where it is not the UTF-8 of path)
    refused   the status that answers the bytes behind the requests; the connection closes then
    after     "open" (default): the connection serves on; "closed": the server closes behind the last answer;
              "cut": the same, or the client sees a reset, as it sends on against its word (RFC 9112, 9.6);
              "eof": the client half-closes behind raw, and the server closes
    only      "asgi" | "wsgi": where the other cannot show it
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "cases"
KEYS = {"name", "why", "raw", "expand", "requests", "refused", "after", "only"}
REQUEST_KEYS = {
    "method",
    "version",
    "path",
    "raw_path",
    "query",
    "body",
    "headers",
    "has",
    "lacks",
    "path_info",
}


@dataclass(frozen=True)
class Case:
    id: str
    why: str
    raw: bytes
    requests: list[dict[str, Any]] = field(default_factory=list)
    refused: int | None = None
    after: str = "open"
    only: str | None = None


def load_case(file: str, table: dict[str, Any]) -> Case:
    name = f"{file}:{table.get('name')}"
    unknown = set(table) - KEYS
    assert not unknown, f"{name}: unknown keys {unknown}"
    for request in table.get("requests", []):
        unknown = set(request) - REQUEST_KEYS
        assert not unknown, f"{name}: unknown keys {unknown}"
    raw = table["raw"]
    for placeholder, (text, count) in table.get("expand", {}).items():
        assert f"<{placeholder}>" in raw, f"{name}: {placeholder} is not used"
        raw = raw.replace(f"<{placeholder}>", text * count)
    after = table.get("after", "open")
    assert after in ("open", "closed", "cut", "eof"), f"{name}: after = {after!r}"
    assert table.get("requests") or "refused" in table or after == "eof", f"{name} expects nothing"
    assert table["why"], f"{name} has no reason"
    return Case(
        id=name,
        why=table["why"],
        raw=raw.encode("latin-1"),
        requests=table.get("requests", []),
        refused=table.get("refused"),
        after=after,
        only=table.get("only"),
    )


def load_cases(folder: Path = FOLDER) -> Iterator[Case]:
    seen: set[str] = set()
    for path in sorted(folder.glob("*.toml")):
        for table in tomllib.loads(path.read_text("utf-8"))["case"]:
            case = load_case(path.stem, table)
            assert case.id not in seen, f"{case.id} is there twice"
            seen.add(case.id)
            yield case


# --- how a case's bytes are cut ----------------------------------------------------------------------


def whole(raw: bytes) -> list[bytes]:
    return [raw]


def byte_by_byte(raw: bytes) -> list[bytes]:
    """Single bytes; of a very long case, pieces so that there are not more than about 2,000."""
    step = max(1, len(raw) // 2000)
    return [raw[at : at + step] for at in range(0, len(raw), step)]


def growing(raw: bytes) -> list[bytes]:
    """Parts of 1, 2, 3, … bytes."""
    parts, at, size = [], 0, 1
    while at < len(raw):
        parts.append(raw[at : at + size])
        at, size = at + size, size + 1
    return parts
