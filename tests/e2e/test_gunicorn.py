"""Our worker classes under a real gunicorn: its settings, its signals, and what happens under load."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.client import SLOWNESS, connect
from support.gunicorn import Gunicorn, Load
from support.pace import in_time
from support.ports import reserved_port
from support.probes import refuses
from support.processes import wait_until
from support.server import APPS, end_all

pytest.importorskip("gunicorn")

Start = Callable[..., Gunicorn]


@dataclass(frozen=True)
class Kind:
    name: str
    worker: str
    app: str
    conf: str = ""


WSGI = Kind("wsgi", "WSGIWorker", "gunicorn_apps:wsgi")
ASGI = Kind("asgi", "ASGIWorker", "gunicorn_apps:asgi")
KINDS = [
    WSGI,
    Kind("asgi-asyncio", "ASGIWorker", "gunicorn_apps:asgi", "asgi_loop = 'asyncio'\n"),
    Kind("asgi-uvloop", "ASGIWorker", "gunicorn_apps:asgi", "asgi_loop = 'uvloop'\n"),
]
BOTH = [WSGI, ASGI]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture(params=BOTH, ids=lambda kind: kind.name)
def either(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    started: list[Gunicorn] = []

    def begin(
        kind: Kind, conf: str = "", *args: str, wait: bool = True, **options: Any
    ) -> Gunicorn:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        server = Gunicorn(kind.worker, kind.app, kind.conf + conf, folder, *args, **options)
        started.append(server)
        if wait:
            server.await_ready()
        return server

    yield begin
    end_all(request.node, started)


def get(server: Gunicorn, path: str, *fields: str, status: int = 200) -> str:
    with server.raw() as client:
        client.get(path, *fields)
        response = client.recv_response()
        assert response.status == status, response
        return response.text


# --- where it listens ---------------------------------------------------------------------------------


def test_serves(start, kind):
    server = start(kind)
    with server.raw() as client:
        for _ in range(3):
            client.get("/")
            assert client.recv_response().text == "hello"


def test_the_loop_is_the_one_of_the_setting(start):
    for kind, wanted in ((KINDS[1], "asyncio"), (KINDS[2], "uvloop")):
        assert wanted in get(start(kind), "/loop")


def test_several_addresses(start, either, tmp_path):
    path = tmp_path / "s"
    server = start(either, f"bind = ['127.0.0.1:0', 'unix:{path}']\n")
    assert get(server, "/") == "hello"
    with connect(str(path)) as client:
        client.get("/")
        assert client.recv_response().text == "hello"


def test_an_inherited_descriptor(start, either):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd, port = sock.fileno(), sock.getsockname()[1]
        server = start(either, f"bind = 'fd://{fd}'\n", pass_fds=(fd,))
    assert server.port == port
    assert get(server, "/") == "hello"


def on_free_port(start: Start, kind: Kind, conf: str) -> Gunicorn:
    """Where its log does not tell the port, or not when it serves."""

    def connects() -> bool:
        with contextlib.suppress(ConnectionRefusedError), server.raw():
            return True
        return False

    with reserved_port() as port:
        server = start(kind, f"bind = '127.0.0.1:{port}'\n{conf}", wait=False)
        server.port = port
        wait_for(connects)
    return server


def test_reuse_port(start, either):
    # Before that, gunicorn's own workers do not hear SIGTERM.
    ready = "def post_worker_init(worker): print('READY', flush=True)\n"
    server = on_free_port(start, either, "reuse_port = True\nworkers = 2\n" + ready)
    server.wait_log(r"(?s)(READY.*){2}")
    assert get(server, "/") == "hello"


# --- settings that have an effect on connections ------------------------------------------------------


def test_keepalive(start, either):
    server = start(either, "keepalive = 1\n")
    with server.raw() as client:
        client.get("/")
        assert not client.recv_response().closes
        assert client.at_end()


def test_no_keepalive(start, either):
    server = start(either, "keepalive = 0\n")
    with server.raw() as client:
        client.get("/")
        assert client.recv_response().closes
        assert client.at_end()


def test_worker_connections(start, either):
    server = start(either, "worker_connections = 2\nkeepalive = 20\n")
    with server.raw() as first, server.raw() as second, server.raw(timeout=1.5) as third:
        for client in (first, second):
            client.get("/")
            client.recv_response()
        third.get("/")
        with pytest.raises(TimeoutError):
            third.recv_response()
        first.close()
        third.socket.settimeout(10 * SLOWNESS)
        assert third.recv_response().text == "hello"


@pytest.mark.parametrize(
    ("conf", "request_", "refused", "accepted"),
    [
        ("limit_request_line = 50", "GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", (414, 60), 20),
        ("limit_request_line = 0", "GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", None, 20000),
        (
            "limit_request_field_size = 50",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
            (431, 41),
            40,
        ),
        (
            "limit_request_field_size = 0",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
            None,
            200000,
        ),
    ],
)
def test_limits(start, either, conf, request_, refused, accepted):
    server = start(either, conf + "\n")
    with server.raw() as client:
        client.send(request_.format("x" * accepted))
        assert client.recv_response().status == 200
    if refused:
        status, size = refused
        with server.raw() as client:
            client.send(request_.format("x" * size))
            assert client.recv_response().status == status


def test_limit_request_fields(start, either):
    server = start(either, "limit_request_fields = 3\n")
    with server.raw() as client:
        client.get("/", "A: 1", "B: 2")
        assert client.recv_response().status == 200
        client.get("/", "A: 1", "B: 2", "C: 3")
        assert client.recv_response().status == 431


# --- what applications see ----------------------------------------------------------------------------


def test_root_path(start):
    server = start(ASGI, "root_path = '/mounted'\n")
    assert get(server, "/env/root_path") == "'/mounted'"
    with server.raw() as client:  # The path is as it came.
        client.get("/env/path")
        assert client.recv_response().text == "'/env/path'"


def test_script_name_of_raw_env(start):
    server = start(WSGI, "raw_env = ['SCRIPT_NAME=/app']\n")
    assert get(server, "/app/env/SCRIPT_NAME") == "'/app'"
    assert get(server, "/app/env/PATH_INFO") == "'/env/PATH_INFO'"


def test_raw_env(start, either):
    server = start(either, "raw_env = ['MARK=made']\n")
    assert get(server, "/mark") == "made"


def test_umask(start, either, tmp_path):
    path = tmp_path / "s"
    server = start(either, f"bind = 'unix:{path}'\numask = 0o027\n")
    assert get(server, "/") == "hello"
    assert path.stat().st_mode & 0o777 == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_user_and_group(start, either):
    # Gunicorn's worker imports it, as a user who may not be allowed to read this Python's files.
    server = start(either, "import hashlib\nuser = 65534\ngroup = 65534\n")
    pid = int(get(server, "/pid"))
    assert os.stat(f"/proc/{pid}").st_uid == 65534
    assert os.stat(f"/proc/{pid}").st_gid == 65534


@pytest.mark.parametrize(("workers", "multi"), [(1, "False"), (2, "True")])
def test_multiprocess(start, workers, multi):
    server = start(WSGI, f"workers = {workers}\n")
    assert get(server, "/env/wsgi.multiprocess") == multi


@pytest.mark.parametrize("conf", ["", "sendfile = False\n"])
def test_files(start, conf):
    server = start(WSGI, conf)
    assert get(server, "/file") == (APPS / "gunicorn_apps.py").read_text()
    wrapper = get(server, "/env/wsgi.file_wrapper")
    assert ("gunicorn" in wrapper) == bool(conf)


def test_sendfile_off_under_asgi(start):
    assert "pathsend" in get(start(ASGI), "/env/extensions")
    assert "pathsend" not in get(start(ASGI, "sendfile = False\n"), "/env/extensions")


@pytest.mark.parametrize(
    ("fields", "scheme"),
    [
        ((), "http"),
        (("X-Forwarded-Proto: https",), "https"),
        (("X-Forwarded-Ssl: on",), "https"),
        (("X-Forwarded-Protocol: ssl",), "https"),
        (("X-Forwarded-Proto: other",), "http"),
        (("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"), None),
    ],
)
def test_secure_scheme_headers(start, either, fields, scheme):
    key = {"wsgi": "wsgi.url_scheme", "asgi": "scheme"}[either.name]
    server = start(either)
    if scheme is None:
        get(server, f"/env/{key}", *fields, status=400)
    else:
        assert get(server, f"/env/{key}", *fields) == repr(scheme)
    stranger = start(either, "forwarded_allow_ips = '10.0.0.1'\n")
    assert get(stranger, f"/env/{key}", *fields) == "'http'"


def test_secure_scheme_headers_of_the_users_own(start, either):
    key = {"wsgi": "wsgi.url_scheme", "asgi": "scheme"}[either.name]
    server = start(either, "secure_scheme_headers = {'X-OWN': 'yes'}\n")
    assert get(server, f"/env/{key}", "X-Own: yes") == "'https'"
    assert get(server, f"/env/{key}", "X-Forwarded-Proto: https") == "'http'"


def test_who_the_client_is(start):
    """As gunicorn's WSGI workers have it, and as UvicornWorker has it."""
    field = "X-Forwarded-For: 192.0.2.7"
    assert get(start(WSGI), "/env/REMOTE_ADDR", field) == "'127.0.0.1'"
    assert "192.0.2.7" in get(start(ASGI), "/env/client", field)
    assert "127.0.0.1" in get(start(ASGI, "forwarded_allow_ips = ''\n"), "/env/client", field)


