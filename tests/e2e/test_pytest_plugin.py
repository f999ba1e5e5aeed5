"""The plugin for pytest, used by projects of its users: each test runs pytest over a project of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# pytester forgets what was first imported in a run of its own, which the core would not survive.
from asgiserver import in_thread, loops, serve_asgi, serve_wsgi, server, trace

assert all((in_thread, loops, serve_asgi, serve_wsgi, server, trace))

pytest_plugins = ["pytester"]

APPS = """
    import time, urllib.error, urllib.request

    async def asgi(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["path"] == "/crash":
            raise RuntimeError("asgi crashed")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"asgi"})

    def wsgi(environ, start_response):
        if environ["PATH_INFO"] == "/crash":
            raise RuntimeError("wsgi crashed")
        start_response("200 OK", [])
        return [b"wsgi"]

    def wait_log(served, text):
        # Access lines follow the answers, in batches.
        end = time.monotonic() + 20
        while text not in served.log:
            assert time.monotonic() < end, served.log
            time.sleep(0.001)

    def get(url):
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            error.close()
            return str(error.code)
"""

FIXTURES = pytest.mark.parametrize(
    "fixture", ["serve_app", "serve_app_module", "serve_app_session"]
)
INTERFACES = pytest.mark.parametrize("interface", ["asgi", "wsgi"])


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    return Run(pytester)


class Run:
    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        pytester.makepyfile(served_apps=APPS)

    def __call__(self, code: str, *args: str) -> pytest.RunResult:
        head = "import pytest\nfrom served_apps import asgi, get, wait_log, wsgi\n"
        self._pytester.makepyfile(head + code)
        return self._pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)


@FIXTURES
@INTERFACES
def test_an_application_is_served(run: Run, fixture: str, interface: str) -> None:
    result = run(
        f"""
def test_it({fixture}):
    served = {fixture}({interface})
    assert served.url == f"http://127.0.0.1:{{served.port}}" == served.server.url
    assert get(served.url + "/a") == "{interface}"
    assert "Listening at" in served.log
    wait_log(served, 'GET /a HTTP/1.1" 200')
"""
    )
    result.assert_outcomes(passed=1)


@FIXTURES
@INTERFACES
def test_a_crash_fails_its_test_and_no_other(run: Run, fixture: str, interface: str) -> None:
    result = run(
        f"""
@pytest.fixture(scope={fixture.removeprefix("serve_app").strip("_") or "function"!r})
def served({fixture}):
    return {fixture}({interface})

def test_before(served):
    assert get(served.url) == "{interface}"

def test_crash(served):
    assert get(served.url + "/crash") == "500"

def test_behind(served):
    assert get(served.url) == "{interface}"
    assert "crashed" not in served.log
"""
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ test_crash _*",
            "The application at http://127.0.0.1:* failed:",
            "ERROR: * in * application*",
            "Traceback (most recent call last):",
            f"RuntimeError: {interface} crashed",
        ]
    )


def test_expected_errors_fail_nothing(run: Run) -> None:
    result = run(
        """
def test_crash(serve_app_session):
    served = serve_app_session(asgi)
    served.expect_errors()
    assert get(served.url + "/crash") == "500"
    assert "asgi crashed" in served.log

def test_next_one(serve_app_session):
    served = serve_app_session(wsgi)
    assert get(served.url + "/crash") == "500"
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_next_one*"])


def test_what_fails_when_the_test_has_ended(run: Run) -> None:
    """An application that fails in its shutdown, or behind its answer."""
    result = run(
        """
async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise RuntimeError("no way out")

def test_it(serve_app):
    serve_app(failing)
"""
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_it*", "RuntimeError: no way out"])


def test_the_log_of_a_test_that_fails_by_itself(run: Run) -> None:
    result = run(
        """
def test_it(serve_app):
    assert get(serve_app(asgi).url + "/crash") == "asgi"
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *assert '500' == 'asgi'",
            "*- Captured server at http://127.0.0.1:* call -*",
            "*asgi crashed",
        ]
    )


def test_servers_have_logs_of_their_own(run: Run) -> None:
    result = run(
        """
def test_it(serve_app):
    one, two = serve_app(asgi), serve_app(wsgi)
    assert get(one.url + "/one") == "asgi"
    assert get(two.url + "/two") == "wsgi"
    wait_log(one, "/one")
    wait_log(two, "/two")
    assert "/two" not in one.log and "/one" not in two.log
    two.expect_errors()
    assert get(two.url + "/crash") == "500"
"""
    )
    result.assert_outcomes(passed=1)


def test_a_start_that_fails(run: Run) -> None:
    result = run(
        """
from asgiserver import StartError

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

def test_it(serve_app):
    with pytest.raises(StartError, match="no database"):
        serve_app(failing)
    with pytest.raises(StartError, match="There is no module"):
        serve_app("no_such_module_here:app")
    assert get(serve_app("served_apps:asgi", server_header=False).url) == "asgi"
"""
    )
    result.assert_outcomes(passed=1)


def test_servers_end_with_their_scope(run: Run) -> None:
    result = run(
        """
import threading
servers = []

def threads():
    return sum(thread.name == "asgiserver" for thread in threading.enumerate())

def test_start(serve_app, serve_app_module):
    serve_app(asgi), serve_app(asgi), serve_app_module(wsgi)
    assert threads() == 3

def test_module():
    assert threads() == 1
"""
    )
    result.assert_outcomes(passed=2)


def test_with_xdist(run: Run) -> None:
    result = run(
        """
@pytest.mark.parametrize("number", range(6))
def test_it(serve_app_session, number):
    assert get(serve_app_session(asgi).url) == "asgi"
""",
        "-n2",
    )
    result.assert_outcomes(passed=6)


def test_it_costs_nothing_where_it_is_not_used() -> None:
    """Neither the server nor asyncio is loaded because of the plugin."""
    code = (
        "import sys, pytest; before = set(sys.modules); import asgiserver.pytest_plugin, json; "
        "print(json.dumps(sorted(n for n in set(sys.modules) - before if not n.startswith('json'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    modules = {name for name in json.loads(done.stdout) if "editable" not in name}
    assert {name for name in modules if name.startswith("asgiserver")} == {
        "asgiserver", "asgiserver._version", "asgiserver.pytest_plugin",
    }  # fmt: skip
    assert "asyncio" not in modules


def test_it_is_there_without_asking(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--fixtures")
    result.stdout.fnmatch_lines(["serve_app -- *", "serve_app_session*"])
