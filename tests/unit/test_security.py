"""docs/security.md names options with their defaults, tests and targets, and they are so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from asgiserver import options

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
WORDS = {option.word: option for option in options.OPTIONS}
# Decided at start, as its help says.
AT_START = {"timeout-graceful-shutdown": "30"}


def rows() -> list[tuple[str, str]]:
    """Option and default of each row that has both."""
    return re.findall(r"^\| [^|]* \| `--([a-z-]+)` \| `([^`]*)` \|", PAGE, re.MULTILINE)


def is_there(name: str) -> bool:
    path, _, test = name.partition("::")
    if not (ROOT / path).exists():
        return False
    tree = ast.parse((ROOT / path).read_text("utf-8")) if test else ast.Module([], [])
    return not test or any(getattr(node, "name", "") == test for node in tree.body)


@pytest.mark.parametrize(("word", "default"), rows())
def test_a_default_is_the_option_s(word: str, default: str) -> None:
    option = WORDS[word]
    assert default == AT_START.get(word, option.text(option.default))


def test_limits_and_timeouts_are_all_there() -> None:
    """One that is new belongs into a table, or into this list with its reason."""
    elsewhere = {
        "limit_body_discard", "limit_max_requests_jitter", "limit_max_age", # no bounds for a client
        "shutdown_delay", "timeout_disconnect", # order of the end
    }  # fmt: skip
    bounds = {
        option.name
        for option in options.OPTIONS
        if option.group in (options.LIMITS, options.TIMEOUTS)
    }
    assert bounds - {WORDS[word].name for word, _ in rows()} == elsewhere


def test_every_option_exists() -> None:
    words = set(re.findall(r"`--([a-z-]+)", PAGE))
    known = WORDS.keys() | {f"no-{word}" for word in WORDS}
    assert words <= known


def test_every_test_and_target_exists() -> None:
    names = re.findall(r"`((?:tests|fuzz|bench|tools|csrc)/[^` ]*)`", PAGE)
    assert len(names) > 20
    assert [name for name in names if not is_there(name)] == []
    targets = re.findall(r"`make ([a-z-]+)`", PAGE)
    assert len(targets) > 9
    assert set(targets) <= TARGETS


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_what_is_not_there_is_missed() -> None:
    assert not is_there("tests/e2e/test_http1.py::test_no_such_test")
    assert not is_there("tests/e2e/test_no_such_file.py")
