"""tools/gen_security_figures.py: tables from rows, what is taken, and what --check notices."""

import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"

PAGE = "# Security\n\n<!-- figures -->\n<!-- end of figures -->\n\nThe end.\n"
ROWS = [
    {"name": "http1", "seconds": 60, "executions": 30728, "edges": 3311, "crashes": 0},
    {"name": "text", "seconds": 5, "executions": 2, "edges": 7, "crashes": 1},
]


@pytest.fixture
def tool(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.delitem(sys.modules, "gen_security_figures", raising=False)
    import gen_security_figures as tool

    monkeypatch.setattr(tool, "PAGE", tmp_path / "security.md")
    monkeypatch.setattr(tool, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(tool, "RESULTS", tmp_path / "results")
    tool.PAGE.write_text(PAGE)
    tool.RESULTS.mkdir()
    yield tool
    sys.modules.pop("gen_security_figures", None)


def leave(tool, name, value):
    (tool.RESULTS / f"{name}.json").write_text(json.dumps(value))


def test_a_table_of_rows_and_their_sum(tool):
    assert tool.fuzz(ROWS).splitlines() == [
        "| name | seconds | executions | edges | crashes |",
        "|---|---:|---:|---:|---:|",
        "| http1 | 60 | 30,728 | 3,311 | 0 |",
        "| text | 5 | 2 | 7 | 1 |",
        "| all | 65 | 30,730 |  | 1 |",
    ]


def test_what_is_absent_is_called_so(tool):
    assert tool.main([]) == 0
    page = tool.PAGE.read_text()
    assert page.count(tool.ABSENT) == len(tool.SECTIONS)
    assert page.startswith("# Security\n") and page.endswith("-->\n\nThe end.\n")


def test_check_notices_a_change_of_either(tool, capsys):
    leave(tool, "fuzz", ROWS)
    assert tool.main(["--check"]) == 1
    assert tool.main(["--take"]) == 0
    assert "| http1 | 60 |" in tool.PAGE.read_text()
    assert tool.main(["--check"]) == 0
    page = tool.PAGE.read_text()
    tool.PAGE.write_text(page.replace("30,728", "40,728"))
    assert tool.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    tool.PAGE.write_text(page)
    (tool.FIGURES / "fuzz.json").write_text(json.dumps(ROWS[:1]))
    assert tool.main(["--check"]) == 1
    assert tool.PAGE.read_text() == page


def test_no_memory_is_merged(tool):
    leave(tool, "no-memory-b", [{"name": "b", "cases": 3, "survived": 3, "lost": 0}])
    leave(tool, "no-memory-a", [{"name": "a", "cases": 4, "survived": 3, "lost": 1}])
    assert tool.main(["--take", "faults"]) == 0
    page = tool.PAGE.read_text()
    assert "| a | 4 | 3 | 1 |\n| b | 3 | 3 | 0 |\n| all | 7 | 6 | 1 |" in page


def test_only_what_is_named_is_taken(tool, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("fuzz", "mutation"):
        (elsewhere / f"{name}.json").write_text("[]")
    assert tool.main(["--take", "fuzz", "--from", str(elsewhere)]) == 0
    assert [path.name for path in tool.FIGURES.iterdir()] == ["fuzz.json"]
    with pytest.raises(SystemExit, match="soak: nothing in"):
        tool.main(["--take", "soak"])


def test_no_machine_is_told_of(tool):
    leave(tool, "fuzz", [{**ROWS[0], "name": "/home/somebody/fuzz_http1"}])
    with pytest.raises(SystemExit, match="absolute path"):
        tool.main(["--take"])
    assert not tool.FIGURES.exists()


def test_soak_shows_both_halves(tool):
    server = {
        "name": "asgi", "answers": 1000, "messages": 5, "connections": 70, "wrong": 0, "lost": 0,
        "reloads": 1, "kills": 0, "recycled": 2, "rss": [2048, 4096], "files": [21, 22],
    }  # fmt: skip
    text = tool.soak({"minutes": 20.0, "python": "3.11.7", "problems": 0, "servers": [server]})
    assert text.startswith("20 minutes, Python 3.11.7: 0 problems.\n\n")
    assert "| 2 → 4 | – | 21 → 22 |" in text


def test_a_page_without_markers_is_an_error(tool):
    tool.PAGE.write_text("# Security\n")
    with pytest.raises(SystemExit, match="no <!-- figures -->"):
        tool.main([])
