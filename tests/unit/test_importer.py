"""Finding and importing the application."""

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgiserver import importer
from asgiserver.errors import StartError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Writes a file into the current folder. What is imported from there is forgotten in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)

    def write_file(name: str, text: str = "") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    yield write_file
    for name in set(sys.modules) - known:
        del sys.modules[name]


def refusal(app: str | None, app_dir: str = "") -> str:
    """The line that tells why ``app`` cannot be imported, which is not the application's fault."""
    with pytest.raises(StartError) as caught:
        importer.load(app, app_dir)
    assert caught.value.cause is None
    assert caught.value.exit_code == 1
    text = str(caught.value)
    assert "\n" not in text
    return text


APP = "def app(environ, start_response): return []\n"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("p_main:app", "p_main:app"),
        ("p_main", "p_main:app"),
        ("p_main.py", "p_main:app"),
        ("p_main.py:other.inner", "p_main:other.inner"),
        ("./p_main.py:app", "p_main:app"),
        ("p_pkg/sub/web.py", "p_pkg.sub.web:application"),
        ("p_pkg.sub.web", "p_pkg.sub.web:application"),
        ("p_pkg/__init__.py:application", "p_pkg:application"),
        ("folder/p_web.py:app", "p_web:app"),
        ("folder/my-site.py", "my-site:app"),
    ],
)
def test_forms(write: Write, given: str, name: str) -> None:
    write("p_main.py", APP + "class other:\n    inner = app\n")
    write("p_pkg/__init__.py", "def application(e, s): pass\n")
    write("p_pkg/sub/__init__.py", "VALUE = 1\n")
    write("p_pkg/sub/web.py", "from ..sub import VALUE\ndef application(e, s): return VALUE\n")
    write("folder/p_web.py", APP)
    write("folder/my-site.py", APP)
    app, found = importer.load(given)
    assert found == name
    assert callable(app)


def test_app_dir(write: Write) -> None:
    write("deep/p_deep.py", APP)
    assert importer.load("p_deep:app", "deep")[1] == "p_deep:app"
    assert sys.path[0] == os.path.realpath("deep")
    assert "--app-dir nowhere: there is no such folder" in refusal("p_deep:app", "nowhere")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("p_mian:app", 'no module "p_mian" in {cwd}, nor is one installed. Did you mean p_main?'),
        ("p_pkg.wbe:app", "Did you mean p_pkg.web?"),
        ("zzz:app", "Is the current folder right? --app-dir names another one."),
        ("p_main.app", "Did you mean p_main:app?"),
        ("p_main:ap", '"p_main" has no attribute "ap". Did you mean app?'),
        ("p_main:app.zzz", '"p_main:app" has no attribute "zzz".'),
        ("p_pkg", '"p_pkg" has neither app nor application. Name it: asgiserver p_pkg:NAME'),
        ("p_factory", "Is it a factory? Then: asgiserver --factory p_factory:create_app"),
        ("p_other", '"p_other" has neither app nor application. Is it p_other:site?'),
        ("p_main:", '"p_main:" does not say which application to serve. Write module:name, '),
        (":app", '":app" does not say which application to serve.'),
        ("", '"" does not say which application to serve.'),
        ("p_main:app:x", '"app:x" in "p_main:app:x" is not a name.'),
        ("p_main:make()", "to call a factory, write --factory p_main:make"),
        ("p main:app", '"p main" is not the name of a module.'),
        (".p_main:app", '".p_main" is not the name of a module.'),
        ("p_pkg/web:app", "not the name of a module. Did you mean p_pkg/web.py:app?"),
        ("./no/where:app", "Did you mean no.where:app?"),
        ("p_none.p_web", 'There is no module "p_none.p_web" in {cwd}'),
        ("p_mian.py", "There is no file p_mian.py in {cwd}. Did you mean p_main.py?"),
        ("p.dot.py", "there is a dot in its name"),
        ("json.py", '{cwd}/json.py cannot be imported as "json": that name belongs to '),
    ],
)
def test_refusals(write: Write, given: str, text: str) -> None:
    write("p_main.py", APP)
    write("p_pkg/__init__.py", "")
    write("p_pkg/web.py", APP)
    write("p_factory.py", "def create_app(): pass\n")
    write(
        "p_other.py",
        "import os\nfrom os.path import join\ndef site(environ, start_response): pass\n",
    )
    write("p.dot.py", APP)
    write("json.py", APP)
    assert text.format(cwd=os.getcwd()) in refusal(given)


def failure(app: str) -> StartError:
    """What is raised for a module that is itself at fault."""
    with pytest.raises(StartError) as caught:
        importer.load(app)
    assert caught.value.cause is not None
    return caught.value


def files(error: BaseException | None) -> list[str]:
    """The files of a traceback's frames."""
    found = []
    tb = error.__traceback__ if error is not None else None
    while tb is not None:
        found.append(os.path.basename(tb.tb_frame.f_code.co_filename))
        tb = tb.tb_next
    return found


def test_an_exception_in_the_module_keeps_only_its_own_frames(write: Write) -> None:
    write("p_inner.py", "def fail(): raise RuntimeError('boom')\nfail()\n")
    write("p_outer.py", "import p_inner\n")
    error = failure("p_outer:app")
    assert str(error) == "p_outer failed while it was imported: RuntimeError: boom"
    assert files(error.cause) == ["p_outer.py", "p_inner.py", "p_inner.py"]


