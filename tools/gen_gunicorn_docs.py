"""Writes the table of settings in docs/gunicorn.md from asgiserver/gunicorn/settings.py."""

from __future__ import annotations

from pathlib import Path

from asgiserver.gunicorn.settings import table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gunicorn.md"
MARK = "<!-- Made by tools/gen_gunicorn_docs.py. -->\n\n"

if __name__ == "__main__":
    head, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(head + mark + table(), encoding="utf-8")