@pytest.mark.parametrize(("allowed", "served"), [("127.0.0.1", True), ("10.0.0.1", False)])
def test_proxy_protocol(start, either, allowed, served):
    key = {"wsgi": "REMOTE_ADDR", "asgi": "client"}[either.name]
    server = start(either, f"proxy_protocol = 'v1'\nproxy_allow_ips = {allowed!r}\n")
    with server.raw() as client:
        line = "PROXY TCP4 192.0.2.9 127.0.0.1 4000 80"
        client.send(f"{line}\r\nGET /env/{key} HTTP/1.1\r\nHost: a\r\n\r\n")
        if served:
            assert "192.0.2.9" in client.recv_response().text
        else:
            with contextlib.suppress(ConnectionResetError):
                assert b"192.0.2.9" not in client.recv_all()


# --- lifespan, disconnects ----------------------------------------------------------------------------


def test_lifespan(start):
    server = start(ASGI)
    get(server, "/")
    server.wait_log("lifespan: lifespan.startup")
    server.stop()
    assert "lifespan: lifespan.shutdown" in server.log()


def test_lifespan_off(start):
    server = start(ASGI, "asgi_lifespan = 'off'\n")
    get(server, "/")
    assert "lifespan:" not in server.log()


def test_lifespan_that_fails_ends_the_master(start):
    server = start(ASGI, "raw_env = ['REFUSE=1']\n", wait=False)
    assert server.wait() == 3
    assert "no database" in server.log()
    assert "Worker failed to boot" in server.log()
    assert len(server.workers()) == 1  # no storm


