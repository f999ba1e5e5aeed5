"""Fixtures for pytest that serve an application on a free port: in a thread, by this very server.

``serve_app`` for a test, ``serve_app_module`` for a module, ``serve_app_session`` for the whole run::

    def test_hello(serve_app):
        served = serve_app(app)
        assert httpx.get(served.url).text == "hello"

A test during which an application failed fails, with the server's log. A project that does not use
the fixtures pays nothing: the server is loaded when one of them is called.
"""

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .server import Server

__all__ = ["ServeApp", "Served"]

_DEFAULTS = {"port": 0, "log_level": "info", "timeout_graceful_shutdown": 3.0}
# Loggers keep the handlers that they have: pytest's, and those below.
_NO_HANDLERS = {"version": 1, "incremental": True}


class Served:
    """An application that is served. ``url`` and ``port`` tell where, ``server`` is the
    ``asgiserver.Server``.
    """

    def __init__(self, server: "Server", others: "list[Served]") -> None:
        self.server = server
        self.url = ""
        self.port: int | None = None
        self._log = _Log(server, others)

    @property
    def log(self) -> str:
        """What the server has logged in this test, with access lines and tracebacks."""
        return self._log.text()

    def expect_errors(self) -> None:
        """The application is meant to fail in this test."""
        self._log.errors_expected = True

    # --- the plugin's side ---

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, clients can connect. Raises StartError; fails the test at the end as any other."""
        with self._log.listening(), self.server:
            self.url, self.port = self.server.url, self.server.port
            yield
        _fail(self.end_test())

    def end_test(self, item: pytest.Item | None = None) -> str:
        """What comes now belongs to the next test. Says how the application failed in this one;
        nothing if it did not. The log goes into the report of ``item``, which failed by itself.
        """
        log, failed = self._log.text(), self._log.turn_page()
        if item is not None and log:
            item.add_report_section("call", f"server at {self.url}", log)
        return f"The application at {self.url} failed:\n{log}" if failed else ""


class _Log(logging.Handler):
    """What one server logs. All in a process share the loggers; each has threads of its own."""

    def __init__(self, server: "Server", others: list[Served]) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        self.errors_expected = False
        self._server, self._others = server, others
        self._records: list[logging.LogRecord] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        logger = logging.getLogger("asgiserver")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            self.close()

    def filter(self, record: logging.LogRecord) -> bool:
        # The application may have threads that nobody knows.
        strangers = {one.server.thread for one in self._others if one.server is not self._server}
        if self._server.started:
            strangers.add(threading.main_thread().ident)
        return record.thread not in strangers

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def text(self) -> str:
        return "".join(f"{self.format(record)}\n" for record in list(self._records))

    def turn_page(self) -> bool:
        """Forgets everything. Whether the application failed and was not expected to."""
        failed = any(record.levelno >= logging.ERROR for record in self._records)
        unexpected = failed and not self.errors_expected
        self._records.clear()
        self.errors_expected = False
        return unexpected


class ServeApp:
    """``serve_app(app, **settings)``: serves an application until the fixture ends.

    Takes what ``asgiserver.Config`` takes; the port is a free one. Raises StartError when the
    application cannot be imported or does not start.
    """

    def __init__(self, stack: ExitStack, running: list[Served]) -> None:
        self._stack, self._running = stack, running

    def __call__(self, app: "str | Callable[..., Any]", **settings: Any) -> Served:
        from .server import Server  # noqa: PLC0415 (only projects that use it pay for it)

        if "log_config" not in settings:
            settings["log_config"] = _NO_HANDLERS
        served = Served(Server(app, **{**_DEFAULTS, **settings}), self._running)
        self._running.append(served)
        self._stack.callback(self._running.remove, served)
        self._stack.enter_context(served.running())
        return served


# --- hooks and fixtures ---

_running = pytest.StashKey[list[Served]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test in which an application failed fails, whatever its client made of it."""
    running = item.config.stash.get(_running, [])
    try:
        result = yield
    except BaseException:
        for served in running:
            served.end_test(item)
        raise
    _fail("\n".join(filter(None, [served.end_test() for served in running])))
    return result


def _fail(why: str) -> None:
    if why:
        pytest.fail(why, pytrace=False)


def _factory(request: pytest.FixtureRequest) -> Iterator[ServeApp]:
    running = request.config.stash.setdefault(_running, [])
    with ExitStack() as stack:
        yield ServeApp(stack, running)


@pytest.fixture
def serve_app(request: pytest.FixtureRequest) -> Iterator[ServeApp]:
    """Serves applications on free ports until the test ends: serve_app(app).url."""
    yield from _factory(request)


@pytest.fixture(scope="module")
def serve_app_module(request: pytest.FixtureRequest) -> Iterator[ServeApp]:
    """Serves applications on free ports until the module's tests end: serve_app_module(app).url."""
    yield from _factory(request)


@pytest.fixture(scope="session")
def serve_app_session(request: pytest.FixtureRequest) -> Iterator[ServeApp]:
    """Serves applications on free ports until all tests end: serve_app_session(app).url."""
    yield from _factory(request)
