"""A real server process for a test.

Readiness is never slept for. Over TCP the test makes the listening socket itself and hands it over as
``--fd``: the port is the kernel's choice and known before the process runs, and nobody else can take it.
The process is ready when its banner names that port (or the path of the Unix socket); until then
connections would wait in the kernel's queue, but a signal sent before would find no handler.
"""

from __future__ import annotations

import os
import re
import resource
import select
import signal as signals
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .certificates import Authority
from .client import SLOWNESS, RawClient, TLSAddress, connect

APPS = Path(__file__).resolve().parent.parent / "apps"

# What never belongs into a log, whatever the test expects of the application.
FORBIDDEN = re.compile(
    r"AddressSanitizer|LeakSanitizer|runtime error:|Fatal Python error|was never (awaited|retrieved)"
    r"|Exception ignored|Task was destroyed|SystemError|Assertion .* failed"
)
# How a worker ends that is killed for hanging, or whose descriptors are gone: Python's words, which it
# writes in pieces, so that lines of the log can come between, and uvloop's.
ABORTED = re.compile(
    r"Fatal Python error: (?:[A-Z]+: .*\n)*Aborted|Assertion `errno == EINTR' failed"
    r"|Exception ignored when trying to write to the signal wakeup fd"
)


class Server:
    """One running server. With ``tls`` it has a certificate of that authority, unless ``args`` say which,
    and ``raw`` connects by TLS, as ``context`` says. Made by the fixtures ``serve`` and ``shared`` (see tests/conftest.py)."""

    def __init__(
        self,
        app: str | None,
        *args: str,
        interface: str | None = None,
        loop: str | None = None,
        threads: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        bind: str = "127.0.0.1",
        uds: Path | None = None,
        port_option: bool = False,
        binds: Sequence[str] | None = None,
        rlimits: Mapping[int, int] | None = None,
        python: Sequence[str] = (),
        tls: Authority | None = None,
    ) -> None:
        self.context = tls.trusting() if tls is not None else None
        if tls is not None and "--ssl-certfile" not in args:
            # Nobody replaces the files.
            args = (*tls.here.words, "--ssl-reload-interval", "0", *args)
        self.app, self.uds, self.host = app, uds, bind
        self.port = 0
        self.tracebacks_expected = self.abort_expected = False
        command = [sys.executable, *python, "-m", "asgiserver"]
        listener: socket.socket | None = None
        if uds is not None:
            command += ["--uds", str(uds)]
        elif binds is not None:
            command += [word for one in binds for word in ("--bind", one)]
        elif port_option:
            command += ["--host", bind, "--port", "0"]
        else:
            family = socket.AF_INET6 if ":" in bind else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((bind, 0))
            listener.listen(1024)
            self.port = listener.getsockname()[1]
            command += ["--fd", str(listener.fileno())]
        if interface is not None:
            command += ["--interface", interface]
        if loop is not None:
            command += ["--loop", loop]
        if threads is not None:
            command += ["--threads", str(threads)]
        command += ["--app-dir", str(APPS), *args]
        if app is not None:
            command.append(app)
        self.command = command

        def limit() -> None:
            for which, value in (rlimits or {}).items():
                resource.setrlimit(which, (value, value))

        self._launch(
            command,
            cwd=cwd or APPS,
            env=child_environment(env or {}),
            pass_fds=() if listener is None else (listener.fileno(),),
            preexec_fn=limit if rlimits else None,
        )
        if listener is not None:
            listener.close()  # From now on a dead server refuses connections.

    def _launch(self, command: Sequence[str], **options: Any) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **options,
        )
        self.pid = self.process.pid
        assert self.process.stdout is not None
        self._output = self.process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._rest = b""  # of a line that has not ended yet
        self._lines: list[str] = []
        self._mark = 0
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()

    def await_ready(self) -> None:
        """Waits for the banner."""
        if self.uds is not None:
            self.wait_log(re.escape(str(self.uds)))
        elif self.port:
            self.wait_log(rf":{self.port}\b")
        self.wait_log(r"CTRL\+C.*\n")  # The banner's last line.
        if found := re.search(r"https?://[^\s/]+:(\d+)", self.log()):
            self.port = self.port or int(found.group(1))

    # --- where it is -------------------------------------------------------------------------------

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'http' if self.context is None else 'https'}://{self.authority}"

    @property
    def address(self) -> Any:
        """What ``connect`` takes."""
        plain = str(self.uds) if self.uds is not None else (self.host, self.port)
        if self.context is None:
            return plain
        return TLSAddress(plain, self.context, "localhost" if self.uds is not None else self.host)

    def raw(self, timeout: float | None = None) -> RawClient:
        """A fresh connection; use it as a context manager."""
        return connect(self.address, timeout)

    def get(self, target: str = "/") -> str:
        """The body of an answer, on a fresh connection."""
        with self.raw() as client:
            client.get(target, "Connection: close")
            response = client.recv_response()
        assert response.status == 200, response
        return response.text

    # --- what it says ------------------------------------------------------------------------------

    def _read_output(self) -> None:
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        while not self._ended:
            poll.poll()
            with self._changed:
                self._take_output()

    def _take_output(self) -> None:
        """What was written until now; with the lock."""
        while not self._ended:
            try:
                data = os.read(self._output, 1 << 16)
            except BlockingIOError:
                return
            self._ended = not data
            *lines, self._rest = (self._rest + data).split(b"\n")
            lines = [line + b"\n" for line in lines]
            if self._ended and self._rest:
                lines.append(self._rest)
            self._lines += [line.decode("utf-8", "backslashreplace") for line in lines]
            self._changed.notify_all()

    def mark(self) -> None:
        """From now on ``log`` and ``wait_log`` see only what comes later. What the server said before an
        answer that the test has is no part of that, nor is it missing in ``log``."""
        with self._changed:
            self._take_output()
            self._mark = len(self._lines)

    def log(self) -> str:
        with self._changed:
            self._take_output()
            return "".join(self._lines[self._mark :])

    def wait_log(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Waits until what was written since the mark matches; the match."""
        compiled = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout * SLOWNESS
        with self._changed:
            while True:
                text = "".join(self._lines[self._mark :])
                if found := compiled.search(text):
                    return found
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "the server ended" if self._ended else "time is over"
                    raise AssertionError(f"{why}; no {pattern!r} in the log:\n{text}")
                self._changed.wait(left)

    def expect_tracebacks(self) -> None:
        """This test makes the application fail."""
        self.tracebacks_expected = True

    def expect_abort(self) -> None:
        """This test makes a worker hang, which is killed and shows where it was."""
        self.abort_expected = True

    def check_log(self) -> None:
        text = self.log()
        if self.abort_expected:
            text = ABORTED.sub("", text)
        assert not FORBIDDEN.search(text), text
        assert self.tracebacks_expected or "Traceback (most recent" not in text, text

    # --- what it uses ------------------------------------------------------------------------------

    def rss(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found.group(1)) * 1024

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def spooled(self) -> int:
        """Bytes of files that have no name any more: of bodies. The least of several looks, as one
        file may go, and another grow, while a look goes from one to the next."""
        return min(self._look_at_spooled() for _ in range(3))

    def _look_at_spooled(self) -> int:
        size = 0
        for number in os.listdir(folder := f"/proc/{self.pid}/fd"):
            try:
                if os.readlink(f"{folder}/{number}").endswith("(deleted)"):
                    size += os.stat(f"{folder}/{number}").st_size
            except FileNotFoundError:
                pass  # closed meanwhile
        return size

    # --- how it ends -------------------------------------------------------------------------------

    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 30) -> int:
        """Waits for the process; its exit status. The log is complete then."""
        status = self.process.wait(timeout * SLOWNESS)
        self._reader.join(5 * SLOWNESS)
        return status

    def stop(self, status: int = 0, number: int = signals.SIGTERM) -> None:
        """Ends the process and asserts its exit status and a log without surprises. Idempotent."""
        if self.alive():
            self.signal(number)
        try:
            ended_with = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"signal {number} did not end the server:\n{self.log()}") from None
        assert ended_with == status, f"exit status {ended_with}, not {status}:\n{self.log()}"
        self.check_log()

    def kill(self) -> None:
        if self.alive():
            self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        with self._changed:
            self._ended = True
            if self.process.stdout is not None:
                self.process.stdout.close()


def end_all(node: Any, servers: Sequence[Server]) -> None:
    """What a fixture does in the end: each one ends in order, with a log without surprises, which
    stands beside a failure."""
    problems = []
    for server in servers:
        try:
            if server.process.returncode is None:
                server.stop()
            else:
                server.check_log()
        except AssertionError as error:
            problems.append(str(error))
        finally:
            server.kill()
            report_log(node, server)
    assert not problems, "\n".join(problems)


def report_log(node: Any, server: Server) -> None:
    """Puts the server's log beside a failure."""
    node.add_report_section("teardown", f"log of {server.app} ({server.pid})", server.log())


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The test's own environment without what would configure a server, or have Python write the end of a
    printed line apart from it: the server's own lines, of another thread or process, would come between."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ASGISERVER_")
        and name not in ("WEB_CONCURRENCY", "NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED")
    }
    return {**kept, **extra}
