"""Options whose effect no other test of the server shows."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.client import SLOWNESS, connect
from support.ports import reserved_port
from support.probes import get_in_time
from support.server import Server

Factory = Callable[..., Server]
APP = "cli_apps:app"


def answers(address: Any) -> bool:
    with connect(address) as client:
        client.get("/")
        return client.recv_response().status == 200


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as one:
        yield one


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10 * SLOWNESS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# --- listening ---


@pytest.mark.parametrize("word", ["--bind", "-b"])
def test_bind(serve: Factory, tmp_path: Path, port: int, word: str) -> None:
    """Several, of several kinds."""
    path = tmp_path / "s"
    with reserved_port() as second:
        binds = [f"127.0.0.1:{port}", f"localhost:{second}", f"unix:{path}"]
        server = serve(APP, *(part for bind in binds for part in (word, bind)), binds=[])
    assert answers(("127.0.0.1", port))
    assert answers(("127.0.0.1", second))
    assert answers(str(path))
    assert f"Listening at unix:{path}\n" in server.log()


def test_host_and_port(serve: Factory, port: int) -> None:
    """``--host``, ``--port``."""
    server = serve(APP, "--host", "127.0.0.1", "--port", str(port), binds=[])
    assert f"Listening at http://127.0.0.1:{port}\n" in server.log()
    assert answers(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.2", port))


def test_uds(serve: Factory, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    serve(APP, "--uds", path, binds=[])
    assert answers(path)


def test_backlog(serve: Factory, tmp_path: Path) -> None:
    """A server that stands still accepts nobody; as many may wait as it said."""
    path = str(tmp_path / "s")
    server = serve(APP, "--uds", path, "--backlog", "3", binds=[])
    assert answers(path)
    server.signal(signal.SIGSTOP)
    waiting = []
    try:
        with pytest.raises(BlockingIOError):
            while len(waiting) < 100:
                client = socket.socket(socket.AF_UNIX)
                waiting.append(client)
                client.setblocking(False)
                client.connect(path)
    finally:
        server.signal(signal.SIGCONT)
        for client in waiting:
            client.close()
    assert len(waiting) - 1 == 3 + 1  # the kernel allows one more


@pytest.mark.parametrize("reuse_port", [False, True])
def test_reuse_port(serve: Factory, port: int, reuse_port: bool) -> None:
    """Only then can a second server have the same port."""
    args = ["--port", str(port), *["--reuse-port"] * reuse_port]
    serve(APP, *args, binds=[])
    second = serve(APP, *args, binds=[], wait=reuse_port)
    if not reuse_port:
        assert second.wait() == 1
        assert "the port is in use" in second.log()
    assert answers(("127.0.0.1", port))


# --- the loop and the log ---


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_loop(serve: Factory, name: str) -> None:
    server = serve(APP, "--loop", name)
    assert f"(ASGI 3 on {name})" in server.log()


@pytest.mark.parametrize(("level", "said"), [("info", True), ("warning", False)])
def test_log_level(serve: Factory, level: str, said: bool) -> None:
    server = serve(APP, "--log-level", level, wait=said)
    assert eventually(lambda: bound(server))
    assert answers(("127.0.0.1", server.port))
    server.stop()
    assert ("Serving" in server.log(), '"GET / HTTP/1.1" 200' in server.log()) == (said, said)


def bound(server: Server) -> bool:
    """Handlers of signals are set: the server can be stopped."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    caught = re.search(r"^SigCgt:\s+(\w+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("word", ["--use-colors", "--no-use-colors"])
def test_use_colors(serve: Factory, word: str) -> None:
    server = serve(APP, word)
    assert answers(("127.0.0.1", server.port))
    server.stop()
    green = "\x1b[32m" in server.log()
    assert green == (word == "--use-colors")


def test_no_access_log(serve: Factory) -> None:
    server = serve(APP, "--no-access-log")
    assert answers(("127.0.0.1", server.port))
    server.stop()
    assert "GET" not in server.log()


# --- limits and timeouts ---

STREAM = """
async def app(scope, receive, send):
    if scope["path"] == "/mark":
        print("mark", flush=True)
    length = 20_000_000 if scope["path"] == "/stream" else 0
    headers = [(b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if length:
        for _ in range(200):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        print("all sent", flush=True)
    await send({"type": "http.response.body"})
"""


@pytest.mark.parametrize(("size", "waits"), [("1024", True), ("100000000", False)])
def test_limit_write_buffer(
    serve: Factory, tmp_path: Path, loop: str, size: str, waits: bool
) -> None:
    """20 MB for a client that reads nothing: the application waits, or they are held for it."""
    (tmp_path / "main.py").write_text(STREAM)
    args = ["--app-dir", str(tmp_path), "--lifespan", "off", "--limit-write-buffer", size]
    server = serve("main:app", *args, loop=loop)
    with server.raw() as client:
        client.get("/stream")
        client.recv_head()
        with server.raw() as other:
            other.get("/mark")
            other.recv_response()
        server.wait_log("mark")
        if not waits:
            server.wait_log("all sent")
        assert ("all sent" in server.log()) != waits
        client.recv_exactly(20_000_000)
    server.wait_log("all sent")


@pytest.mark.parametrize(("seconds", "closes"), [("0.1", True), ("600", False)])
def test_timeout_linger(serve: Factory, seconds: str, closes: bool) -> None:
    """A client that does not close after a last answer is waited for so long."""
    server = serve(
        "probe_asgi:app", "--timeout-linger", seconds, "--timeout-graceful-shutdown", "0"
    )
    before = server.open_files()
    with server.raw() as client:
        client.send("GET /hello HTTP/1.1\r\nHost: a b\r\n\r\n")
        assert client.recv_response().status == 400
        assert client.at_end()
        if closes:
            assert eventually(lambda: server.open_files() == before)
        else:
            time.sleep(1.5)  # as long as nothing happens
            assert server.open_files() == before + 1


# --- processes ---


@pytest.mark.parametrize(("args", "imports"), [((), 2), (("--preload",), 1)])
def test_preload(serve: Factory, tmp_path: Path, args: tuple[str, ...], imports: int) -> None:
    (tmp_path / "main.py").write_text(
        "print('imported', flush=True)\nasync def app(scope, receive, send): ...\n"
    )
    args = ("--app-dir", str(tmp_path), "--lifespan", "off", "--workers", "2", *args)
    server = serve("main:app", *args)
    server.wait_log("Worker 1 is ready")
    server.wait_log("Worker 2 is ready")
    assert server.log().count("imported") == imports


# --- reloading ---

RELOADED = """
TEXT = {text!r}
async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": TEXT.encode()}})
"""


class Project:
    """A folder with an application that answers with a text, served with ``--reload``."""

    def __init__(self, serve: Factory, folder: Path, *args: str, cwd: Path | None = None) -> None:
        self.folder = folder
        self.write("first")
        args = ("--app-dir", str(folder), "--lifespan", "off", "--no-access-log", "--reload", *args)
        self.server = serve("main:app", *args, cwd=cwd or folder)
        assert self.text() == "first"

    def write(self, text: str) -> None:
        (self.folder / "main.py").write_text(RELOADED.format(text=text))

    def text(self) -> str:
        return get_in_time(self.server)

    def ignores(self, path: Path) -> bool:
        """Whether a change of the file is passed over: one of the module, behind it, is seen."""
        path.write_text("")
        self.write("second")
        assert eventually(lambda: self.text() == "second")
        self.server.wait_log(r"Reloading for .*main\.py")
        return path.name not in self.server.log()


def test_reload(serve: Factory, tmp_path: Path) -> None:
    """--reload: what is new is served, and a mistake waits for the next change."""
    project = Project(serve, tmp_path)
    project.server.expect_tracebacks()
    project.write("second")
    assert eventually(lambda: project.text() == "second")
    (tmp_path / "main.py").write_text("mistake(\n")
    project.server.wait_log("main failed while it was imported: SyntaxError")
    project.write("third")
    assert eventually(lambda: project.text() == "third")


def test_reload_dir(serve: Factory, tmp_path: Path) -> None:
    for name in ("app", "named", "other"):
        (tmp_path / name).mkdir()
    args = ["--reload-dir", "named", "--reload-dir", "app"]
    project = Project(serve, tmp_path / "app", *args, cwd=tmp_path)
    assert project.ignores(tmp_path / "other" / "outside.py")
    (tmp_path / "named" / "within.py").write_text("")
    project.server.wait_log(r"Reloading for .*within\.py")


def test_reload_include(serve: Factory, tmp_path: Path) -> None:
    project = Project(serve, tmp_path, "--reload-include", "*.html")
    (tmp_path / "a.html").write_text("")
    project.server.wait_log(r"Reloading for .*a\.html")


def test_reload_exclude(serve: Factory, tmp_path: Path) -> None:
    project = Project(serve, tmp_path, "--reload-exclude", "generated_*")
    assert project.ignores(tmp_path / "generated_a.py")


def test_no_child_is_left_after_a_reloading_server(serve: Factory, tmp_path: Path) -> None:
    project = Project(serve, tmp_path)
    children = Path(f"/proc/{project.server.pid}/task/{project.server.pid}/children").read_text()
    assert len(children.split()) == 2  # a worker, and what watches
    project.server.stop()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children.split())


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_timeout_cancel(serve: Factory, loop: str, leave: str) -> None:
    """Who has left is waited for no longer than that, and whose client stays as long as it likes."""
    server = serve("gunicorn_apps:asgi", "--timeout-cancel", "0.5", interface="asgi", loop=loop)
    with server.raw() as client:
        client.get("/sleep/60")
        assert answers(("127.0.0.1", server.port))  # It has been read by now.
        getattr(client, leave)()
        server.wait_log("cancelled /sleep/60")
    with server.raw() as client:
        client.get("/sleep/1.5")
        assert client.recv_response().text == "hello"


def test_nobody_is_cancelled_unless_asked(serve: Factory, loop: str) -> None:
    server = serve("gunicorn_apps:asgi", interface="asgi", loop=loop)
    with server.raw() as client:
        client.get("/sleep/1")
        assert answers(("127.0.0.1", server.port))
        client.close()
    with server.raw() as client:
        client.get("/sleep/1.5")
        assert client.recv_response().text == "hello"
    assert "cancelled" not in server.log()