def test_causes_are_trimmed_too(write: Write) -> None:
    write(
        "p_cause.py",
        "try:\n    import p_none\nexcept ImportError as e:\n    raise ValueError() from e\n",
    )
    error = failure("p_cause:app")
    assert error.cause is not None
    assert files(error.cause.__cause__) == ["p_cause.py"]


def test_something_missing_inside_the_module(write: Write) -> None:
    write("p_needs.py", "import no_such_thing\n")
    error = failure("p_needs:app")
    assert isinstance(error.cause, ModuleNotFoundError)
    assert f"(is it installed for {sys.executable}?)" in str(error)


def test_a_module_that_misses_itself_is_not_called_missing(write: Write) -> None:
    write("p_self.py", "import p_self.more\n")
    assert isinstance(failure("p_self:app").cause, ModuleNotFoundError)


def test_a_syntax_error(write: Write) -> None:
    write("p_syntax.py", "def f(:\n")
    error = failure("p_syntax:app")
    assert isinstance(error.cause, SyntaxError)
    assert files(error.cause) == []


def test_a_module_that_ends_the_program(write: Write) -> None:
    write("p_exit.py", "import sys\nsys.exit(4)\n")
    assert str(failure("p_exit:app")).startswith("p_exit ended the program (exit 4)")


def test_an_interruption_is_let_through(write: Write) -> None:
    write("p_interrupt.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        importer.load("p_interrupt:app")


# --- discovery ---


@pytest.mark.parametrize(
    ("text", "attribute"),
    [
        ("app = make()", "app"),
        ("application = app_ = 1", "application"),
        ("app: object = 1", "app"),
        ("(app, x) = 1, 2", "app"),
        ("async def app(s, r, n): pass", "app"),
        ("class application: pass", "application"),
        ("from x import site as app", "app"),
        ("import application.inner", "application"),
        ("if True:\n    app = 1", "app"),
        ("try:\n    pass\nexcept E:\n    app = 1", "app"),
        ("with x:\n    app = 1", "app"),
        ("application = 1\napp = 2", "app"),
        ("def f(:", ""),  # importing it shows what is wrong
        ("def f():\n    app = 1", None),
        ("x.app = 1", None),
        ("app: object", None),
    ],
)
def test_discovery_reads_without_running(write: Write, text: str, attribute: str | None) -> None:
    path = write("main.py", text)
    found = importer.discovery.find(path.parent)
    assert (found and (found.module, found.attribute)) == (
        None if attribute is None else ("main", attribute)
    )


def test_discovery_order(write: Write) -> None:
    write("wsgi.py", APP)
    write("asgi.py", APP)
    write("main.py", "x = 1\n")
    assert importer.load(None)[1] == "asgi:app"


def test_nothing_found(write: Write) -> None:
    write("main.py", "x = 1\n")
    text = refusal(None)
    assert text.startswith(f"No application was named, and {os.getcwd()} has no main.py, ")
    assert text.endswith("Write: asgiserver module:name.")


@pytest.mark.parametrize(
    ("name", "text", "suggestion"),
    [
        ("mysite/wsgi.py", "application = 1", "Did you mean mysite.wsgi:application?"),
        ("app.py", "def create_app(): pass", "Did you mean --factory app:create_app?"),
    ],
)
def test_suggestions(write: Write, name: str, text: str, suggestion: str) -> None:
    write(name, text)
    assert refusal(None).endswith(suggestion)


# --- factories and what is no application ---


def test_factories() -> None:
    assert importer.call_factory(lambda: 3, "m:f") == 3
    with pytest.raises(StartError, match="m:f is a dict, not a factory"):
        importer.call_factory({}, "m:f")  # type: ignore[arg-type]


def test_a_factory_that_fails() -> None:
    def broken() -> None:
        raise LookupError("no database")

    with pytest.raises(
        StartError, match="The factory m:f failed: LookupError: no database"
    ) as caught:
        importer.call_factory(broken, "m:f")
    assert files(caught.value.cause) == ["test_importer.py"]


def test_an_application_is_not_a_factory() -> None:
    def app(environ: object, start_response: object) -> None: ...

    with pytest.raises(StartError, match="leave out --factory") as caught:
        importer.call_factory(app, "m:app")  # type: ignore[arg-type]
    assert caught.value.cause is None


def test_an_asynchronous_factory() -> None:
    async def create() -> None: ...

    with pytest.raises(StartError, match="m:f is a coroutine function"):
        importer.call_factory(create, "m:f")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "m:x is a dict, not an application"),
        (1, "m:x is an int, not an application"),
        (None, "m:x is None, not an application"),
        (re, "m:x is a module, not an application. Write re:app?"),
    ],
)
def test_not_callable(value: object, text: str) -> None:
    with pytest.raises(StartError, match=re.escape(text)):
        importer.check_callable(value, "m:x")


def test_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dotenv")
    path = tmp_path / "env"
    path.write_text("P_NEW='a b'\nP_OLD=file\n")
    monkeypatch.setenv("P_OLD", "environment")
    monkeypatch.setenv("P_NEW", "")
    monkeypatch.delenv("P_NEW")
    importer.load_env_file(str(path))
    assert (os.environ["P_NEW"], os.environ["P_OLD"]) == ("a b", "environment")
    with pytest.raises(StartError, match="there is no such file"):
        importer.load_env_file(str(tmp_path / "none"))
