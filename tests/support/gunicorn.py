"""A gunicorn master with our workers, and clients that check every answer while it changes them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .certificates import Authority
from .client import SLOWNESS, RawClient, connect
from .load import PATIENCE
from .server import APPS, FORBIDDEN, Server, child_environment


class Gunicorn(Server):
    """``conf`` is the text of its configuration file. It listens at a port of the kernel's choice,
    unless ``conf`` says where."""

    def __init__(
        self,
        worker: str,
        app: str,
        conf: str,
        folder: Path,
        *args: str,
        env: dict[str, str] | None = None,
        script: Path | None = None,
        pass_fds: tuple[int, ...] = (),
        tls: Authority | None = None,
    ) -> None:
        """``script``: a program that starts gunicorn itself."""
        self.app, self.uds, self.host, self.port = app, None, "127.0.0.1", 0
        self.context = tls.trusting() if tls is not None else None
        self.tracebacks_expected = self.aborts_expected = False
        self.conf = folder / "gunicorn.conf.py"
        self.write(conf)
        worker = worker if "." in worker else f"asgiserver.gunicorn.{worker}"
        words = ["-m", "gunicorn", "-c", str(self.conf), "-k", worker, *args, app]
        self.command = [sys.executable, *([str(script)] if script is not None else words)]
        self._launch(self.command, cwd=APPS, env=child_environment(env or {}), pass_fds=pass_fds)

    def write(self, conf: str) -> None:
        """Read again at HUP."""
        # A worker that is only starting does not hear SIGTERM: it is killed then, before a test has
        # waited for too long. What ``conf`` says comes later, and holds.
        head = f"control_socket_disable = True\ngraceful_timeout = {int(8 * SLOWNESS)}\n"
        if not re.search(r"^bind\b", conf, re.MULTILINE):
            head += "bind = '127.0.0.1:0'\n"
        self.conf.write_text(head + conf)

    def await_ready(self) -> None:
        found = self.wait_log(r"Listening at: (?:https?://[\d.]+:(\d+)|unix:(\S+))")
        self.port = int(found[1] or 0)
        if found[2]:
            self.uds = Path(found[2])
        self.wait_log(r"Booting worker with pid: \d+")

    def check_log(self) -> None:
        """A worker that is aborted says so in words that are forbidden elsewhere."""
        text = self.log()
        if self.aborts_expected:
            text = text.replace("Fatal Python error: Aborted", "")
        assert not FORBIDDEN.search(text), text
        assert self.tracebacks_expected or "Traceback (most recent" not in text, text

    def kill(self) -> None:
        """With those that outlive the master: its successor, and workers of a master that was
        killed. They hold the pipe that its log comes by."""
        masters = re.findall(r"\[(\d+)\] \[INFO\] Starting gunicorn", self.log())
        for pid in [*map(int, masters), *self.workers()]:
            if pid != self.pid and _is_gunicorn(pid):
                with contextlib.suppress(ProcessLookupError):  # It has ended just now.
                    os.kill(pid, signal.SIGKILL)
        super().kill()

    def workers(self) -> list[int]:
        """Process ids of the workers that were started so far."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log())]


def _is_gunicorn(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class Load:
    """Clients that ask on kept connections as fast as they are answered. ``stop()`` returns the
    bodies of the answers; anything but a whole answer of status 200 fails it, unless this process was late
    with its request."""

    def __init__(self, server: Server, path: str = "/pid", clients: int = 3) -> None:
        self._server, self._path = server, path
        self._ending = threading.Event()
        self._failures: list[str] = []
        self.answers: list[str] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        client: RawClient | None = None
        while not self._ending.is_set():
            asked = time.monotonic() if client is None else client.sent
            try:
                client = client or connect(self._server.address)
                client.get(self._path)
                response = client.recv_response()
                assert response.status == 200, response
                self.answers.append(response.text)
                if response.closes:
                    client.close()
                    client = None
            except (OSError, AssertionError) as error:
                if client is None or client.sent - asked < PATIENCE:
                    self._failures.append(f"after {len(self.answers)} answers: {error!r}")
                client = None
        if client is not None:
            client.close()

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Until the condition holds, asked again with every few answers."""
        deadline, tick = time.monotonic() + seconds * SLOWNESS, threading.Event()
        while not condition():
            assert time.monotonic() < deadline, f"{what}: answers by {set(self.answers)}"
            tick.wait(0.05)

    def stop(self) -> list[str]:
        self._ending.set()
        for thread in self._threads:
            thread.join(30 * SLOWNESS)
        assert not self._failures, self._failures
        return self.answers
