"""Watching files for ``--reload``: what is told, what is left out, how the process lives and ends."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.client import SLOWNESS

from asgiserver import Config, StartError, watch
from asgiserver.watch import Watcher
from asgiserver.watch_child import ADDED, DELETED, Filter, Tree

pytest.importorskip("watchfiles")

Start = Callable[..., Watcher]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path.resolve()


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    started: list[Watcher] = []

    def start(**settings: Any) -> Watcher:
        started.append(watch.start(Config(reload=True, **settings)))
        return started[-1]

    yield start
    for watcher in started:
        watcher.close()
        watcher.close()  # idempotent


def changes(watcher: Watcher, least: int = 1) -> set[str]:
    """What is told, relative to the current folder, until so many paths are known."""
    deadline = time.monotonic() + 10 * SLOWNESS
    found: set[str] = set()
    while len(found) < least:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([watcher], [], [], left)[0], f"only {found}"
        found.update(os.path.relpath(path) for path in watcher.read_changes())
    return found


def told_until(watcher: Watcher, marker: Path) -> set[str]:
    """What is told before a change of ``marker`` is, without it."""
    time.sleep(0.15)  # a debounced group of its own: what is told wrongly would come before
    marker.write_text("")
    found: set[str] = set()
    while marker.name not in found:
        found |= changes(watcher)
    return found - {marker.name}


def lengthen(path: Path) -> None:
    """By one event. ``write_text`` empties the file first, which may be told in a group of its own."""
    with path.open("a") as file:
        file.write("1")


# --- what is told ---


def test_created_changed_renamed_deleted(folder: Path, start: Start) -> None:
    (folder / "old.py").write_text("")
    watcher = start()
    assert watcher.read_changes() == []
    (folder / "new.py").write_text("")
    assert changes(watcher) == {"new.py"}
    lengthen(folder / "old.py")
    assert changes(watcher) == {"old.py"}
    (folder / "old.py").rename(folder / "moved.py")
    assert changes(watcher, 2) == {"old.py", "moved.py"}
    (folder / "moved.py").unlink()
    assert changes(watcher) == {"moved.py"}


def test_folders_that_come_and_go(folder: Path, start: Start) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c.py").write_text("")
    watcher = start()
    (folder / "a" / "b").rename(folder / "a" / "d")
    assert changes(watcher, 2) == {"a/b", "a/d/c.py"}
    lengthen(folder / "a" / "d" / "c.py")
    assert changes(watcher) == {"a/d/c.py"}
    elsewhere = folder.with_name(f"{folder.name}-elsewhere")
    (folder / "a" / "d").rename(elsewhere)
    assert changes(watcher) == {"a/d"}
    shutil.copytree(elsewhere, folder / "e")
    assert "e/c.py" in changes(watcher)


def write_over(path: Path) -> None:
    """As editors save: a new file beside it takes its place."""
    beside = path.with_name(f".{path.name}.swp")
    beside.write_text("1")
    os.replace(beside, path)


def keep_a_copy(path: Path) -> None:
    """The old file is moved away, a new one is written, the old one is deleted."""
    (path.parent / "4913").touch()
    (path.parent / "4913").unlink()
    path.rename(f"{path}~")
    path.write_text("1")
    Path(f"{path}~").unlink()


@pytest.mark.parametrize("save", [write_over, keep_a_copy])
def test_how_editors_save(folder: Path, start: Start, save: Callable[[Path], None]) -> None:
    path = folder / "main.py"
    path.write_text("")
    watcher = start()
    save(path)
    assert told_until(watcher, folder / "marker.py") == {"main.py"}


def test_what_is_not_told(folder: Path, start: Start) -> None:
    for name in (".venv/lib", "node_modules/x", "__pycache__", "own"):
        (folder / name).mkdir(parents=True)
    watcher = start(reload_exclude=["own", "left_*.py"])
    for name in (
        ".venv/lib/a.py", "node_modules/x/a.py", "__pycache__/a.py", "own/a.py", "left_out.py",
        "a.txt", ".hidden.py",
    ):  # fmt: skip
        (folder / name).write_text("")
    (folder / ".tox").mkdir()
    (folder / ".tox" / "a.py").write_text("")
    assert told_until(watcher, folder / "marker.py") == set()


def test_what_is_told_besides(folder: Path, start: Start) -> None:
    watcher = start(reload_include=["*.html", ".env"])
    for name in ("a.html", ".env", "a.css", ".envrc"):
        (folder / name).write_text("")
    assert told_until(watcher, folder / "marker.py") == {"a.html", ".env"}


def test_folders_by_name(folder: Path, start: Start) -> None:
    for name in ("one", "two", "more", "app", "other"):
        (folder / name).mkdir()
    (folder / "link").symlink_to("two")
    watcher = start(reload_dir=["one", "link"], reload_include=["more"], app_dir="app")
    for name in ("one", "two", "more", "app", "other"):
        (folder / name / "a.py").write_text("")
    assert changes(watcher, 3) == {"one/a.py", "two/a.py", "more/a.py"}
    (folder / "one" / "b.py").write_text("")
    assert changes(watcher) == {"one/b.py"}


def test_a_link_inside_is_followed(folder: Path, start: Start) -> None:
    (folder / "here").mkdir()
    (folder / "there").mkdir()
    (folder / "here" / "link").symlink_to(folder / "there")
    watcher = start(reload_dir=["here"])
    (folder / "there" / "a.py").write_text("")
    assert changes(watcher) == {"here/link/a.py"}


def test_a_link_to_itself(folder: Path, start: Start) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "loop").symlink_to(folder)
    watcher = start()
    (folder / "b.py").write_text("")
    assert "b.py" in changes(watcher)


def test_app_dir_is_watched_too(folder: Path, start: Start, tmp_path_factory: Any) -> None:
    app_dir = tmp_path_factory.mktemp("app")
    watcher = start(app_dir=str(app_dir))
    (app_dir / "a.py").write_text("")
    assert changes(watcher) == {os.path.relpath(app_dir / "a.py")}


def test_many_changes_at_once(folder: Path, start: Start) -> None:
    watcher = start()
    names = {f"{'long' * 50}{number}.py" for number in range(1000)}
    for name in names:
        (folder / name).write_text("")
    assert changes(watcher, len(names)) == names


# --- patterns ---


@pytest.mark.parametrize(
    ("path", "includes", "excludes", "told"),
    [
        ("a.py", [], [], True),
        ("a/b/c.py", [], [], True),
        ("a.pyc", [], [], False),
        ("a.txt", [], [], False),
        ("a.txt", ["*.txt"], [], True),
        ("a.txt", ["a/*.txt"], [], False),
        ("a/b.txt", ["a/*.txt"], [], True),
        ("a.txt", ["*.txt"], ["a.*"], False),
        ("a.py", [], ["*.py"], False),
        ("a/b/c.py", [], ["a"], False),
        ("a/b/c.py", [], ["a/b"], False),
        ("a/b/c.py", [], ["a/b/"], False),
        ("a/b/c.py", [], ["./a/b"], False),
        ("a/b/c.py", [], ["a/**"], False),
        ("a/b/c.py", [], ["/root/a/b"], False),
        ("a/b/c.py", [], ["b/c"], True),
        ("a/b/c.py", [], ["root"], True),
        ("A.py", [], ["a.py"], True),
        ("a.py", ["."], ["./"], True),
        (".a.py", [], [], False),
        (".git/a.py", [], [], False),
        (".git/a.py", [".*"], [], True),
        (".env", [], [], False),
        (".env", ["*"], [], False),
        (".env", [".env"], [], True),
        (".env", [".env"], [".env"], False),
        (".venv/.env", [".env"], [], False),
        ("node_modules/a/b.py", [], [], False),
        ("node_modules/a/b.py", ["node_modules"], [], True),
        ("venv/lib/python3.11/site-packages/a.py", [], [], False),
        ("build/lib/a.py", [], [], False),
        ("build/a.py", [], [], True),
        ("a.py~", ["*"], [], False),
        ("#a.py#", ["*"], [], False),
        ("a.swp", ["*"], [], False),
        ("a.py___jb_tmp___", ["*"], [], False),
        ("Makefile", ["*"], [], True),
    ],
)
def test_patterns(path: str, includes: list[str], excludes: list[str], told: bool) -> None:
    assert Filter(["/root"], includes, excludes).file(f"/root/{path}") is told


def test_hidden_folders_above_do_not_count() -> None:
    assert Filter(["/home/.work/app"], [], []).file("/home/.work/app/a.py")


def test_a_folder_that_is_gone_is_known(tmp_path: Path) -> None:
    for name in ("a", ".b"):
        (tmp_path / name).mkdir()
    tree = Tree(Filter([str(tmp_path)], [], []), [str(tmp_path)])
    assert tree.files([(DELETED, str(tmp_path / "a"))]) == [str(tmp_path / "a")]
    assert tree.files([(DELETED, str(tmp_path / "a"))]) == []
    assert tree.files([(DELETED, str(tmp_path / ".b")), (DELETED, str(tmp_path / "c"))]) == []
    assert tree.files([(ADDED, str(tmp_path / ".b"))]) == []


# --- what cannot be watched ---


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"reload_dir": ["none"]}, "--reload-dir none: there is no such folder."),
        ({"reload_dir": ["a.py"]}, "--reload-dir a.py: there is no such folder."),
        (
            {"reload_dir": ["/"]},
            "--reload-dir /: / is the whole machine. Name a folder by --reload-dir.",
        ),
    ],
)
def test_refused(folder: Path, settings: dict[str, Any], text: str) -> None:
    (folder / "a.py").touch()
    for attempt in (watch.check, watch.start):
        with pytest.raises(StartError) as caught:
            attempt(Config(reload=True, **settings))
        assert (str(caught.value), caught.value.exit_code) == (text, 1)


def test_without_watchfiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(StartError, match=r"^--reload needs watchfiles: pip install watchfiles$"):
        watch.start(Config(reload=True))


def test_what_watchfiles_says_is_said(folder: Path) -> None:
    gone = folder / "gone"
    with pytest.raises(StartError, match=r"^--reload: watchfiles cannot watch \(No path was found"):
        Watcher([str(gone)], [], [])


# --- the process ---


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_it_ends_and_leaves_nothing(start: Start) -> None:
    before = descriptors()
    watcher = start()
    pid = watcher._process.pid
    watcher.close()
    assert watcher._process.returncode == -signal.SIGKILL
    assert not Path(f"/proc/{pid}").exists()
    assert descriptors() == before


def test_a_child_that_died_is_told(start: Start) -> None:
    watcher = start()
    os.kill(watcher._process.pid, signal.SIGKILL)
    assert select.select([watcher], [], [], 10 * SLOWNESS)[0]
    with pytest.raises(StartError, match="has ended; changes are not seen any more"):
        watcher.read_changes()


def test_a_child_reaped_by_someone_else(start: Start) -> None:
    watcher = start()
    os.kill(watcher._process.pid, signal.SIGKILL)
    os.waitpid(watcher._process.pid, 0)
    with pytest.raises(StartError, match="has ended"):
        watcher.read_changes()


def test_a_terminals_signals_do_not_reach_it(folder: Path, start: Start) -> None:
    watcher = start()
    assert os.getpgid(watcher._process.pid) != os.getpgrp()
    os.kill(watcher._process.pid, signal.SIGINT)
    (folder / "a.py").write_text("")
    assert changes(watcher) == {"a.py"}


def test_it_ends_with_its_parent(folder: Path) -> None:
    code = (
        "import os, signal\n"
        "from asgiserver import Config, watch\n"
        "watcher = watch.start(Config(reload=True))\n"
        "if os.fork() == 0:\n"  # as a worker, which holds the pipe open
        "    os.read(0, 1)\n"
        "    os._exit(0)\n"
        "print(watcher._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # With its own copy of standard error it shows up here if it prints anything.
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=folder,
    )  # fmt: skip
    assert parent.stdin and parent.stdout and parent.stderr
    pid = int(parent.stdout.readline())
    deadline = time.monotonic() + 10 * SLOWNESS
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)
    parent.stdin.close()
    assert parent.stderr.read() == b""
    parent.stdout.close()
    parent.stderr.close()
    parent.wait(10)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_an_idle_one_uses_no_processor_time(folder: Path, start: Start) -> None:
    watcher = start()
    stat = Path(f"/proc/{watcher._process.pid}/stat")

    def used() -> float:
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(5)
    assert used() - before < 0.15


def test_what_changes_just_then_is_told(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody has read yet that it watches."""
    program = folder / "program.py"
    program.write_text("import os, time\nos.write(1, b'[]\\n[\"a\"]\\n')\ntime.sleep(600)\n")
    monkeypatch.setattr(watch, "_PROGRAM", program)
    assert changes(start()) == {"a"}


def test_messages_may_come_in_pieces(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "program.py"
    program.write_text(
        "import os, time\n"
        "for piece in (b'[', b']', b'\\n[\"a', b'\"]\\n[\"b'):\n"
        "    os.write(1, piece)\n"
        "    time.sleep(0.1)\n"
    )
    monkeypatch.setattr(watch, "_PROGRAM", program)
    watcher = start()
    assert changes(watcher) == {"a"}
    with pytest.raises(StartError, match="has ended"):
        while True:
            changes(watcher)


def test_a_child_that_ends_at_once(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "program.py").write_text("")
    monkeypatch.setattr(watch, "_PROGRAM", folder / "program.py")
    with pytest.raises(StartError, match="has ended; changes are not seen any more"):
        start()


def test_a_child_that_does_not_begin(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "program.py"
    program.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(watch, "_PROGRAM", program)
    monkeypatch.setattr(watch, "_PATIENCE", 0.1)
    before = descriptors()
    with pytest.raises(StartError, match=r"^--reload: it takes more than 0\.1 s to watch .* Name"):
        start()
    assert descriptors() == before