@pytest.mark.parametrize("grace", [0, 1])
def test_an_application_whose_client_left_is_cancelled(start, grace):
    server = start(ASGI, f"asgi_disconnect_grace_period = {grace}\naccesslog = '-'\n")
    with server.raw() as client:
        client.get("/sleep/30")
        # It is being answered once the next one is, on one loop.
        get(server, "/")
    server.wait_log("cancelled /sleep/30")


def test_an_application_whose_client_stays_is_not_cancelled(start):
    server = start(ASGI, "asgi_disconnect_grace_period = 1\n")
    assert get(server, "/sleep/2") == "hello"
    assert "cancelled" not in server.log()


# --- logging ------------------------------------------------------------------------------------------

ATOMS = (
    "%(h)s|%(l)s|%(u)s|%(r)s|%(m)s|%(q)s|%(H)s|%(s)s|%(B)s|%(b)s|%(f)s|%(a)s"
    "|%({x-thing}i)s|%({Content-Type}o)s|%({missing}i)s|%({missing}o)s"
)
PYTHON_ATOMS = ATOMS + "|%(U)s|%({wsgi.version}e)s"
LOGGED = [
    ("GET", "/", ()),
    ("GET", "/a%20b/c?x=1&y=%22", ("User-Agent: agent", "Referer: http://there/")),
    ("GET", "/missing", ("X-Thing: a", 'User-Agent: with "quotes"')),
    ("HEAD", "/", ("Authorization: Basic dXNlcjpwYXNz",)),
    ("OPTIONS", "/", ("Authorization: Basic broken",)),
]


