"""Logging: uvicorn's form, files for logging.config, and where access lines go."""

import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgiserver import Config, _core, logs
from asgiserver.errors import StartError

NAMES = ("asgiserver", "asgiserver.error", "asgiserver.access", "asgiserver.asgi")
RECORD = ("10.0.0.1:5000", "GET", "/a?b=c", "1.1", 404)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Loggers as nobody has touched them, before and after."""

    def reset() -> None:
        for name in NAMES:
            logger = logging.getLogger(name)
            for handler in logger.handlers:
                handler.close()
            logger.handlers.clear()
            logger.filters.clear()
            logger.setLevel(logging.NOTSET)
            logger.propagate, logger.disabled = True, False

    reset()
    yield
    reset()


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No colours, whatever runs the tests."""
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.usefixtures("plain")
def test_form_of_messages(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config())
    logs.error.info("Hello")
    logs.error.warning("Careful")
    logs.error.debug("not shown")
    assert capsys.readouterr() == ("", "INFO:     Hello\nWARNING:  Careful\n")


@pytest.mark.usefixtures("plain")
def test_form_of_access_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config())
    logs.log_access([RECORD, ("unix", "POST", "/", "1.0", 299)])
    assert capsys.readouterr() == (
        'INFO:     10.0.0.1:5000 - "GET /a?b=c HTTP/1.1" 404 Not Found\n'
        'INFO:     unix - "POST / HTTP/1.0" 299 \n',
        "",
    )


def test_colours(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config(use_colors=True))
    logs.error.error("Bad")
    logs.log_access([RECORD])
    out, err = capsys.readouterr()
    assert err == "\x1b[31mERROR\x1b[0m:    Bad\n"
    assert '"\x1b[1mGET /a?b=c HTTP/1.1\x1b[0m" \x1b[31m404 Not Found\x1b[0m' in out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "chosen", "expected"),
    [
        ({}, None, True),
        ({"NO_COLOR": "1"}, None, False),
        ({"NO_COLOR": ""}, None, True),
        ({"NO_COLOR": "1"}, True, True),
        ({"TERM": "dumb"}, None, False),
        ({}, False, False),
    ],
)
def test_colours_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    chosen: bool | None,
    expected: bool,
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert logs.wants_colors(Terminal(), chosen) is expected
    assert logs.wants_colors(io.StringIO(), chosen) is bool(chosen)
    assert logs.wants_colors(None, None) is False


def test_levels() -> None:
    logs.configure(Config(log_level="trace"))
    assert logs.error.isEnabledFor(logs.TRACE)
    assert logging.getLevelName(logs.TRACE) == "TRACE"
    logs.configure(Config(log_level="error"))
    assert not logs.error.isEnabledFor(logging.WARNING)


def test_configuring_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config())
    logs.configure(Config())
    logs.error.info("Once")
    assert capsys.readouterr().err.count("Once") == 1


def test_handlers_of_the_program_are_kept() -> None:
    handler = logging.NullHandler()
    logging.getLogger("asgiserver").addHandler(handler)
    logs.configure(Config())
    assert logging.getLogger("asgiserver").handlers == [handler]
    assert logging.getLogger("asgiserver").propagate


def test_core_messages(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config())
    try:
        raise LookupError("inside")
    except LookupError as error:
        logs.log_from_core("error", "100 % broken", error)
    err = capsys.readouterr().err
    assert err.startswith("ERROR:    100 % broken\nTraceback (most recent call last):\n")
    assert err.endswith("LookupError: inside\n")


@pytest.mark.usefixtures("plain")
def test_report_works_before_anything_is_set_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.report(StartError("No."))
    assert capsys.readouterr().err == "ERROR:    No.\n"


def test_cut_requests(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config())
    logs.log_cut(0, 1.5, asked=False)
    logs.log_cut(2, 1.5, asked=False)
    logs.log_cut(1, 1.5, asked=True)
    assert capsys.readouterr().err == (
        "WARNING:  Cut requests that did not end within 1.5 s: 2\n"
        "WARNING:  Cut requests as asked for: 1\n"
    )


