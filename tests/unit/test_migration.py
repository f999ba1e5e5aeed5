"""docs/migration.md: every option named there is known, and hints.py says the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgiserver import hints
from asgiserver.cli import main as command

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "migration.md"
WORD = re.compile(r"(?<![\w-])--?[a-z][\w-]*", re.IGNORECASE)
KNOWN = {
    word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)
}
KNOWN |= {"-h", "--help"}


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Server, their names, ours, and the note of each row of the page."""
    server = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## From "):
            server = line.split()[2]
        elif line.startswith("| ") and not line.startswith(f"| {server} "):
            yield (server, *(part.strip() for part in line.strip("|").split(" |", 2)))  # type: ignore[misc]


ROWS = list(rows())


def in_code(text: str) -> list[str]:
    return [word for code in re.findall(r"`([^`]+)`", text) for word in WORD.findall(code)]


def test_the_page_has_four_servers() -> None:
    assert {row[0] for row in ROWS} == {"uvicorn", "gunicorn", "granian", "hypercorn"}
    assert len(ROWS) > 150


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1][:30]}")
def test_a_row(row: tuple[str, str, str, str]) -> None:
    _, theirs, ours, note = row
    words = in_code(theirs)
    if ours == "=":
        assert set(words) <= KNOWN
    elif ours == "–":  # noqa: RUF001
        assert note, "it says why"
    else:
        assert in_code(ours)
    assert set(in_code(ours)) <= KNOWN
    assert {word for word in in_code(note) if word not in words} <= KNOWN
    for word in set(words) - KNOWN:
        assert word in ("-v",) or hints.hint(word) is not None, f"{word} has no hint"


def test_hints_and_page_agree() -> None:
    """What a hint advises is what some row for that word has; "not yet" is said by both."""
    advised: dict[str, set[str]] = {}
    missing: dict[str, bool] = {}
    for _, theirs, ours, note in ROWS:
        for word in in_code(theirs):
            advised.setdefault(word, set()).update(in_code(f"{ours} {note}"))
            missing[word] = missing.get(word, False) or note.startswith("not yet")
    for word, known in advised.items():
        hint = None if word in KNOWN else hints.hint(word)
        if hint is None:
            continue
        spelled = re.search(r"is spelled (--[a-z-]+)", hint)
        if spelled is not None and word != "-p":
            assert spelled[1] in known, hint
        assert ("not supported yet" in hint) == missing[word], hint


def test_hints_name_options_that_exist() -> None:
    for word, text in {**hints._HINTS, **hints._PREFIXES}.items():
        assert word not in KNOWN, f"{word} is an option"
        assert set(WORD.findall(text)) <= KNOWN, text
