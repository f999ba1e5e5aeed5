"""New code and new settings without a lost request: SIGHUP, ``--preload``, ``--reload``."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.client import SLOWNESS, connect
from support.load import Load
from support.probes import get_in_time
from support.processes import (
    await_end,
    children,
    descendants,
    lives,
    open_files,
    state,
    wait_until,
)
from support.server import Server, child_environment

QUIET = ("--no-access-log",)

CODE = """
import os
{before}
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    body = b"{text}"
    await send({{"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"%d" % len(body))]}})
    await send({{"type": "http.response.body", "body": body}})
"""

WSGI_CODE = """
{before}
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len("{text}")))])
    return [b"{text}"]
"""


class Code:
    """A module whose text changes."""

    def __init__(self, folder: Path, code: str = CODE) -> None:
        self.folder, self._code = folder, code
        self.write("one")

    def write(self, text: str, before: str = "") -> None:
        new = self.folder / "changing.tmp"
        new.write_text(self._code.format(text=text, before=before))
        os.utime(new, ns=(time.time_ns(), time.time_ns()))  # a new time for cached bytecode
        new.rename(self.folder / "changing.py")

    @property
    def words(self) -> tuple[str, ...]:
        return ("changing:app", "--app-dir", str(self.folder), *QUIET)


@pytest.fixture(params=[CODE, WSGI_CODE], ids=["asgi", "wsgi"])
def code(request, tmp_path):
    return Code(tmp_path, request.param)


@pytest.fixture(params=[(), ("--preload",)], ids=["import", "preload"])
def preload(request):
    return request.param


def booted(server: Server, count: int = 2) -> Server:
    for number in range(1, count + 1):
        server.wait_log(f"Worker {number} is ready")
    server.mark()
    return server


NO_PYC = {"PYTHONDONTWRITEBYTECODE": "1"}


def hup(server: Server, result: str = "Reloaded") -> None:
    server.mark()
    server.signal(signal.SIGHUP)
    server.wait_log(result)


# --- SIGHUP ---


def test_new_code(serve, code, preload):
    server = booted(serve(*code.words, "--workers", "2", *preload, env=NO_PYC))
    with Load(server.address) as load:
        load.wait(50)
        for text in ("two", "three"):
            code.write(text)
            hup(server)
            # An old worker may not have heard yet that it is to retire.
            load.wait_until(lambda text=text: text in load.bodies())
            load.wait(50)
    assert load.failures == []
    assert set(load.bodies()) == {"one", "two", "three"}
    old_ones_end(server, preload)
    assert server.get() == "three"


def test_new_code_on_a_unix_socket(serve, tmp_path):
    code = Code(tmp_path)
    server = booted(serve(*code.words, "--workers", "2", uds=tmp_path / "s", env=NO_PYC))
    with Load(server.address) as load:
        load.wait(20)
        code.write("two")
        hup(server)
        load.wait(50)
    assert load.failures == []
    old_ones_end(server)
    assert server.get() == "two"


def test_code_that_cannot_be_imported(serve, code, preload):
    server = booted(serve(*code.words, "--workers", "2", *preload, env=NO_PYC))
    server.expect_tracebacks()
    before = workers(server)
    with Load(server.address) as load:
        code.write("two", before="raise RuntimeError('broken')")
        hup(server, "Nothing is reloaded: ")
        load.wait(50)
        assert server.log().count("Traceback") == 1
        wait_until(lambda: workers(server) == before)
        code.write("three")
        hup(server)
        load.wait(50)
    assert load.failures == []
    old_ones_end(server, preload)
    assert server.get() == "three"


def workers(server: Server) -> list[int]:
    return sorted(pid for pid in children(server.pid) if lives(pid))


def old_ones_end(server: Server, preload: tuple[str, ...] = ()) -> None:
    """Until then, one may accept a client: it is told to retire, and has not heard of it."""
    wait_until(lambda: len(workers(server)) == 2 + bool(preload))


def test_the_second_worker_cannot_start(serve, tmp_path, preload):
    """The first one, which is new already, goes back to what it was."""
    flag = tmp_path / "flag"
    config = tmp_path / "a.toml"
    config.write_text("workers = 2\n")
    server = booted(
        serve(
            "workers_asgi:app", "--config", str(config), *preload, *QUIET,
            env={"APP_FAILS": str(flag)},
        )
    )  # fmt: skip
    config.write_text('workers = 2\nheaders = {X-New = "1"}\n')
    flag.write_text("works fails")  # and the third one works
    server.mark()
    with Load(server.address) as load:
        server.signal(signal.SIGHUP)
        server.wait_log(r"Worker 1 is ready(.|\n)*Nothing is reloaded(.|\n)*Worker 1 is ready")
        load.wait(50)
    assert load.failures == []
    old_ones_end(server, preload)
    for _ in range(20):
        with server.raw() as client:
            client.get()
            assert client.recv_response().get("x-new") is None


def test_new_settings(serve, tmp_path):
    config = tmp_path / "a.toml"
    config.write_text("workers = 2\n")
    server = booted(serve("workers_asgi:app", "--config", str(config), *QUIET))
    with Load(server.address) as load:
        config.write_text('workers = 3\nheaders = {X-New = "1"}\n')
        hup(server)
        server.wait_log("Worker 3 is ready")
        wait_until(lambda: len(workers(server)) == 3)
        with server.raw() as client:
            client.get()
            assert client.recv_response().get("x-new") == b"1"
        config.write_text("workers = 1\numask = '077'\n")
        hup(server)
        server.wait_log("--umask takes effect at the next start")
        wait_until(lambda: len(workers(server)) == 1)
        load.wait(20)
    assert load.failures == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers = 'x'\n", "workers"),
        ("wrokers = 2\n", "wrokers"),
        ("workers = \n", "a.toml"),
        ("workers = 2\napp = 'nothing:app'\n", "new worker could not start"),
        ("workers = 2\nlog-config = 'nothing.json'\n", "no such file"),
        ("workers = 2\nbind = ['192.0.2.1:80']\n", "no address of this machine"),
    ],
)
def test_bad_settings(serve, tmp_path, text, said):
    config = tmp_path / "a.toml"
    config.write_text("workers = 2\nbind = ['127.0.0.1:0']\napp = 'workers_asgi:app'\n")
    server = booted(serve(None, "--config", str(config), *QUIET, binds=[]))
    before = workers(server)
    with Load(server.address) as load:
        config.write_text(text)
        hup(server, f"Nothing is reloaded: .*{said}")
        load.wait(50)
    assert load.failures == []
    wait_until(lambda: workers(server) == before)


def test_another_address(serve, tmp_path, preload):
    config = tmp_path / "a.toml"
    config.write_text(f"workers = 2\nbind = ['127.0.0.1:0', 'unix:{tmp_path}/old']\n")
    server = booted(serve("workers_asgi:app", "--config", str(config), *preload, *QUIET, binds=[]))
    config.write_text(f"workers = 2\nbind = ['127.0.0.1:0', 'unix:{tmp_path}/new']\n")
    with Load(server.address) as load:
        hup(server)
        with connect(f"{tmp_path}/new") as client:
            client.get()
            assert client.recv_response().status == 200
        assert not Path(tmp_path, "old").exists()
        load.wait(20)
    assert load.failures == []
    port = server.port
    config.write_text("workers = 2\nbind = ['[::1]:0']\n")
    hup(server)

    def refused() -> bool:
        try:
            connect(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(refused, what="for the old address to be refused")
    old_ones_end(server, preload)


def test_one_after_the_other(serve, tmp_path):
    """Hasty reloads end in the newest code, and none is lost."""
    code = Code(tmp_path)
    server = booted(serve(*code.words, "--workers", "2", env=NO_PYC))
    with Load(server.address) as load:
        for number in range(5):
            code.write(f"v{number}")
            server.signal(signal.SIGHUP)
            load.wait(5)
        server.wait_log("Reloaded")
        wait_until(lambda: {server.get() for _ in range(20)} == {"v4"})
        old_ones_end(server)
    assert load.failures == []
    assert {server.get() for _ in range(20)} == {"v4"}


def test_a_start_that_hangs_is_given_up(serve, tmp_path):
    code = Code(tmp_path)
    server = booted(serve(*code.words, "--workers", "2", env=NO_PYC))
    code.write("two", before="import time; print('hanging', flush=True); time.sleep(60)")
    server.signal(signal.SIGHUP)
    server.wait_log("hanging")
    code.write("three")
    hup(server)
    wait_until(lambda: server.get() == "three")


# --- preload ---


def test_imported_once(serve):
    server = booted(serve("workers_asgi:app", "--workers", "2", "--preload"), 2)
    server._mark = 0
    assert server.log().count("imported by") == 1
    importer = int(re.search(r"imported by (\d+)", server.log())[1])
    assert importer != server.pid
    assert importer in children(server.pid)
    server.stop()
    await_end(importer)


def test_the_supervisor_does_not_wait_for_an_import(serve, tmp_path):
    """While the new application is imported, hung and dead workers are still seen to."""
    code, end = Code(tmp_path), tmp_path / "end"
    server = serve(*code.words, "--workers", "2", "--preload", "--timeout-worker-healthcheck", "2", env=NO_PYC)  # fmt: skip
    server.expect_abort()  # one may be late by itself
    first, second = (
        int(server.wait_log(rf"Worker {number} is ready: process (\d+)")[1]) for number in (1, 2)
    )
    server.mark()
    wait = f"import os, time\nwhile not os.path.exists({str(end)!r}): time.sleep(0.01)"
    code.write("two", before=f"print('importing', flush=True)\n{wait}")
    server.signal(signal.SIGHUP)
    server.wait_log("importing")
    for pid, number in ((second, signal.SIGKILL), (first, signal.SIGSTOP)):
        with contextlib.suppress(ProcessLookupError):  # It was late, and is gone.
            os.kill(pid, number)
        server.wait_log(rf"process {pid}, .*was killed by SIG\w+(.|\n)* is ready")
    assert "Reloaded" not in server.log()
    end.touch()
    server.wait_log("Reloaded")
    old_ones_end(server, ("--preload",))
    assert server.get() == "two"


def test_the_nursery_is_killed(serve):
    server = booted(serve("workers_asgi:app", "--workers", "2", "--preload", *QUIET))
    server._mark = 0
    nursery = int(re.search(r"imported by (\d+)", server.log())[1])
    pids = [pid for pid in workers(server) if pid != nursery]
    server.mark()
    with Load(server.address) as load:
        os.kill(nursery, signal.SIGKILL)
        server.wait_log("imported by")
        load.wait(20)
        assert load.failures == []
        os.kill(pids[0], signal.SIGKILL)
        server.wait_log(r"Worker \d is ready")


def test_preload_with_threads_and_asyncio(serve, tmp_path):
    """What the application does when it is imported does not touch the supervisor."""
    before = (
        "import asyncio, threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "loop = asyncio.new_event_loop(); loop.run_until_complete(asyncio.sleep(0))\n"
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    )
    code = Code(tmp_path)
    code.write("one", before=before)
    server = booted(serve(*code.words, "--workers", "2", "--preload"))
    assert server.get() == "one"
    assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1
    pids = children(server.pid)
    server.stop()
    await_end(*pids)


@pytest.mark.memory
def test_shared_memory(serve, tmp_path):
    """What was imported is there once."""
    code = Code(tmp_path)
    code.write("one", before="ballast = [str(i) * 8 for i in range(300000)]")

    def proportional(*words: str) -> int:
        server = booted(serve(*code.words, "--workers", "3", *words), 3)
        for _ in range(30):
            server.get()
        total = 0
        for pid in [server.pid, *workers(server)]:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])
        server.stop()
        return total

    assert proportional("--preload") < 0.7 * proportional()


# --- reload ---


def reloading(serve, code: Code, *words: str, **options):
    server = serve(*code.words, "--reload", "--reload-dir", str(code.folder), *words, **options)
    server.mark()
    return server


def lost(load: Load) -> list[str]:
    """An open connection closes, since the next request is to see the new code; that can cross a
    request under way. Nothing else may fail."""
    return [one for one in load.failures if "closed before" not in one and "reset" not in one]


def test_a_change_is_served(serve, code):
    server = reloading(serve, code, env=NO_PYC)
    with Load(server.address, pause=0.002) as load:
        for text in ("two", "three", "four"):
            code.write(text)
            load.wait_until(lambda text=text: text in load.bodies())
    assert lost(load) == []
    server.stop()
    assert "Reloading for" in server.log()


def test_an_import_error_waits(serve, code):
    server = reloading(serve, code, env=NO_PYC)
    server.expect_tracebacks()
    with Load(server.address, pause=0.002) as load:
        code.write("two", before="this is no Python")
        server.wait_log("Waiting for a file to change")
        load.wait(20)
        assert load.bodies() == {"one"}
        code.write("three")
        load.wait_until(lambda: "three" in load.bodies())
    assert lost(load) == []


def test_the_first_start_fails(serve, tmp_path):
    code = Code(tmp_path)
    code.write("one", before="this is no Python")
    server = reloading(serve, code, env=NO_PYC, wait=False)
    server.expect_tracebacks()
    server.wait_log("Waiting for a file to change")
    code.write("two")
    server.await_ready()
    assert server.get() == "two"


def test_a_crash_and_then_an_error_wait_too(serve, tmp_path):
    code = Code(tmp_path)
    server = reloading(serve, code, env=NO_PYC)
    server.expect_tracebacks()
    pid = next(pid for pid in workers(server) if "watch_child" not in command(pid))
    code.write("two", before="this is no Python")
    server.wait_log("Waiting for a file to change")
    os.kill(pid, signal.SIGKILL)
    server.wait_log("killed by SIGKILL(.|\n)*Waiting for a file to change")
    code.write("three")
    wait_until(lambda: server.get() == "three")


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


def test_ctrl_c_leaves_nothing(tmp_path):
    code = Code(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "asgiserver", *code.words, "--reload", "--port", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env=child_environment(NO_PYC), text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if "CTRL+C" in line:
                break
        pids = descendants(process.pid)
        assert len(pids) == 2  # the worker, and the one that watches
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(15 * SLOWNESS) == 0, rest
    await_end(*pids)
    assert "Traceback" not in rest


def test_nothing_is_left_after_reloads(serve, tmp_path):
    code = Code(tmp_path)
    server = reloading(serve, code, env=NO_PYC)
    files = open_files(server.pid)
    for number in range(5):
        code.write(f"v{number}")
        wait_until(lambda number=number: get_in_time(server) == f"v{number}")
    wait_until(lambda: len(children(server.pid)) == 2, what="for two children")
    wait_until(lambda: all(state(pid) != "Z" for pid in children(server.pid)), what="for zombies")
    wait_until(lambda: open_files(server.pid) == files, what=f"to have {files} files")