def test_a_process_without_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    raised: list[object] = []
    monkeypatch.setattr(logging.Handler, "handleError", lambda self, record: raised.append(record))
    logs.configure(Config())
    logs.error.info("nobody hears it")
    logs.log_access([RECORD])
    assert raised == []


# --- log_config ---

TO_FILE: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"short": {"()": "asgiserver.logs.Formatter", "fmt": "<%(message)s>"}},
    "handlers": {"file": {"class": "logging.FileHandler", "formatter": "short"}},
    "loggers": {"asgiserver": {"handlers": ["file"], "level": "WARNING"}},
}

INI = """
[loggers]
keys=root,asgiserver
[handlers]
keys=file
[formatters]
keys=short
[logger_root]
handlers=
[logger_asgiserver]
level=WARNING
handlers=file
qualname=asgiserver
[handler_file]
class=FileHandler
formatter=short
args=({path!r},)
[formatter_short]
format=<%(message)s>
"""


def configuration(target: Path) -> dict[str, Any]:
    handler = {**TO_FILE["handlers"]["file"], "filename": str(target)}
    return {**TO_FILE, "handlers": {"file": handler}}


@pytest.mark.parametrize("form", ["dict", "json", "yaml", "ini"])
def test_log_config(tmp_path: Path, form: str) -> None:
    target, source = tmp_path / "log", tmp_path / f"config.{form}"
    given: Any = str(source)
    match form:
        case "dict":
            given = configuration(target)
        case "ini":
            source.write_text(INI.format(path=str(target)))
        case "yaml":
            yaml = pytest.importorskip("yaml")
            source.write_text(yaml.safe_dump(configuration(target)))
        case _:
            source.write_text(json.dumps(configuration(target)))
    logs.configure(Config(log_config=given))
    logs.error.info("quiet: the file says WARNING")
    logs.error.warning("loud")
    for handler in logging.getLogger("asgiserver").handlers:
        handler.close()
    assert target.read_text() == "<loud>\n"


def test_log_level_wins_over_log_config(tmp_path: Path) -> None:
    logs.configure(Config(log_config=configuration(tmp_path / "log"), log_level="debug"))
    assert logs.error.isEnabledFor(logging.DEBUG)
    for handler in logging.getLogger("asgiserver").handlers:
        handler.close()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none.json", None, "there is no such file"),
        ("bad.json", "{", "JSONDecodeError"),
        ("bad.yaml", "a: [", "ValueError: while parsing"),
        ("bad.ini", "x", "MissingSectionHeaderError|RuntimeError"),
        ("list.json", "[]", "Error"),
        ("empty.json", "{}", "dictionary doesn't specify a version"),
        (
            "class.json",
            '{"version": 1, "handlers": {"h": {"class": "no.Such"}}}',
            "Unable to configure handler 'h' .*no",
        ),
    ],
)
def test_bad_log_config(tmp_path: Path, name: str, text: str | None, expected: str) -> None:
    path = tmp_path / name
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    if text is not None:
        path.write_text(text)
    with pytest.raises(StartError, match=expected) as caught:
        logs.configure(Config(log_config=str(path)))
    assert str(caught.value).startswith(f"--log-config {path}: ")


# --- where access lines go ---


Sink = Callable[..., Any]


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sink]:
    """The sink in a process whose standard output nobody captures."""
    with open(tmp_path / "stdout", "w") as stream:

        def make(**settings: Any) -> Any:
            monkeypatch.setattr(sys, "stdout", stream)
            monkeypatch.setattr(sys, "__stdout__", stream)
            config = Config(**settings)
            logs.configure(config)
            found = logs.access_sink(config)
            return found._replace(target="stdout") if found.target == stream.fileno() else found

        yield make


def test_access_lines_go_straight_to_the_descriptor(sink: Sink) -> None:
    assert sink() == ("stdout", "uvicorn", False, None)
    assert sink(use_colors=True) == ("stdout", "uvicorn", True, None)
    assert sink(access_log_file="-", access_log_format="json") == ("stdout", "json", False, None)


def test_access_lines_are_off(sink: Sink) -> None:
    assert sink(access_log=False).target is None
    assert sink(access_log=False, access_log_file="/nowhere/x").target is None
    assert sink(log_level="warning").target is None


