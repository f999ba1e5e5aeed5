"""docs/decisions/framing-rules.md names tests, and they are there."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from support.cases import load_cases
from support.smuggling import load_tricks

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "decisions" / "framing-rules.md"
CASES = [case.id for case in load_cases()]
TRICKS = {trick.name.partition(":")[0] for trick in load_tricks()}


def rows() -> list[tuple[str, list[str]]]:
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [(what, re.findall("`([^` ]+)`", tried)) for what, tried in cells]


def is_there(name: str) -> bool:
    path, _, test = name.partition("::")
    if path.endswith(".c"):
        return (TESTS / path).is_file()
    if test:
        tree = ast.parse((TESTS / path).read_text("utf-8"))
        return any(isinstance(node, ast.FunctionDef) and node.name == test for node in tree.body)
    if name.startswith("smuggling:"):
        return name.partition(":")[2] in TRICKS
    return any(fnmatchcase(case, name) for case in CASES)


@pytest.mark.parametrize(("what", "names"), rows(), ids=lambda value: str(value)[:60])
def test_each_has_its_tests(what: str, names: list[str]) -> None:
    tried = [name for name in names if ":" in name or name.endswith(".c")]
    assert tried, what
    assert [name for name in tried if not is_there(name)] == []


def test_what_is_not_there_is_missed() -> None:
    assert not is_there("framing:no-such-case")
    assert not is_there("smuggling:no-such-trick")
    assert not is_there("e2e/test_http1.py::test_no_such_test")
