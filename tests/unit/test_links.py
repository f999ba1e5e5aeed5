"""What the documents point at is there: pages, headings, and files that are named by their paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "bench/*.md", "deploy/**/*.md", "fuzz/*.md")
    for page in ROOT.glob(pattern)
)
FOLDERS = [one.name for one in ROOT.iterdir() if one.is_dir() and not one.name.startswith(".")]

LINK = re.compile(r"\]\(([^)\s]+)\)")
DEFINITION = re.compile(r"^\[[^\]]+\]:\s*(\S+)$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# In backticks, from the root: files of a folder that the repository has. A * stands for several.
FILE = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w.*/-]+\.\w+)`")
MADE = ("build/",)  # by the build


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    texts = HEADING.findall(CODE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def broken(page: Path, text: str) -> list[str]:
    text = CODE.sub("", text)
    found = []
    for link in LINK.findall(text) + DEFINITION.findall(text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    named = [name for name in FILE.findall(text) if not name.startswith(MADE)]
    return found + [name for name in named if not list(ROOT.glob(name))]


def test_there_are_pages() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "design.md", "click.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_at(page: Path) -> None:
    assert broken(page, page.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "[a page](docs/no.md)",
        "[a heading](docs/design.md#no-such-thing)",
        "[one here](#nowhere)",
        "[x]: docs/no.md",
        "see `csrc/http/no.c`",
        "see `tests/cases/*.json`",
    ],
)
def test_what_is_not_there_is_found(text: str) -> None:
    assert len(broken(ROOT / "README.md", text)) == 1


def test_what_is_there_is_found() -> None:
    text = (
        "[x](docs/design.md#the-exchange) [y](https://no.example) `csrc/http/*.c` `build/venv/a.b`"
    )
    assert broken(ROOT / "README.md", text) == []
