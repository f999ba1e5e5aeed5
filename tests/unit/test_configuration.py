"""Settings from several places: what wins, what a file may hold, and what is said about mistakes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgiserver import Config, StartError, configuration, options
from asgiserver.configuration import Given, Settings, Sources

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    def write(text: str, name: str = "a.toml") -> str:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        return name

    return write


def words(**values: Any) -> dict[str, Given]:
    return {
        name: Given(value, "command line", f"--{name.replace('_', '-')}")
        for name, value in values.items()
    }


def variables(**values: Any) -> dict[str, Given]:
    return {
        name: Given(value, f"environment variable {name.upper()}", name.upper())
        for name, value in values.items()
    }


def refused(sources: Sources) -> tuple[str, int]:
    with pytest.raises(StartError) as caught:
        sources.read()
    return str(caught.value), caught.value.exit_code


# --- what wins ---


def test_nothing_is_given() -> None:
    assert Sources().read() == Settings(Config(), {})


@pytest.mark.parametrize("strongest", range(5))
def test_precedence(write: Write, strongest: int) -> None:
    """Command line, environment, file, variables of other servers, default."""
    layers: list[Any] = [
        words(workers=2),
        variables(workers=3),
        write("workers = 4"),
        variables(workers=5),
    ]
    layers[:strongest] = [{}, {}, None, {}][:strongest]
    command_line, environment, file, common = layers
    settings = Sources(command_line, environment, common, file).read()
    assert settings.config.workers == [2, 3, 4, 5, 1][strongest]


@pytest.mark.parametrize(
    ("stronger", "weaker", "expected"),
    [
        ({"port": 9}, 'uds = "s"', {"port": 9, "uds": None}),
        ({"port": 9}, 'host = "::1"', {"port": 9, "host": "::1"}),
        ({"uds": "s"}, 'bind = ["a:1"]', {"uds": "s", "bind": ()}),
        ({"bind": ["a:1"]}, "fd = 3\nport = 5", {"bind": ("a:1",), "fd": None, "port": 8000}),
        ({"root_path": "/a"}, "fd = 3", {"fd": 3}),
    ],
)
def test_an_address_replaces_addresses_from_weaker_places(
    write: Write, stronger: dict[str, Any], weaker: str, expected: dict[str, Any]
) -> None:
    config = Sources(words(**stronger), file=write(weaker)).read().config
    assert {name: getattr(config, name) for name in expected} == expected


def test_reading_again_sees_the_new_file(write: Write) -> None:
    sources = Sources(words(host="::1"), file=write("workers = 2"))
    assert sources.read().config.workers == 2
    write("workers = 3")
    config = sources.read().config
    assert (config.workers, config.host) == (3, "::1")
    write("workers = 0")
    assert refused(sources)[1] == 2
    write("workers = 4")
    assert sources.read().config.workers == 4


# --- which file ---


def test_the_projects_file(write: Write) -> None:
    write(
        "[project]\nname = 'x'\n[tool.asgiserver]\napp = 'a:b'\nport = 9\n[tool.other]\nport = 1\n",
        "pyproject.toml",
    )
    config = Sources().read().config
    assert (config.app, config.port) == ("a:b", 9)
    assert Sources(file=write("host = 'x'")).read().config.port == 8000, "--config takes its place"
    assert Sources(file="pyproject.toml").read().config.port == 9


@pytest.mark.parametrize("place", ["command_line", "environment"])
def test_the_projects_file_in_app_dir(write: Write, place: str) -> None:
    write("[tool.asgiserver]\nport = 9\n", "src/pyproject.toml")
    sources = Sources(**{place: words(app_dir="src")})
    assert sources.read().config.port == 9
    write("[tool.asgiserver]\nport = 10\n", "pyproject.toml")
    assert sources.read().config.port == 10, "the current folder goes first"


def test_a_project_without_the_table(write: Write) -> None:
    write("[tool.ruff]\nport = 1\n", "pyproject.toml")
    assert Sources().read().given == {}


# --- what it holds ---

GOOD = {
    "limit-max-requests = 5\nlimit_max_requests_jitter = 2": {
        "limit_max_requests": 5,
        "limit_max_requests_jitter": 2,
    },
    "timeout_write = 3": {"timeout_write": 3.0},
    "timeout-write = 0.5": {"timeout_write": 0.5},
    "workers = 'auto'": {"workers": "auto"},
    "access_log = false": {"access_log": False},
    "bind = ['a:1', 'unix:b']": {"bind": ("a:1", "unix:b")},
    "bind = 'a:1'": {"bind": ("a:1",)},
    "uds_mode = 0o600": {"uds_mode": 0o600},
    "uds_mode = '600'": {"uds_mode": 0o600},
    "uds_mode = '0o600'": {"uds_mode": 0o600},
    "umask = 0": {"umask": 0},
    "headers = ['A: b:c', 'A:d']": {"headers": (("A", "b:c"), ("A", "d"))},
    "[headers]\nX-A = 'b'\nX-B = 'c'": {"headers": (("X-A", "b"), ("X-B", "c"))},
    "headers.A = 'b'": {"headers": (("A", "b"),)},
    "[log_config]\nversion = 1": {"log_config": {"version": 1}},
}


@pytest.mark.parametrize(("text", "expected"), GOOD.items())
def test_values(write: Write, text: str, expected: dict[str, Any]) -> None:
    config = Sources(file=write(text)).read().config
    assert {name: getattr(config, name) for name in expected} == expected


WRONG = {
    "port = 1\nprot = 2": "prot (a.toml:2): there is no such setting. Did you mean port?",
    "\n[wokers]\na = 1": "wokers (a.toml:2): there is no such setting. Did you mean workers?",
    "zzzz = 1": "zzzz (a.toml:1): there is no such setting.",
    "application = 'a:b'": "application (a.toml:1): there is no such setting.",
    "port = 70000": "port (a.toml:1): 70000 is more than 65535.",
    "# port = 1\n'port' = '80'": "port (a.toml:2): int expected, not str.",
    "port = true": "port (a.toml:1): int expected, not bool.",
    "port = 1979-05-27": "port (a.toml:1): int expected, not date.",
    "timeout-write = -1": "timeout-write (a.toml:1): -1 is less than 0.",
    "factory = 'yes'": "factory (a.toml:1): bool expected, not str.",
    "lifespan = 'maybe'": "lifespan (a.toml:1): 'maybe' is not one of auto, on, off.",
    "bind = [1]": "bind (a.toml:1): str expected, not int.",
    "bind = ['::1:80']": "bind (a.toml:1): '::1:80': an IPv6 address needs brackets, as in [::1]:8000.",
    "uds_mode = 660": "uds_mode (a.toml:1): 660 is not octal; write 0o660.",
    "uds_mode = 'rw'": "uds_mode (a.toml:1): 'rw' is not an octal number like 0o660.",
    "uds_mode = 0o1000": "uds_mode (a.toml:1): 1000 is more than 777.",
    "headers = ['A']": 'headers (a.toml:1): a table of strings, or an array of "NAME: VALUE", expected.',
    "headers = {A = 1}": 'headers (a.toml:1): a table of strings, or an array of "NAME: VALUE", expected.',
    "headers = ['A B: c']": "headers (a.toml:1): 'A B' is not a header name.",
    "app = 3": "app (a.toml:1): a string expected.",
    "max = 1\nport = 1": "max (a.toml:1): there is no such setting.",
    "root_path = '/'\nroot-path = '/'": "root-path (a.toml:2): it is root_path (a.toml:1) too.",
    "port = ": "a.toml: Invalid value (at ",
    "reload = true\nworkers = 2": "reload (a.toml:1): not together with workers (a.toml:2).",
}


@pytest.mark.parametrize(("text", "expected"), WRONG.items())
def test_mistakes(write: Write, text: str, expected: str) -> None:
    said, status = refused(Sources(file=write(text)))
    assert said.startswith(expected)
    assert "\n" not in said
    assert status == 2


def test_a_mistake_in_a_projects_table(write: Write) -> None:
    write("[tool.other]\nprot = 1\n[tool.asgiserver]\nhost = 'x'\nprot = 2\n", "pyproject.toml")
    assert refused(Sources())[0].startswith("prot (pyproject.toml:5): there is no such setting.")
    write("[tool.asgiserver.wokers]\nprot = 2\n", "pyproject.toml")
    assert refused(Sources())[0].startswith("wokers (pyproject.toml:1): there is no such setting.")
    write("[tool]\nasgiserver = {prot = 1}\n", "pyproject.toml")  # no line of its own
    assert refused(Sources())[0].startswith("prot (pyproject.toml): there is no such setting.")
    write("tool.asgiserver = 3\n", "pyproject.toml")
    assert refused(Sources())[0] == "pyproject.toml: tool.asgiserver is not a table."


@pytest.mark.parametrize(
    ("name", "text"), [("none.toml", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_read(name: str, text: str) -> None:
    assert refused(Sources(file=name)) == (f"--config {name}: {text}.", 1)


def test_a_file_that_is_no_text(folder: Path) -> None:
    (folder / "a.toml").write_bytes(b"\xff")
    said, status = refused(Sources(file="a.toml"))
    assert said.startswith("a.toml: 'utf-8' codec can't decode")
    assert status == 2


def test_conflicts_name_both_as_they_were_written(write: Write) -> None:
    sources = Sources(words(reload=True), variables(), variables(workers=2))
    assert refused(sources) == ("--reload: not together with WORKERS.", 2)
    sources = Sources(words(reload=True), file=write("workers = 2"))
    assert refused(sources) == ("--reload: not together with workers (a.toml:1).", 2)


def test_reload_options_wait_in_a_file_but_not_on_the_command_line(write: Write) -> None:
    file = write("reload_dir = ['src']")
    assert Sources(file=file).read().config.reload_dir == ("src",)
    assert Sources(words(reload=True, reload_dir=["a"])).read().config.reload
    assert refused(Sources(words(reload_dir=["a"]))) == (
        "--reload-dir: does nothing without --reload.",
        2,
    )


def test_the_example_of_the_documentation() -> None:
    page = Path(__file__).resolve().parent.parent.parent / "docs" / "config.md"
    example = re.search(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    Path("a.toml").write_text(example[1])
    config = Sources(file="a.toml").read().config
    assert (config.workers, config.uds_mode) == ("auto", 0o660)
    assert config.headers == (("X-Served-By", "one"),)


# --- showing it ---


def test_shown_with_origins(write: Write) -> None:
    file = write("\nport = 9\nuds_mode = 0o600\n")
    sources = Sources(words(host="x"), variables(root_path='/"\\\x7f€'), file=file)
    lines = configuration.shown(sources.read()).splitlines()
    assert lines[0] == "# app is not set"
    assert 'host = "x"  # command line' in lines
    assert "port = 9  # a.toml:2" in lines
    assert "uds_mode = 0o600  # a.toml:3" in lines
    assert 'root_path = "/\\"\\\\\\u007f€"  # environment variable ROOT_PATH' in lines
    assert "backlog = 2048  # default" in lines
    assert "# fd is not set" in lines


EVERYTHING = {
    "app": "a:b", "bind": ["a:1", "unix:b"], "uds_mode": 0o600, "umask": 0o22, "workers": "auto",
    "headers": [("A", 'b "c"'), ("A", "d")], "log_config": {"version": 1, "x": {"y": [True, 1.5]}},
    "timeout_write": 0.001, "use_colors": False, "timeout_graceful_shutdown": 0.0, "user": "me",
    "root_path": "/€\n",
}  # fmt: skip


@pytest.mark.parametrize("given", [{}, EVERYTHING, {"uds": "/a/b"}, {"reload": True, "port": 0}])
def test_round_trip(write: Write, given: dict[str, Any]) -> None:
    first = Sources(words(**given)).read()
    text = configuration.shown(first)
    names = {*tomllib.loads(text), *re.findall(r"^# (\w+) is not set$", text, re.MULTILINE)}
    assert names == {"app", *options.BY_NAME}
    assert Sources(file=write(text)).read().config == first.config