@pytest.mark.parametrize("atoms", [ATOMS, PYTHON_ATOMS], ids=["core", "python"])
@pytest.mark.parametrize(("kind", "theirs"), [(WSGI, "sync"), (ASGI, "asgi")], ids=["wsgi", "asgi"])
def test_the_access_log_is_gunicorns(start, tmp_path, kind, theirs, atoms):
    lines = []
    for number, worker in enumerate((kind.worker, f"gunicorn.workers.{THEIRS[theirs]}")):
        path = tmp_path / f"access{number}"
        other = Kind("", worker, kind.app)
        server = start(other, f"accesslog = {str(path)!r}\naccess_log_format = {atoms!r}\n")
        for method, target, fields in LOGGED:
            with server.raw() as client:
                client.get(target, *fields, method=method)
                client.recv_response(method)
        server.stop()
        # The core escapes a quote otherwise.
        lines.append(path.read_text().replace(r"\x22", r"\"").splitlines())
    assert lines[0] == lines[1]
    assert len(lines[0]) == len(LOGGED)


THEIRS = {"sync": "sync.SyncWorker", "asgi": "gasgi.ASGIWorker"}


def test_the_default_access_log(start, either):
    server = start(either, "accesslog = '-'\n")
    get(server, "/x?y=1")
    server.wait_log(
        r'^127\.0\.0\.1 - - \[\d+/\w+/\d{4}:[\d:]+ [+-]\d{4}\] "GET /x\?y=1 HTTP/1\.1" 200 5 "-" "-"$'
    )


def test_times_in_the_access_log(start, either):
    server = start(
        either,
        "accesslog = '-'\naccess_log_format = 'took %(D)s us %(M)s ms %(L)s s %(T)s by %(p)s'\n",
    )
    began = time.monotonic()
    get(server, "/sleep/0.2")
    found = server.wait_log(r"took (\d+) us (\d+) ms ([\d.]+) s (\d+) by <(\d+)>")
    # A sleep may end a little early.
    assert 190_000 <= int(found[1]) <= (time.monotonic() - began) * 1_000_000
    assert int(found[1]) // 1000 == int(found[2])
    assert float(found[3]) * 1_000_000 == pytest.approx(int(found[1]))
    assert found[5] == get(server, "/pid")


def test_no_access_log_unless_asked_for(start, either):
    server = start(either)
    get(server, "/secret")
    server.stop()
    assert "secret" not in server.log()


def test_logs_are_opened_again(start, either, tmp_path):
    access, errors = tmp_path / "access", tmp_path / "errors"
    server = start(either, f"accesslog = {str(access)!r}\nerrorlog = {str(errors)!r}\n", wait=False)
    wait_for(lambda: errors.exists() and "Listening" in errors.read_text())
    server.port = int(re.search(r"http://[\d.]+:(\d+)", errors.read_text())[1])
    get(server, "/one")
    wait_for(lambda: "/one" in access.read_text())
    for path in (access, errors):
        path.rename(path.with_suffix(".old"))
    server.signal(signal.SIGUSR1)
    wait_for(lambda: access.exists() and errors.exists())

    def moved() -> bool:
        get(server, "/two")
        return "/two" in access.read_text()

    wait_for(moved)
    server.stop()
    assert "Worker exiting" in errors.read_text()


def test_wsgi_errors_go_to_the_error_log(start, tmp_path):
    errors = tmp_path / "errors"
    server = start(WSGI, f"errorlog = {str(errors)!r}\n", wait=False)
    wait_for(lambda: errors.exists() and "Booting worker" in errors.read_text())
    server.port = int(re.search(r"http://[\d.]+:(\d+)", errors.read_text())[1])
    get(server, "/errors")
    wait_for(lambda: "written to wsgi.errors" in errors.read_text())


def test_our_messages_are_gunicorns(start, either):
    server = start(either)
    server.expect_tracebacks()
    get(server, "/fail", status=500)
    server.wait_log(r"\[\d+\] \[ERROR\] .*GET /fail")
    server.wait_log("RuntimeError: on purpose")


def test_loglevel(start, either):
    server = on_free_port(start, either, "loglevel = 'critical'\n")
    get(server, "/fail", status=500)
    server.stop()
    assert "on purpose" not in server.log()
    assert "INFO" not in server.log()


def test_logconfig(start, either, tmp_path):
    path = tmp_path / "access"
    server = start(
        either,
        "logconfig_dict = {'version': 1, 'formatters': {'own': {'format': 'OWN %(message)s'}},"
        f" 'handlers': {{'file': {{'class': 'logging.FileHandler', 'filename': {str(path)!r},"
        " 'formatter': 'own'}}, 'loggers': {'gunicorn.access': {'level': 'INFO',"
        " 'handlers': ['file'], 'propagate': False}}, 'root': {'level': 'INFO', 'handlers': []}}\n",
    )
    get(server, "/configured")
    wait_for(lambda: re.search("^OWN .*GET /configured", path.read_text()) is not None)


