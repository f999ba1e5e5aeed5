"""The benchmarks' own arithmetic: a figure that is wrong there would be believed.

And one run of it, as short as it can be, against this server.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

from asbench import harness, load, measure, peers, report, scenarios, servers, targets  # noqa: E402


def row(
    server: str, *cpu_us: float, scenario="plain", interface="asgi", **more: Any
) -> dict[str, Any]:
    series = measure.Series(scenario, interface, server)
    for value in cpu_us:
        series.add({"cpu_us": value, "rate": 1e6 / value, "p999_us": 100 * value})
    return {**series.result(), **more}


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
            b"hi",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nhi", b"hi"),
    ],
    ids=["length", "chunked", "until the end"],
)
def test_reads_whole_answers(answer, body):
    assert harness.read_answer(io.BytesIO(answer)) == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n0\r\n\r\n",
    ],
    ids=["nothing", "status", "short", "chunk too long"],
)
def test_refuses_other_answers(answer):
    with pytest.raises(harness.BenchError):
        harness.read_answer(io.BytesIO(answer))


def test_json_is_compared_by_its_meaning():
    scenario = next(one for one in scenarios.ALL if one.name == "flask")
    assert scenario.right(b'{"message":"Hello, World!"}\n')
    assert not scenario.right(b'{"message":"Hello"}')
    assert not scenario.right(b"Hello, World!")


# --- load generators' reports --------------------------------------------------------------------

FIGURES = '{"answers": 4, "seconds": 2.0, "p50_us": 1, "p99_us": 2, "p999_us": 3, "errors": 0}'


def test_reads_what_wrk_prints():
    said = load.read_wrk(f"Running 1s test @ http://127.0.0.1/\n  4 requests in 2.00s\n{FIGURES}\n")
    assert said == load.Figures(4, 2.0, 1, 2, 3)


@pytest.mark.parametrize(
    "line",
    [
        FIGURES.replace('"errors": 0', '"errors": 1'),
        FIGURES.replace('"errors": 0', '"idle_lost": 1'),
        FIGURES.replace('"answers": 4', '"answers": 0'),
    ],
)
def test_errors_are_no_figures(line):
    with pytest.raises(harness.BenchError):
        load.read_figures(line)


def test_a_report_of_wrk_without_figures_is_an_error():
    with pytest.raises(harness.BenchError, match="no figures"):
        load.read_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


# --- statistics ----------------------------------------------------------------------------------


def test_spread():
    assert measure.spread([3.0, 1.0, 2.26], 1) == {"median": 2.3, "min": 1.0, "max": 3.0}


def test_each_round_has_another_order():
    names = ["a", "b", "c"]
    assert [measure.turns(names, n)[0] for n in range(4)] == ["a", "b", "c", "a"]
    assert sorted(measure.turns(names, 2)) == names
    assert measure.turns([], 3) == []


def test_busy_is_all_but_idle_and_waiting():
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    stat = "cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    assert measure.busy_ns(stat) == 63 * tick


def settings(**more: Any) -> measure.Settings:
    return measure.Settings(
        **{"rounds": 1, "seconds": 0.1, "repeats": 2, "server_core": 0, "client_core": 1, **more}
    )


@pytest.mark.parametrize(
    ("others", "kept", "repeated", "disturbed"),
    [
        ([0.05], 0.05, 0, 0),
        ([0.5, 0.01], 0.01, 1, 0),
        ([0.5, 0.3, 0.9], 0.3, 2, 1),
    ],
    ids=["quiet", "repeated", "never quiet"],
)
def test_what_others_disturb_is_repeated(others, kept, repeated, disturbed):
    tries = iter(others)
    series = measure.Series("plain", "asgi", "some")
    measure.measure_undisturbed(lambda: {"cpu_us": 1.0, "others": next(tries)}, settings(), series)
    assert series.rounds["others"] == [kept]
    assert (series.repeated, series.disturbed) == (repeated, disturbed)
    assert next(tries, None) is None


# --- targets -------------------------------------------------------------------------------------


def verdict(rows, scenario, interface, words):
    [found] = [
        one
        for one in targets.judge(rows)
        if (one.scenario, one.interface) == (scenario, interface) and words in one.text
    ]
    return found


def test_a_ratio_is_the_median_of_the_rounds():
    # The medians alone would say 1.0.
    a, b = row("a", 1, 2, 9), row("b", 2, 1, 3)
    assert targets.ratio(a, b) == 2


@pytest.mark.parametrize(("floor", "holds"), [(10.0, True), (8.0, False)])
def test_against_the_floor(floor, holds):
    found = verdict([row("asgiserver", 11), row("floor", floor)], "plain", "asgi", "the floor's")
    assert found.measured == pytest.approx(11 / floor)
    assert found.holds is holds


@pytest.mark.parametrize(("best", "holds"), [(15.0, True), (14.9, False)])
def test_the_best_peer_counts(best, holds):
    rows = [
        row("asgiserver", 10, scenario="headers"),
        row("granian", 40, scenario="headers"),
        row("freastal", best, scenario="headers"),
        row("gunicorn asgiserver", 10, scenario="headers"),
        row("in process", 1, scenario="headers"),
        row("nginx", 1, scenario="headers"),
        row("bjoern", 1, scenario="headers", interface="wsgi"),
        row("uvicorn", 1, scenario="headers", failed="it was wrong"),
    ]
    found = verdict(rows, "headers", "asgi", "1.5 ×")
    assert found.measured == pytest.approx(best / 10)
    assert found.holds is holds
    assert "freastal" in found.detail


def test_any_interface_of_python_counts_where_the_target_says_so():
    rows = [row("asgiserver", 10), row("granian", 40), row("bjoern", 11, interface="wsgi")]
    found = verdict(rows, "plain", "asgi", "either interface")
    assert found.measured == pytest.approx(1.1)
    assert found.holds is False


def test_the_floor_tells_what_changed_between_two_interfaces():
    # The machine was twice as slow when WSGI was measured.
    rows = [row("asgiserver", 10), row("floor", 5), row("bjoern", 24, interface="wsgi")]
    rows.append(row("floor", 10, interface="wsgi"))
    assert verdict(rows, "plain", "asgi", "either interface").measured == pytest.approx(1.2)


def test_a_named_peer():
    rows = [row("asgiserver", 10), row("granian", 29), row("uvicorn", 29)]
    assert verdict(rows, "plain", "asgi", "granian").holds is True
    assert verdict(rows, "plain", "asgi", "uvicorn").holds is False


def test_the_tail_of_answers_at_a_rate():
    rows = [row("asgiserver", 10, scenario="rate"), row("granian", 9, scenario="rate")]
    found = verdict(rows, "rate", "asgi", "p99.9")
    assert found.holds is False


@pytest.mark.parametrize(("whole", "holds"), [(32.0, True), (33.0, False)])
def test_a_framework_is_charged_without_its_own_cost(whole, holds):
    rows = [
        row("asgiserver", 9),
        row("in process", 1),
        row("asgiserver", whole, scenario="starlette"),
        row("in process", 20, scenario="starlette"),
    ]
    found = verdict(rows, "starlette", "asgi", "without the framework's own")
    assert found.measured == pytest.approx((whole - 20) / 8)
    assert found.holds is holds


@pytest.mark.parametrize(
    ("figure", "which", "value", "holds"),
    [
        ("idle_bytes", "max", 1024, True),
        ("idle_bytes", "max", 1025, False),
        ("idle_cpu_us", "median", 5000, False),
    ],
)
def test_idle_connections(figure, which, value, holds):
    extra: dict[str, Any] = {"idle_bytes": {"max": 0}, "idle_cpu_us": {"median": 0}}
    extra[figure] = {which: value}
    word = {"idle_bytes": "bytes", "idle_cpu_us": "CPU"}[figure]
    found = verdict([row("asgiserver", 9, scenario="idle", **extra)], "idle", "asgi", word)
    assert found.holds is holds


@pytest.mark.parametrize(("many", "holds"), [(12.5, True), (12.6, False)])
def test_growth(many, holds):
    rows = [
        row("asgiserver", 10, scenario="connections 64"),
        row("asgiserver", many, scenario="connections 10000"),
    ]
    assert verdict(rows, "growth", "asgi", "10,000").holds is holds


def test_what_is_not_measured_neither_holds_nor_fails():
    found = targets.judge([])
    assert found
    assert {one.holds for one in found} == {None}


# --- tables --------------------------------------------------------------------------------------


def results(rows) -> dict[str, Any]:
    return {
        "python": "3.11",
        "machine": "x86_64",
        "rounds": 1,
        "seconds": 1,
        "versions": {"floor": "1"},
        "absent": {"go": "no go on this machine"},
        "results": rows,
    }


def test_the_page_lists_what_does_not_hold_and_who_is_missing():
    rows = [
        row("asgiserver", 11, disturbed=1),
        row("floor", 5),
        row("uvicorn", failed="wrong | answer"),
    ]
    page = report.markdown(results(rows), targets.judge(rows))
    missed = page.partition("These do not hold:")[2]
    assert "- hello, ASGI: CPU ≤ 1.18 × the floor's; measured 2.20 (11.00 and 5.00 µs)" in missed
    assert "- go: no go on this machine" in page
    assert f"| uvicorn {f'| {report.MISSING} ' * 6}| failed: wrong / answer |" in page
    assert "1 that stand here were disturbed" in page
    assert f"| hello | 11.0 | 5.00 | {report.MISSING} |" in page


def test_the_readme_changes_between_its_markers_only():
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.between_markers(text, "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="no <!--"):
        report.between_markers("nothing here", "new")


def test_the_readme_has_the_markers():
    assert report.between_markers((BENCH.parent / "README.md").read_text(), "x")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, report.MISSING), (0, "0"), (1.234, "1.23"), (12.34, "12.3"), (1234567, "1,234,567")],
)
def test_numbers(value, text):
    assert report.number(value) == text


# --- servers -------------------------------------------------------------------------------------


def test_every_peer_has_an_environment_with_pinned_versions():
    wanted = peers.wanted()
    used = {entry.peer for entry in servers.SERVERS if entry.peer}
    used |= {name for entry in servers.SERVERS for name in entry.also}
    assert used | {"frameworks", "plots"} == set(wanted)
    packages = [word for words in wanted.values() for word in words if not word.startswith("-")]
    assert all("==" in word for word in packages if word != "requirements/constraints.txt")


def test_names_are_told_apart():
    names = [(entry.name, entry.interface) for entry in servers.SERVERS]
    assert len(names) == len(set(names))
    names = [(one.name, interface) for one in scenarios.ALL for interface in one.apps]
    assert len(names) == len(set(names))


def test_an_absent_server_is_named_with_the_reason(monkeypatch):
    monkeypatch.setattr(peers, "absent", lambda name: "not today")
    entry = next(one for one in servers.SERVERS if one.name == "uvicorn")
    assert servers.available([entry]) == ([], {"uvicorn": "not today"})


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def generator() -> None:
    """The load generator, which `make build` links; a build without tests has none."""
    if "ASAN_OPTIONS" in os.environ:
        pytest.skip("a build with the sanitizers has no floor")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    if not shutil.which("taskset"):
        pytest.skip("needs taskset")
    for name in ("http_load", "floor"):
        if not (BENCH / name).exists():
            pytest.skip(f"no bench/{name}: `make build` makes it")


def run(tmp_path: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCH / "run.py"), "--rounds", "1", "--seconds", "0.05"]
    command += ["--repeats", "0", "--output", str(tmp_path / "out"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    assert (tmp_path / "out.md").read_text().startswith("# Benchmark")
    return found


@pytest.mark.usefixtures("generator")
def test_runs(tmp_path):
    words = ["--server", "asgiserver", "--server", "floor", "--interface", "asgi"]
    found = run(tmp_path, *words, "--scenario=plain", "--scenario=rate")
    rows = {(one["scenario"], one["server"]): one for one in found["results"]}
    for scenario in ("plain", "rate"):
        for server in ("asgiserver", "floor"):
            one = rows[scenario, server]
            assert one["failed"] is None
            assert one["cpu_us"]["median"] > 0
            assert one["rate"]["median"] > 0
            assert one["p50_us"]["median"] <= one["p99_us"]["median"] <= one["p999_us"]["median"]
    assert rows["plain", "in process"]["cpu_us"]["median"] > 0


@contextlib.contextmanager
def serving(folder: Path, source: str) -> Iterator[harness.Server]:
    """This server with an application of the test's."""
    (folder / "served.py").write_text(source)
    port = harness.free_port()
    command = [sys.executable, "-m", "asgiserver", "served:app", "--app-dir", str(folder)]
    command += ["--port", str(port), "--log-level", "warning", "--no-access-log"]
    with harness.serving("ours", command, port, harness.two_cores()[0]) as server:
        yield server


