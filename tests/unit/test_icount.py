"""bench/icount.py: which change of the counts is told, kept, or called worse."""

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def icount(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.delitem(sys.modules, "icount", raising=False)
    import icount

    yield icount
    sys.modules.pop("icount", None)


HERE = {"python": "3.11.7", "compiler": "gcc 12"}
ELSEWHERE = {"python": "3.12.1", "compiler": "gcc 12"}


@pytest.mark.parametrize(("new", "worse"), [(1029.0, False), (1031.0, True), (500.0, False)])
def test_more_than_three_per_cent_more_is_worse(icount, new, worse):
    lines, errors = icount.compare({"asgi-plain": 1000.0}, {"asgi-plain": new})
    assert len(lines) == 1
    assert f"{new:,.1f}" in lines[0] and f"{new / 1000 - 1:+.2%}" in lines[0]
    assert bool(errors) == worse
    if worse:
        assert "asgi-plain" in errors[0] and "1,031.0" in errors[0] and "+3.1%" in errors[0]


def test_every_scenario_is_judged_by_itself(icount):
    known = {"a": 100.0, "b": 100.0, "c": 100.0}
    lines, errors = icount.compare(known, {"a": 90.0, "b": 104.0, "new": 7.0})
    assert len(lines) == 3
    assert [error.split(":")[0] for error in errors] == ["b"]
    assert lines[2].endswith("new")


def test_figures_are_of_one_environment(icount):
    figures = icount.updated([], HERE, {"a": 1.0, "b": 2.0})
    figures = icount.updated(figures, ELSEWHERE, {"a": 10.0})
    assert icount.find_known(figures, HERE) == {"a": 1.0, "b": 2.0}
    assert icount.find_known(figures, ELSEWHERE) == {"a": 10.0}
    assert icount.find_known(figures, {**HERE, "compiler": "clang 14"}) is None
    # Some scenarios anew: the others stay.
    figures = icount.updated(figures, HERE, {"b": 3.0})
    assert icount.find_known(figures, HERE) == {"a": 1.0, "b": 3.0}
    assert icount.find_known(figures, ELSEWHERE) == {"a": 10.0}
    assert len(figures) == 2


def test_the_total_is_read_from_callgrinds_file(icount, tmp_path):
    profile = tmp_path / "profile"
    profile.write_text("version: 1\nevents: Ir\nsummary: 12\nfn=(1) x\n1 12\ntotals: 12\n")
    assert icount.read_total(profile) == 12
    profile.write_text("version: 1\n")
    with pytest.raises(icount.harness.BenchError):
        icount.read_total(profile)


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.1, 1)])
def test_the_exit_status_tells(icount, monkeypatch, tmp_path, capsys, factor, status):
    file = tmp_path / "icount.json"
    counts = {scenario.name: 1000.0 for scenario in icount.SCENARIOS}
    file.write_text(json.dumps([{"environment": HERE, "scenarios": counts}]))
    monkeypatch.setattr(icount, "FIGURES", file)
    monkeypatch.setattr(icount, "environment", lambda: HERE)
    monkeypatch.setattr(icount.shutil, "which", lambda _: "/usr/bin/it")
    monkeypatch.setattr(icount, "count", lambda *_: 1000.0 * factor)
    monkeypatch.setattr(sys, "argv", ["icount.py", "--only", "wsgi-pipelined"])
    assert icount.main() == status
    told = capsys.readouterr()
    assert told.out.startswith("wsgi-pipelined ")
    assert ("error: wsgi-pipelined" in told.err) == bool(status)
    monkeypatch.setattr(sys, "argv", ["icount.py", "--only", "wsgi-pipelined", "--write"])
    assert icount.main() == 0
    monkeypatch.setattr(sys, "argv", ["icount.py", "--only", "wsgi-pipelined"])
    assert icount.main() == 0