def test_a_logger_class_of_the_users_own(start, either):
    server = start(
        either,
        "from gunicorn.glogging import Logger\n"
        "class Own(Logger):\n"
        "    def access(self, resp, req, environ, request_time):\n"
        "        print('OWN', req.method, req.uri, resp.status, resp.sent, flush=True)\n"
        "        print(f'TIME {request_time.total_seconds():f}', len(resp.headers), flush=True)\n"
        "logger_class = Own\n",
    )
    began = time.monotonic()
    get(server, "/here?a=b")
    server.wait_log(r"^OWN GET /here\?a=b 200(?: OK)? 5$")
    found = server.wait_log(r"^TIME (\d+\.\d+) 2$")
    assert float(found[1]) <= time.monotonic() - began


def test_statsd(start, either):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(10 * SLOWNESS)
        port = sink.getsockname()[1]
        server = start(either, f"statsd_host = '127.0.0.1:{port}'\nstatsd_prefix = 'me'\n")
        get(server, "/")
        seen: set[bytes] = set()
        while b"me.gunicorn.request.status.200:1|c|@1.0" not in seen:
            seen.add(sink.recv(1000))
        assert b"me.gunicorn.requests:1|c|@1.0" in seen


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    pause = threading.Event()
    for _ in range(int(seconds * SLOWNESS * 20)):
        with contextlib.suppress(FileNotFoundError):
            if condition():
                return
        pause.wait(0.05)
    raise AssertionError("time is over")


# --- hooks --------------------------------------------------------------------------------------------

HOOKS = """
import os
def say(*words):
    os.write(1, (" ".join(map(str, ("HOOK", *words))) + "\\n").encode())
def on_starting(server): say("on_starting")
def when_ready(server): say("when_ready")
def pre_fork(server, worker): say("pre_fork", worker.nr)
def post_fork(server, worker): say("post_fork")
def post_worker_init(worker): say("post_worker_init", worker.alive)
def pre_request(worker, req): say("pre_request", worker.nr, req.method, req.path, req.query, req.version)
def post_request(worker, req, environ, resp):
    say("post_request", req.uri, environ["REQUEST_METHOD"], resp.status_code, resp.sent)
def worker_exit(server, worker): say("worker_exit", worker.nr)
def worker_int(worker): say("worker_int")
def child_exit(server, worker): say("child_exit")
def on_exit(server): say("on_exit")
"""


def test_hooks(start, either):
    server = start(either, HOOKS)
    get(server, "/one?two")
    get(server, "/missing", status=404)
    server.wait_log("HOOK post_request /missing")
    server.stop()
    said = re.findall("^HOOK (.*)$", server.log(), re.MULTILINE)
    assert said == [
        "on_starting",
        "when_ready",
        "pre_fork 0",
        "post_fork",
        "post_worker_init True",
        "pre_request 1 GET /one two (1, 1)",
        "post_request /one?two GET 200 5",
        "pre_request 2 GET /missing  (1, 1)",
        "post_request /missing GET 404 5",
        "worker_exit 2",
        "on_exit",
    ] or said[-3:] == ["worker_exit 2", "child_exit", "on_exit"]


def test_hooks_around_a_failure(start, either):
    server = start(either, HOOKS)
    server.expect_tracebacks()
    get(server, "/fail", status=500)
    server.wait_log(r"HOOK post_request /fail GET 500 0")


def test_a_hook_that_fails(start, either):
    server = start(either, "def post_request(worker, req): raise ValueError('from the hook')\n")
    server.expect_tracebacks()
    assert get(server, "/") == "hello"
    server.wait_log("Exception in post_request hook")
    assert get(server, "/") == "hello"


def test_quick_end(start, either):
    server = start(either, HOOKS)
    get(server, "/")
    with server.raw() as client:
        client.get("/sleep/30")
        wait_for(lambda: server.log().count("HOOK pre_request") == 2)
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0
    assert "HOOK worker_int" in server.log()
    assert "HOOK worker_exit" in server.log()


# --- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conf", "name"),
    [
        ("def ssl_context(conf, factory): return factory()\n", "ssl_context"),
        ("protocol = 'uwsgi'\n", "protocol"),
        ("strip_header_spaces = True\n", "strip_header_spaces"),
    ],
)
def test_refused_at_start(start, either, conf, name):
    server = start(either, conf, wait=False)
    assert server.wait() == 1
    assert re.search(rf"^Error: asgiserver cannot honour: {name} \(", server.log(), re.MULTILINE)
    assert not server.workers()


