"""The process as a whole: pid file, user, service manager, process 1, and what bad use gets."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.client import SLOWNESS, connect
from support.ports import reserved_port
from support.processes import await_end, children, state, wait_until
from support.server import APPS, child_environment

from asgiserver import Config
from asgiserver.errors import StartError
from asgiserver.process import Process

ASGI, WSGI = "workers_asgi:app", "workers_wsgi:app"
QUIET = ("--no-access-log",)
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
COUNTS = pytest.mark.parametrize("workers", ["1", "2"])


def gone() -> int:
    """An id that no process has."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


# --- the pid file ---


@COUNTS
def test_pid_file(serve, tmp_path, workers):
    path = tmp_path / "a.pid"
    server = serve(ASGI, "--pid", str(path), "--workers", workers)
    assert path.read_text() == f"{server.pid}\n"
    server.get()
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "gone"])
def test_stale_pid_file(serve, tmp_path, text):
    path = tmp_path / "a.pid"
    path.write_text(text and f"{gone()}\n")
    server = serve(ASGI, "--pid", str(path))
    assert path.read_text() == f"{server.pid}\n"


def test_a_pid_file_of_somebody_else_stays(serve, tmp_path):
    path = tmp_path / "a.pid"
    server = serve(ASGI, "--pid", str(path))
    path.write_text(f"{os.getpid()}\n")
    server.stop()
    assert path.exists()


# --- what bad use gets ---


