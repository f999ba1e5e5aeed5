"""Fixtures of all tests.

HOW TO USE THEM

``serve(app, *args, **options)`` starts a fresh server process, waits until it is ready, and returns a
``support.server.Server``; at the end of the test each one is stopped with SIGTERM, and must exit with
status 0 and with no traceback in its log::

    def test_hello(serve):
        server = serve("echo_asgi:app", "--timeout-keep-alive", "1", loop="uvloop")
        with server.raw() as client:
            client.get("/path")
            assert client.recv_response().status == 200

- ``app`` is a module of tests/apps (that folder is ``--app-dir``), ``args`` are further command line words.
- ``interface=`` "asgi" | "wsgi" | "asgi2" | "auto", ``loop=`` "asyncio" | "uvloop", ``threads=4``, ``env={…}``,
  ``cwd=``.
- ``bind="::1"``; ``uds=path``; ``port_option=True`` uses ``--port 0`` instead of an inherited ``--fd``;
  ``binds=["127.0.0.1:0", …]`` gives these as ``--bind``, ``binds=[]`` gives no address at all.
- ``tls=True``: over TLS, the client as well (support/certificates.py, support/tls.py).
- ``rlimits={resource.RLIMIT_NOFILE: 64}``; ``python=("-X", "dev")``; ``wait=False`` returns at once.
- ``server.url``, ``.port``, ``.authority``, ``.raw()`` (strict raw client, support/client.py), ``.log()``,
  ``.wait_log(regex)``, ``.expect_tracebacks()``, ``.signal(n)``, ``.wait()`` (exit status),
  ``.stop(status=0)``, ``.rss()``, ``.cpu()``, ``.open_files()``.

``shared(app, *args, **options)`` is the same for tests that leave the server as they found it: one process
for each different call is kept, of the last two dozen; ``log`` sees only what this test caused.

``backend`` parametrises a test over asgi-asyncio, asgi-uvloop, wsgi and wsgi-threads, ``loop`` over the two loops;
pass ``**backend.options`` to ``serve`` or ``shared``. ``@pytest.mark.tls_too`` adds asgi-uvloop-tls.

``authority`` signs certificates. With ``--tls`` (``make test-tls``) every server that these fixtures make speaks
TLS, and so do its clients; a test for which that has no meaning bears ``@pytest.mark.plain("why")``.

A test that measures memory bears ``@pytest.mark.memory``: it is skipped under the sanitizers, which keep
what was freed.

A test that takes more than 5 s bears ``@pytest.mark.slow`` (left out by ``-m "not slow"``).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.certificates import Authority
from support.client import SLOWNESS
from support.server import Server, end_all, report_log

Factory = Callable[..., Server]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tls", action="store_true", help="every server and client speaks TLS")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "plain(why): has no meaning over TLS")
    config.addinivalue_line("markers", "tls_too: one backend more, over TLS")
    config.addinivalue_line("markers", "slow: takes more than five seconds")
    config.addinivalue_line("markers", "memory: measures memory")
    if "COVERAGE_PROCESS_CONFIG" in os.environ and config.pluginmanager.hasplugin("xdist"):
        # xdist kills processes that take long to end; what they counted would be lost.
        manager: Any = importlib.import_module("xdist.workermanage").NodeManager
        manager.EXIT_TIMEOUT = 300


def pytest_sessionstart() -> None:
    """An editable install is built when it is imported: once here, not within the first test's time-out."""
    importlib.import_module("asgiserver._core")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test has a time-out, also where the command line gives none."""
    over_tls = config.getoption("--tls")
    sanitized = "ASAN_OPTIONS" in os.environ
    for item in items:
        if sanitized and item.get_closest_marker("memory") is not None:
            item.add_marker(pytest.mark.skip(reason="the sanitizers keep what was freed"))
        if over_tls and (plain := item.get_closest_marker("plain")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"--tls: {plain.args[0]}"))
        if item.get_closest_marker("timeout") is None:
            seconds = 600 if item.get_closest_marker("slow") else 120
            item.add_marker(pytest.mark.timeout(seconds * SLOWNESS))


@dataclass(frozen=True)
class Backend:
    """What a test is parametrised over."""

    name: str
    interface: str  # "asgi" | "wsgi"
    loop: str | None
    threads: int | None = None
    tls: bool = False

    @property
    def options(self) -> dict[str, Any]:
        options = {"interface": self.interface, "loop": self.loop, "threads": self.threads}
        return {**options, "tls": True} if self.tls else options


BACKENDS = [
    Backend("asgi-asyncio", "asgi", "asyncio"),
    Backend("asgi-uvloop", "asgi", "uvloop"),
    Backend("wsgi", "wsgi", None),
    Backend("wsgi-threads", "wsgi", None, threads=4),
]


TLS_BACKEND = Backend("asgi-uvloop-tls", "asgi", "uvloop", tls=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        too = metafunc.definition.get_closest_marker("tls_too") is not None
        backends = [*BACKENDS, TLS_BACKEND] if too else BACKENDS
        metafunc.parametrize("backend", backends, ids=lambda one: one.name, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Factory:
    """``Server``, over TLS where that is asked for."""
    always = request.config.getoption("--tls")

    def make(app: str | None, *args: str, tls: bool = always, **options: Any) -> Server:
        authority = request.getfixturevalue("authority") if tls else None
        return Server(app, *args, tls=authority, **options)

    return make


@pytest.fixture
def serve(request: pytest.FixtureRequest, made: Factory) -> Iterator[Factory]:
    started: list[Server] = []

    def start(app: str | None, *args: str, wait: bool = True, **options: Any) -> Server:
        server = made(app, *args, **options)
        started.append(server)
        if wait:
            server.await_ready()
        return server

    yield start
    end_all(request.node, started)


class SharedServers:
    """Those that were used last are kept: under a sanitizer each takes 100 MB."""

    KEPT = 24

    def __init__(self) -> None:
        self._servers: dict[Any, Server] = {}  # the one used last is the last
        self.problems: list[str] = []  # of those that ended

    def find(self, key: Any, make: Callable[[], Server]) -> Server:
        server = self._servers.pop(key, None)
        if server is not None and server.alive():
            self._servers[key] = server
        else:
            self._servers[key] = server = make()
            server.await_ready()
            self.end_all_but(self.KEPT)
        return server

    def end_all_but(self, count: int) -> None:
        while len(self._servers) > count:
            server = self._servers.pop(next(iter(self._servers)))
            try:
                server.mark()
                server.stop()
            except AssertionError as error:
                self.problems.append(str(error))
            finally:
                server.kill()


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[SharedServers]:
    servers = SharedServers()
    yield servers
    servers.end_all_but(0)
    assert not servers.problems, "\n".join(servers.problems)


@pytest.fixture
def shared(
    request: pytest.FixtureRequest, made: Factory, shared_servers: SharedServers
) -> Iterator[Factory]:
    used: list[Server] = []

    def find(app: str, *args: str, **options: Any) -> Server:
        key = (app, args, tuple(sorted(options.items())))
        server = shared_servers.find(key, lambda: made(app, *args, **options))
        if server not in used:
            server.mark()
            server.tracebacks_expected = False
            used.append(server)
        return server

    yield find
    for server in used:
        report_log(request.node, server)
        assert server.alive(), (
            f"the server died with status {server.process.returncode}:\n{server.log()}"
        )
        server.check_log()