def test_refused_when_read_again(start, either):
    server = start(either)
    get(server, "/")
    server.write("protocol = 'uwsgi'\n")
    server.signal(signal.SIGHUP)
    assert server.wait() == 1
    assert "Reason: asgiserver cannot honour: protocol (" in server.log()


def test_the_wrong_class_for_the_application(start):
    for kind, right in ((WSGI, "ASGIWorker"), (ASGI, "WSGIWorker")):
        other = ASGI if kind is WSGI else WSGI
        server = start(Kind("", kind.worker, other.app), wait=False)
        assert server.wait() == 3
        assert f"use asgiserver.gunicorn.{right}." in server.log()
        assert len(server.workers()) == 1


def test_an_application_that_is_not_there(start, either):
    server = start(Kind("", either.worker, "gunicorn_apps:nowhere"), wait=False)
    assert server.wait() == 4
    assert "App failed to load." in server.log()
    assert len(server.workers()) == 1


@pytest.mark.parametrize("text", ["raise RuntimeError('cannot be imported')", "cannot be imported"])
def test_an_import_that_fails(start, either, tmp_path, text):
    (tmp_path / "broken.py").write_text(f"{text}\n")
    server = start(
        Kind("", either.worker, "broken:app"), f"pythonpath = {str(tmp_path)!r}\n", wait=False
    )
    server.expect_tracebacks()
    assert server.wait() == 3
    assert "cannot be imported" in server.log()
    assert len(server.workers()) == 1


# --- subclasses ---------------------------------------------------------------------------------------


def subclass(folder: Path, kwargs: str, base: str = "ASGIWorker") -> str:
    (folder / "myworkers.py").write_text(
        f"from asgiserver.gunicorn import {base}\n"
        f"class MyWorker({base}):\n    CONFIG_KWARGS = {kwargs}\n"
    )
    return "myworkers.MyWorker"


def test_config_kwargs(start, tmp_path):
    kwargs = (
        "{'loop': 'asyncio', 'lifespan': 'off', 'root_path': '/x', 'headers': [('X-Own', '1')]}"
    )
    kind = Kind("", subclass(tmp_path, kwargs), ASGI.app)
    server = start(kind, env={"PYTHONPATH": str(tmp_path)})
    with server.raw() as client:
        client.get("/env/root_path")
        response = client.recv_response()
        assert response.get("x-own") == b"1"
    assert "lifespan:" not in server.log()


def test_a_factory(start, tmp_path):
    kind = Kind("", subclass(tmp_path, "{'factory': True}"), "gunicorn_apps:make_asgi")
    assert get(start(kind, env={"PYTHONPATH": str(tmp_path)}), "/") == "hello"


def test_the_application_ends_the_program(start, either):
    """What else runs in that worker ends in order, and another worker takes its place."""
    server = start(either)
    server.expect_tracebacks()
    (first,) = server.workers()
    with server.raw() as client:
        client.get("/exit")
        client.recv_all()
    server.wait_log("exited with code 7")
    wait_until(lambda: server.workers() not in ([], [first]))
    assert get(server, "/") == "hello"


def test_config_kwargs_that_mean_nothing(start, tmp_path):
    kind = Kind("", subclass(tmp_path, "{'http': 'h11'}"), ASGI.app)
    server = start(kind, wait=False, env={"PYTHONPATH": str(tmp_path)})
    assert server.wait() == 1
    assert "CONFIG_KWARGS['http'] (there is no such option)" in server.log()


def test_embedded(start, either, tmp_path):
    (tmp_path / "own.py").write_text(
        "import sys\n"
        "from gunicorn.app.base import BaseApplication\n"
        "import gunicorn_apps\n"
        "class Own(BaseApplication):\n"
        "    def load_config(self):\n"
        "        self.cfg.set('bind', '127.0.0.1:0')\n"
        "        self.cfg.set('control_socket_disable', True)\n"
        f"        self.cfg.set('worker_class', 'asgiserver.gunicorn.{either.worker}')\n"
        "    def load(self):\n"
        f"        return gunicorn_apps.{either.app.partition(':')[2]}\n"
        "Own().run()\n"
    )
    server = start(either, script=tmp_path / "own.py", env={"PYTHONPATH": str(APPS)})
    assert get(server, "/") == "hello"