def refused(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None, **options):
    """The one line of a server that did not start, and its status. Nothing was bound or forked."""
    trace = [sys.executable, "-m", "asgiserver", "--app-dir", str(APPS), *words]
    with reserved_port() as port:
        if not any(word.startswith(("--bind", "--port", "--uds", "--fd")) for word in words):
            trace += ["--port", str(port)]
        done = subprocess.run(
            trace, capture_output=True, text=True, timeout=30 * SLOWNESS, cwd=cwd or APPS,
            check=False, env=child_environment(env or {}), **options,
        )  # fmt: skip
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.1", port))
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--reload", "--workers", "2"], 2, "--reload: not together with --workers"),
        (["--reload", "--preload"], 2, "--reload: not together with --preload"),
        (["--threads", "2", "--interface", "asgi"], 2, "--threads: is for WSGI"),
        (["--limit-max-requests-jitter", "2"], 2, "does nothing without --limit-max-requests"),
        (["--user", "nobody-at-all"], 1, "--user nobody-at-all: there is no such user"),
        (["--group", "nobody-at-all"], 1, "--group nobody-at-all: there is no such group"),
        (["--pid", "/no/such/folder/x"], 1, "--pid /no/such/folder/x: there is no folder"),
        (["--log-config", "nothing.ini"], 1, "there is no such file"),
        (["--env-file", "nothing.env"], 1, "nothing.env"),
        (["--app-dir", "/no/such/folder"], 1, "/no/such/folder"),
        (["--reload", "--reload-dir", "/no/such"], 1, "--reload-dir /no/such: there is no such"),
        (["--bind", "127.0.0.1"  ":x"], 2, "'x' is not a port"),
        (["--bind", "fd://77"], 1, "the descriptor is not open"),
        (["--bind", "192.0.2.1:0"], 1, "no address of this machine"),
        (["--config", "nothing.toml"], 1, "nothing.toml"),
        (["--workers", "0"], 2, "less than 1"),
        (["--workers", "many"], 2, "not a whole number"),
        (["--health-path", "healthz"], 2, "does not begin with /"),
        (["--timeout-worker-healthcheck", "0.1"], 2, "less than"),
        (["--umask", "9"], 2, "octal"),
        (["--daemon"], 2, "systemd"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_use(words, status, said):
    more = [] if {"--workers", "--reload"} & set(words) else ["--workers", "2"]
    found, output = refused(*words, *more, ASGI)
    assert said in output
    assert found == status
    assert "Traceback" not in output
    assert "imported by" not in output
    lines = [line for line in output.splitlines() if not line.startswith(("Usage:", "Try "))]
    assert len([line for line in lines if line.strip()]) == 1, output


@pytest.mark.parametrize(
    ("kind", "said"),
    [("live", "has written it, and runs"), ("text", "holds no process id"), ("link", "symbolic link"), ("dangling", "symbolic link"), ("folder", "folder|directory"), ("fifo", "no regular file")],
)  # fmt: skip
@COUNTS
def test_bad_pid_file(tmp_path, kind, said, workers):
    path = tmp_path / "a.pid"
    if kind == "live":
        path.write_text(f"{os.getpid()}\n")
    elif kind == "text":
        path.write_text("precious\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        target = tmp_path / "target"
        path.symlink_to(target)
        if kind == "link":
            target.write_text(f"{gone()}\n")
    status, output = refused("--pid", str(path), "--workers", workers, ASGI)
    assert status == 1
    assert re.search(said, output, re.I)
    assert "Traceback" not in output
    assert os.path.lexists(path)


@COUNTS
def test_address_in_use(workers, tmp_path):
    with socket.socket() as taken, socket.socket(socket.AF_UNIX) as unix:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        unix.bind(f"{tmp_path}/live")
        unix.listen()
        Path(tmp_path, "file").write_text("precious")
        for bind, said in (
            (f"127.0.0.1:{taken.getsockname()[1]}", "the port is in use"),
            (f"unix:{tmp_path}/live", "in use"),
            (f"unix:{tmp_path}/file", "not a socket"),
            (f"unix:{tmp_path}/none/s", "there is no folder"),
        ):
            status, output = refused("--bind", bind, "--workers", workers, ASGI)
            assert (status, said in output) == (1, True), output
            assert "imported by" not in output
    assert Path(tmp_path, "file").read_text() == "precious"


def test_only_root_becomes_another(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(StartError, match="only root can become another user"):
        Process(Config(user="root"))


# --- user, group, mask (WSGI: another user may not be able to read the standard library) ---


@ROOT
@COUNTS
@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_user_and_group(serve, tmp_path, workers, preload):
    nobody = pwd.getpwnam("nobody")
    group = grp.getgrgid(nobody.pw_gid).gr_name
    tmp_path.chmod(0o755)
    path = Path("/tmp") / f"asgiserver-test-{os.getpid()}.sock"
    server = serve(
        WSGI, "--user", "nobody", "--group", group, "--umask", "027", "--workers", workers,
        *preload, "--uds-mode", "600", *QUIET, uds=path,
    )  # fmt: skip
    try:
        uid, euid, gid, mask, groups = server.get("/who").split(" ", 4)
        assert (int(uid), int(euid), int(gid)) == (nobody.pw_uid, nobody.pw_uid, nobody.pw_gid)
        assert mask == "27"
        assert "0" not in re.findall(r"\d+", groups)
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (nobody.pw_uid, nobody.pw_gid)
        assert stat.S_IMODE(found.st_mode) == 0o600
        server.stop()
    finally:
        path.unlink(missing_ok=True)


@ROOT
def test_numbers_do_as_names(serve):
    server = serve(WSGI, "--user", "12345", "--group", "23456", "--workers", "2")
    assert server.get("/who").split()[:3] == ["12345", "12345", "23456"]


@ROOT
def test_user_reloads(serve):
    """The supervisor stays who it was, or it could not give new workers what they need."""
    server = serve(WSGI, "--user", "nobody", "--workers", "2", *QUIET)
    server.wait_log("Worker 2 is ready")
    server.signal(signal.SIGHUP)
    server.wait_log("Reloaded")
    assert server.get("/who").split()[0] == str(pwd.getpwnam("nobody").pw_uid)


# --- systemd ---


class Manager:
    """A fake service manager's socket."""

    def __init__(self, address: str) -> None:
        self.shown = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address[0] == "@" else address)
        self._socket.settimeout(15 * SLOWNESS)

    def next(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def until(self, key: str) -> dict[str, str]:
        while key not in (said := self.next()):
            pass
        return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    name = f"@asgiserver-{os.getpid()}" if request.param == "abstract" else f"{tmp_path}/notify"
    one = Manager(name)
    yield one
    one.close()


@COUNTS
def test_notify(serve, backend, manager, workers):
    app = WSGI if backend.interface == "wsgi" else ASGI
    server = serve(
        app, "--workers", workers, env={"NOTIFY_SOCKET": manager.shown}, **backend.options
    )
    said = manager.next()
    assert said["READY"] == "1"
    assert said["MAINPID"] == str(server.pid)
    assert "STATUS" in said
    server.signal(signal.SIGTERM)
    assert manager.next() == {"STOPPING": "1"}
    assert server.wait() == 0


def test_ready_means_ready(serve, manager, tmp_path):
    """Not before clients can connect."""
    server = serve("cli_apps:stubborn_start", "--workers", "2", env={"NOTIFY_SOCKET": manager.shown}, wait=False)  # fmt: skip
    server.wait_log("starting")
    manager._socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        manager.next()
    server.stop(status=128 + signal.SIGTERM)


def test_notify_reloading(serve, manager, tmp_path):
    config = tmp_path / "a.toml"
    config.write_text("workers = 2\n")
    server = serve(ASGI, "--config", str(config), env={"NOTIFY_SOCKET": manager.shown})
    assert "READY" in manager.next()
    for text in ("workers = 2\n", "workers = -1\n"):
        config.write_text(text)
        before = time.monotonic_ns() // 1000
        server.signal(signal.SIGHUP)
        said = manager.next()
        assert said["RELOADING"] == "1"
        assert before <= int(said["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert manager.next()["READY"] == "1"


@COUNTS
def test_watchdog(serve, backend, manager, workers):
    app = WSGI if backend.interface == "wsgi" else ASGI
    env = {"NOTIFY_SOCKET": manager.shown, "WATCHDOG_USEC": "600000"}
    began = time.monotonic()  # several may wait by the time that the first is read
    serve(app, "--workers", workers, env=env, **backend.options)
    for _ in range(5):
        assert manager.until("WATCHDOG") == {"WATCHDOG": "1"}
    assert time.monotonic() - began > 4 * 0.3 * 0.75


def test_a_watchdog_of_another_process(serve, manager):
    env = {"NOTIFY_SOCKET": manager.shown, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}
    server = serve(ASGI, env=env)
    assert "READY" in manager.next()
    manager._socket.settimeout(0.6)
    with pytest.raises(TimeoutError):
        manager.next()
    server.get()


def test_a_manager_that_has_gone(serve):
    server = serve(ASGI, "--workers", "2", env={"NOTIFY_SOCKET": "/no/such/socket"})
    server.get()


ACTIVATE = """
import os, socket, sys
for place, number in enumerate(map(int, sys.argv[1].split(",")), 3):
    assert number != place
    os.dup2(number, place)
os.environ["LISTEN_FDS"] = str(len(sys.argv[1].split(",")))
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[2]))
os.execv(sys.executable, [sys.executable, "-m", "asgiserver", *sys.argv[3:]])
"""


@COUNTS
@pytest.mark.parametrize("other", [0, 1])
def test_socket_activation(tmp_path, workers, other):
    tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    with tcp, unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(f"{tmp_path}/s")
        for sock in (tcp, unix):
            sock.listen()
        # Above those that the child moves them to.
        numbers = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 64) for sock in (tcp, unix)]
        words = ["--port", "0"] if other else []
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, ",".join(map(str, numbers)), str(other), ASGI,
             "--app-dir", str(APPS), "--workers", workers, *words],
            pass_fds=numbers, env=child_environment({}), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        for number in numbers:
            os.close(number)
        with process:
            assert process.stdout is not None
            text = ""
            while "CTRL+C" not in text:
                line = process.stdout.readline()
                assert line, text
                text += line
            mine = f"127.0.0.1:{tcp.getsockname()[1]}\n" in text
            assert mine is not bool(other)
            assert (f"unix:{tmp_path}/s" in text) is not bool(other)
            if not other:
                for address in (tcp.getsockname(), f"{tmp_path}/s"):
                    with connect(address) as client:
                        client.get()
                        assert client.recv_response().status == 200
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(15 * SLOWNESS) == 0
        assert Path(tmp_path, "s").exists()  # the manager's


# --- process 1 ---


def namespace_works() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False, capture_output=True).returncode == 0  # fmt: skip


@pytest.mark.skipif(not namespace_works(), reason="needs a process namespace")
@pytest.mark.parametrize("app", [ASGI, WSGI])
def test_process_1(app, tmp_path):
    """It waits for orphans, whose parent it becomes; the application's own children stay its own."""
    (tmp_path / "orphans.py").write_text(
        "import subprocess\n"
        f"from {app.partition(':')[0]} import app\n"
        "subprocess.run(['sh', '-c', '(sleep 0.2; true) & exit 3'])\n"
        "print('own child:', subprocess.run(['sh', '-c', 'exit 7']).returncode, flush=True)\n"
    )
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m",
         "asgiserver", "orphans:app", "--app-dir", str(tmp_path), "--uds", f"{tmp_path}/s"],
        env=child_environment({"PYTHONPATH": str(APPS)}), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        text = ""
        while "CTRL+C" not in text:
            line = process.stdout.readline()
            assert line, text
            text += line
        assert "own child: 7" in text
        assert "process 1" in text
        init = children(process.pid)[0]
        wait_until(lambda: len(children(init)) == 1, what="for the orphan to be gone")
        assert state(children(init)[0]) != "Z"
        with connect(f"{tmp_path}/s") as client:
            client.get()
            assert client.recv_response().status == 200
        os.kill(init, signal.SIGTERM)
        process.stdout.read()
        assert process.wait(15 * SLOWNESS) == 0
    await_end(init)