STALLS = """
import itertools, time

number = itertools.count()

def app(environ, start_response):
    if next(number) == 25:
        time.sleep(0.4)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.usefixtures("generator")
def test_a_stall_is_charged_for_all_that_would_have_come(tmp_path):
    # 500 a second for 0.6 s, of which 200 are due while the server sleeps.
    asked = load.Load(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n", connections=1)
    core = harness.two_cores()[1]
    with (
        serving(tmp_path, STALLS) as server,
        load.generator("ours", server.port, asked, 2, 0.6, core, rate=500) as asking,
    ):
        said = asking.run()
    assert said.answers == 300
    assert said.p50_us > 50_000


STREAMS = """
def app(environ, start_response):
    start_response("200 OK", [])
    return (b"x" * 1000 for _ in range(30))
"""


@pytest.mark.usefixtures("generator")
@pytest.mark.parametrize("version", ["1.0", "1.1"], ids=["until the end", "chunked"])
@pytest.mark.parametrize("expect", [30_000, 29_999])
def test_the_generator_reads_bodies_of_no_given_length(tmp_path, version, expect):
    request = f"GET / HTTP/{version}\r\nHost: bench\r\n\r\n".encode()
    core = harness.two_cores()[1]
    wrong = pytest.raises(harness.BenchError, match="a body of 30000 bytes, not 29999")
    with (
        serving(tmp_path, STREAMS) as server,
        contextlib.nullcontext() if expect == 30_000 else wrong,
        load.generator("ours", server.port, load.Load(request, 4), expect, 0.05, core) as asking,
    ):
        said = asking.run()
        assert said.answers >= 4
        # A connection for each answer, or for all of them.
        assert said.opened == (said.answers if version == "1.0" else 0)


WRONG = """
async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": {status}, "headers": []}})
    await send({{"type": "http.response.body", "body": {body}}})
"""


@pytest.mark.usefixtures("generator")
@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(500, "b'Hello'", "not a 200"), (200, "b'Hello, World'", "a body of 12 bytes, not 13")],
)
def test_the_generator_refuses_wrong_answers(tmp_path, status, body, said):
    core = harness.two_cores()[1]
    with (
        serving(tmp_path, WRONG.format(status=status, body=body)) as server,
        pytest.raises(harness.BenchError, match=said),
        load.generator("ours", server.port, scenarios.PLAIN, 13, 0.05, core),
    ):
        pass