# --- processes ----------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced(start, kind):
    server = start(kind)
    first = int(get(server, "/pid"))
    os.kill(first, signal.SIGKILL)
    server.wait_log(rf"Worker \(pid:{first}\) was sent SIGKILL")
    assert int(get(server, "/pid")) != first


def judged(
    server: Gunicorn, check: Callable[[Gunicorn], None], late: Callable[[str], bool]
) -> bool:
    """False: it failed, and its log tells that gunicorn's patience with a process had an end before."""
    try:
        check(server)
    except (AssertionError, ConnectionError):
        if not late(server.log()):
            raise
        server.expect_tracebacks()
        server.aborts_expected = True
        server.stop()
        return False
    return True


def has_timed_out(log: str) -> bool:
    return "WORKER TIMEOUT" in log


@pytest.mark.slow
def test_a_hanging_application_is_replaced(start, kind):
    """It has two seconds, and another one until it is killed."""

    def attempt() -> bool:
        server = start(
            kind, "timeout = 2\ndef worker_abort(worker): print('HOOK worker_abort', flush=True)\n"
        )
        server.expect_tracebacks()
        server.aborts_expected = True
        return judged(server, check, late)

    def late(log: str) -> bool:
        """Another worker did not run, or this one, or it could not tell what it was at."""
        before, _, after = log.partition("hanging\n")
        return has_timed_out(before) or after.count("TIMEOUT") > 1 or "SIGKILL" in after

    def check(server: Gunicorn) -> None:
        first = int(get(server, "/pid"))
        with server.raw() as client:
            client.get("/hang/60")
            server.wait_log("^hanging$")
            server.wait_log(rf"WORKER TIMEOUT \(pid:{first}\)")
            ended = server.wait_log(rf"Worker \(pid:{first}\) (exited with code \d+|was sent \w+)")
            assert ended[1] == "exited with code 1"
        server.wait_log(
            r'(?s)most recent call first.*?File ".*gunicorn_apps\.py", line \d+ in _text'
        )
        server.wait_log("HOOK worker_abort")
        assert int(get(server, "/pid")) != first

    in_time(attempt)


@pytest.mark.slow
def test_one_that_waits_does_not_hang(start):
    def attempt() -> bool:
        server = start(ASGI, "timeout = 2\n")
        return judged(server, check, has_timed_out)

    def check(server: Gunicorn) -> None:
        assert get(server, "/sleep/5") == "hello"
        assert "TIMEOUT" not in server.log()

    in_time(attempt)


@pytest.mark.slow
def test_an_idle_worker_lives_on(start, kind):
    def attempt() -> bool:
        server = start(kind, "timeout = 1\n")
        return judged(server, check, has_timed_out)

    def check(server: Gunicorn) -> None:
        first = get(server, "/pid")
        threading.Event().wait(4)
        assert get(server, "/pid") == first
        assert "TIMEOUT" not in server.log()

    in_time(attempt)


def test_a_request_may_finish(start, either, tmp_path):
    """Clients are refused meanwhile, not left to wait for a worker that accepts them no more."""
    server, flag = start(either, "graceful_timeout = 20\n"), tmp_path / "flag"
    with server.raw() as client:
        client.get("/pid")
        client.recv_response()
        client.get(f"/until{flag}")
        server.wait_log("^waiting")
        server.signal(signal.SIGTERM)
        wait_for(lambda: refuses(server))
        flag.touch()
        response = client.recv_response()
        assert response.text == "hello"
        assert response.closes
    assert server.wait() == 0


def test_graceful_timeout(start, either):
    """The cut comes two seconds before gunicorn would kill."""

    def attempt() -> bool:
        server = start(either, "graceful_timeout = 6\n")
        server.expect_tracebacks()
        return judged(server, check, lambda log: "SIGKILL" in log)

    def check(server: Gunicorn) -> None:
        with server.raw() as client:
            client.get("/pid")
            client.recv_response()
            client.get("/sleep/60")
            server.wait_log("^asleep")
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        assert "Cut requests that did not end within 4 s: 1" in server.log()
        assert "SIGKILL" not in server.log()

    in_time(attempt)


def test_max_requests(start, kind):
    server = start(kind, "max_requests = 5\n")
    pids = []
    for _ in range(12):
        pids.append(get(server, "/pid"))
    counts = [pids.count(pid) for pid in dict.fromkeys(pids)]
    # Some more, on connections that came meanwhile: none is refused.
    assert all(5 <= count < 12 for count in counts[:-1])
    assert len(counts) >= 2
    server.wait_log("Autorestarting worker after current request.")