def test_access_lines_that_somebody_wants(sink: Sink) -> None:
    logs.access.addHandler(logging.NullHandler())
    assert sink() == (logs.log_access, None, False, None)


def test_access_lines_that_somebody_filters(sink: Sink) -> None:
    logs.access.addFilter(lambda record: True)
    assert sink() == (logs.log_access, None, False, None)


def test_access_lines_with_a_configuration(sink: Sink) -> None:
    config = {"version": 1, "disable_existing_loggers": False}
    assert sink(log_config=config, log_level="info").target is logs.log_access
    found = sink(log_config=config, log_level="info", access_log_format="common")
    assert found == (logs.log_lines, "common", False, None)


def test_access_lines_of_a_captured_output() -> None:
    logs.configure(Config())
    assert logs.access_sink(Config()).target is logs.log_access


def test_access_lines_to_a_file(sink: Sink, tmp_path: Path) -> None:
    """Whatever else is set up: a file that was asked for is written by the core."""
    path = str(tmp_path / "access")
    config = {"version": 1, "disable_existing_loggers": False}
    for settings in ({}, {"log_config": config}, {"log_level": "error"}):
        found = sink(access_log_file=path, access_log_format="json", **settings)
        assert found[1:] == ("json", False, path)
        os.write(found.target, b"x")
        os.close(found.target)
    assert (tmp_path / "access").read_bytes() == b"xxx"
    assert (tmp_path / "access").stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.usefixtures("plain")
def test_lines_with_a_format_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config(access_log_format="json"))
    logs.log_lines(['{"a":"100 %"}'])
    assert capsys.readouterr().out == '{"a":"100 %"}\n'


# --- files ---


def lines_of(path: Path) -> list[str]:
    """Without the time in front."""
    return [line[24:] for line in path.read_text().splitlines()]


def test_messages_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    logs.configure(Config(log_file=str(path)))
    logs.error.info("first caf\u00e9 \udcff")
    logs.error.debug("not shown")
    logs.close_files()
    logs.error.warning("second")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[", path.read_text())
    process = f"[{os.getpid()}]"
    assert lines_of(path) == [
        f"{process} INFO:     first caf\u00e9 \\udcff",
        f"{process} WARNING:  second",
    ]
    assert capsys.readouterr() == ("", "")


def test_messages_go_back_to_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config(log_file=str(tmp_path / "log")))
    logs.configure(Config())
    logs.error.info("Here")
    assert "Here" in capsys.readouterr().err
    assert (tmp_path / "log").read_text() == ""