def test_preload(start, either):
    server = start(either, "preload_app = True\nworkers = 2\n", "--env", "MARK=before")
    assert get(server, "/mark").startswith("before")


@pytest.mark.parametrize("kind", BOTH, ids=lambda kind: kind.name)
def test_reload(start, kind, tmp_path):
    path = tmp_path / "changing.py"
    template = "import gunicorn_apps\ngunicorn_apps.MARK = {!r}\n" + (
        f"app = gunicorn_apps.{kind.app.partition(':')[2]}\n"
    )
    path.write_text(template.format("one"))
    server = start(
        Kind("", kind.worker, "changing:app"),
        f"pythonpath = {str(tmp_path)!r}\nreload = True\nreload_engine = 'poll'\n",
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert get(server, "/mark").startswith("one")

    times = itertools.count(2_000_000_000, 10)

    def change(text: str, seen: Callable[[], Any]) -> None:
        """Until it is seen: the reloader may not have looked at the file before."""
        path.write_text(text)

        def again() -> bool:
            now = next(times)
            os.utime(path, (now, now))
            return bool(seen())

        wait_for(again)

    server.expect_tracebacks()
    change(template.format("two"), lambda: get(server, "/mark") == "two")
    server.wait_log(r"changing\.py modified")

    def shows_the_error() -> bool:
        with server.raw() as client:
            client.get("/")
            response = client.recv_response()
            return response.status == 500 and "SyntaxError" in response.text

    change("this is no Python", shows_the_error)
    change(template.format("three"), lambda: up(server) and get(server, "/mark") == "three")


def up(server: Gunicorn) -> bool:
    with server.raw() as client:
        client.get("/")
        return client.recv_response().status == 200


def test_more_and_fewer_workers(start, either):
    server = start(either)
    get(server, "/")
    server.signal(signal.SIGTTIN)
    wait_for(lambda: len(server.workers()) == 2)
    server.signal(signal.SIGTTOU)
    server.wait_log("Worker exiting")
    assert get(server, "/") == "hello"


def test_the_master_dies(start, either):
    server = start(either)
    pid = int(get(server, "/pid"))
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait(10)
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in state(pid))
    server.wait()
    assert "Parent changed, shutting down" in server.log()


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


# --- under load: no request is lost -------------------------------------------------------------------


@pytest.mark.slow
def test_recycling_under_load(start, kind):
    server = start(kind, "workers = 2\nmax_requests = 200\nmax_requests_jitter = 50\n")
    load = Load(server)
    load.wait(lambda: len(set(load.answers)) >= 6, "six workers")
    answers = load.stop()
    assert len(answers) > 800


@pytest.mark.slow
def test_reloading_under_load(start, kind):
    server = start(kind, "workers = 2\n")
    load = Load(server)
    for _ in range(3):
        load.wait(lambda: load.answers, "answers")
        before = set(load.answers)
        server.signal(signal.SIGHUP)
        load.wait(lambda before=before: set(load.answers) - before, "new workers")
    load.stop()


@pytest.mark.slow
def test_upgrading_under_load(start, kind, tmp_path):
    pid_file = tmp_path / "pid"
    server = start(kind, f"workers = 2\npidfile = {str(pid_file)!r}\n")
    load = Load(server)
    load.wait(lambda: len(load.answers) > 10, "answers")
    old = set(server.workers())
    server.signal(signal.SIGUSR2)
    new_file = Path(f"{pid_file}.2")
    load.wait(new_file.exists, "a new master")
    load.wait(lambda: len(set(server.workers()) - old) >= 2, "its workers")
    new_master = int(new_file.read_text())
    server.signal(signal.SIGTERM)
    try:
        assert server.process.wait(20) == 0
        done = len(load.answers)
        load.wait(lambda: len(load.answers) > done + 200, "answers by the new master")
        answers = load.stop()
        assert {int(answer) for answer in answers[-50:]} <= set(server.workers()) - old
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(new_master, signal.SIGTERM)
    wait_for(lambda: state(new_master) == "Z")


@pytest.mark.slow
def test_more_and_fewer_workers_under_load(start, kind):
    server = start(kind, "workers = 1\n")
    load = Load(server)
    for number in (signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU) * 2:
        count = len(load.answers)
        server.signal(number)
        load.wait(lambda count=count: len(load.answers) > count + 100, "answers")
    load.stop()