def test_reopening_messages(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    logs.configure(Config(log_file=str(path)))
    logs.error.info("old")
    path.rename(moved)
    logs.error.info("still old")
    logs.reopen()
    assert path.read_text() == ""
    logs.error.info("new")
    assert [len(lines_of(moved)), len(lines_of(path))] == [2, 1]


def test_reopening_what_cannot_be_opened(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "log"
    logs.configure(Config(log_file=str(path)))
    logs.error.info("before")
    folder.rename(tmp_path / "moved")
    logs.reopen()
    logs.error.info("after")
    before, problem, after = lines_of(tmp_path / "moved" / "log")
    assert before.endswith("before")
    assert after.endswith("after")
    assert problem.endswith(f"Cannot reopen --log-file {path}: No such file or directory")


def test_reopening_a_handler_of_log_config(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    logs.configure(Config(log_config=configuration(path)))
    logs.error.warning("old")
    path.rename(moved)
    logs.reopen()
    logs.error.warning("new")
    assert (moved.read_text(), path.read_text()) == ("<old>\n", "<new>\n")
    for handler in logging.getLogger("asgiserver").handlers:
        handler.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_reopening_a_handler_of_log_config_on_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the disk does not take must end no supervisor, whom a rotation of logs makes reopen them."""
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    logs.configure(Config(log_config=configuration(path)))
    logs.error.warning("lost")
    path.unlink()
    logs.reopen()
    logs.error.warning("new")
    assert path.read_text() == "<new>\n"
    assert "No space left on device" in capsys.readouterr().err
    for handler in logging.getLogger("asgiserver").handlers:
        handler.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.usefixtures("plain")
def test_messages_to_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    """They go to standard error, and closing the file fails no stop."""
    logs.configure(Config(log_file="/dev/full"))
    logs.error.warning("one")
    logs.error.warning("two")
    logs.close_files()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    for line, text in zip(said, ("one", "two"), strict=True):
        assert re.fullmatch(rf"/dev/full: No space left on device: .* WARNING:  {text}", line)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"log_file": "/nowhere/x"}, "--log-file /nowhere/x: No such file or directory"),
        (
            {"access_log_file": "/nowhere/x"},
            "--access-log-file /nowhere/x: No such file or directory",
        ),
        ({"access_log_file": "/"}, "--access-log-file /: Is a directory"),
    ],
)
def test_files_that_cannot_be_written(settings: dict[str, str], text: str) -> None:
    with pytest.raises(StartError) as caught:
        logs.configure(Config(**settings))
    assert str(caught.value) == text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_files_belong_to_who_will_write_them(tmp_path: Path) -> None:
    """Also those that a supervisor makes for its workers when it is told to reopen."""
    paths = tmp_path / "log", tmp_path / "access"
    config = Config(log_file=str(paths[0]), access_log_file=str(paths[1]), user="65534", group="1")
    for action in (lambda: logs.configure(config), logs.reopen):
        for path in paths:
            path.unlink(missing_ok=True)
        action()
        assert [(path.stat().st_uid, path.stat().st_gid) for path in paths] == [(65534, 1)] * 2


def test_the_descriptor_of_the_file_stays_the_same(tmp_path: Path) -> None:
    """Who writes there without Python's help (faulthandler) finds the present file."""
    config = Config(log_file=str(tmp_path / "log"))
    logs.configure(config)
    descriptor = logs.error_stream().fileno()
    logs.configure(config)
    (tmp_path / "log").unlink()
    logs.reopen()
    os.write(descriptor, b"help\n")
    assert (tmp_path / "log").read_text() == "help\n"
    logs.configure(Config())
    assert logs.error_stream() is sys.__stderr__


def test_a_failed_start_is_seen_beside_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has typed the command does not look into a file for why nothing runs."""
    logs.configure(Config(log_file=str(tmp_path / "log")))
    logs.report(StartError("No."))
    assert capsys.readouterr().err == "ERROR:    No.\n"
    assert lines_of(tmp_path / "log") == [f"[{os.getpid()}] ERROR:    No."]


def test_records_have_uvicorns_arguments(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgiserver.access")
    logs.log_access([RECORD])
    (record,) = caplog.records
    assert record.args == RECORD
    assert record.getMessage() == '10.0.0.1:5000 - "GET /a?b=c HTTP/1.1" 404'


# --- the core's arguments ---


def app(_environ: Any, _start_response: Any) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"access_log": 1, "access_log_format": "combind"}, ValueError, "combind is none of"),
        ({"access_log": print, "access_log_format": ""}, ValueError, "has no %"),
        ({"access_log": print, "access_log_format": 3}, TypeError, "str or None"),
        ({"access_log": 12345}, OSError, "Bad file descriptor"),
        ({"access_log": -1}, ValueError, "negative"),
    ],
)
def test_wrong_arguments(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        _core.Server(app, interface="wsgi", **arguments)


@pytest.mark.parametrize("target", [None, print])
def test_reopening_what_is_no_file(target: Any) -> None:
    core = _core.Server(app, interface="wsgi", access_log=target)
    with pytest.raises(RuntimeError, match="does not go to a descriptor"):
        core.reopen_access_log(1)
    core.close()


def test_the_descriptor_is_the_callers() -> None:
    """It is duplicated: neither side closes the other's."""
    reader, writer = os.pipe()
    core = _core.Server(app, interface="wsgi", access_log=writer)
    os.close(writer)
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    core.close()
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_an_access_file_that_cannot_be_opened(sink: Sink) -> None:
    with pytest.raises(
        StartError, match=r"^--access-log-file /nowhere/x: No such file or directory$"
    ):
        sink(access_log_file="/nowhere/x")


def test_access_lines_without_a_descriptor(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard output that is no file takes lines through its logger."""
    sink()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "__stdout__", stream)
    assert logs.access_sink(Config()).target is logs.log_access
