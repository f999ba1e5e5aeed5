"""Front ends of others before a server, as ``tests/fronts`` configures them. Each is a program that may be missing.

In a configuration ``@PORT@`` is where clients connect, ``@HTTP2@`` where they speak HTTP/2 without TLS, ``@SERVER@``
the server's port, ``@TOKEN@`` what every forwarded request bears in X-Front, ``@DIR@`` a folder. Lines that begin
with ``# lenient:`` count when the front end shall pass on what it otherwise refuses, those with ``# strict:`` when not.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .client import SLOWNESS
from .processes import foreign_environment
from .smuggling import TOKEN, probe

FOLDER = Path(__file__).resolve().parent.parent / "fronts"
MODEL = (sys.executable, "-m", "support.model_front", "{port}", "{server}", "{token}")


@dataclass(frozen=True)
class Front:
    name: str
    program: str
    config: str | None  # a file of tests/fronts
    run: Sequence[str]  # {config}, {port}, {http2}, {server}, {token} and {dir} are filled in
    version: Sequence[str] = ()
    http2: str | None = None  # "same": at the same port; "apart": at one of its own
    lenient: bool = False
    package: str | None = None  # Debian's

    @property
    def is_here(self) -> bool:
        return find(self.program) is not None

    def find_version(self) -> str:
        if not self.version:
            return ""
        done = subprocess.run(
            [str(find(self.program)), *self.version],
            check=False, capture_output=True, text=True, timeout=30, env=foreign_environment(),
        )  # fmt: skip
        found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
        return found[0] if found else "?"


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def model(name: str) -> Front:
    return Front(f"model-{name}", sys.executable, None, (*MODEL, name))


FRONTS = [
    model("length"),
    model("coding"),
    model("early"),
    model("tunnel"),
    Front("nginx", "nginx", "nginx.conf", ("nginx", "-e", "stderr", "-c", "{config}"),
          ("-v",), "apart", package="nginx"),
    Front("nginx-lenient", "nginx", "nginx.conf", ("nginx", "-e", "stderr", "-c", "{config}"),
          ("-v",), "apart", True, package="nginx"),
    Front("haproxy", "haproxy", "haproxy.cfg", ("haproxy", "-db", "-f", "{config}"),
          ("-v",), "apart", package="haproxy"),
    Front("haproxy-lenient", "haproxy", "haproxy.cfg", ("haproxy", "-db", "-f", "{config}"),
          ("-v",), "apart", True, package="haproxy"),
    Front("apache", "apache2", "apache.conf", ("apache2", "-X", "-f", "{config}"),
          ("-v",), "same", package="apache2"),
    Front("apache-lenient", "apache2", "apache.conf", ("apache2", "-X", "-f", "{config}"),
          ("-v",), "same", True, package="apache2"),
    Front("varnish", "varnishd", "varnish.vcl",
          ("varnishd", "-F", "-j", "none", "-n", "{dir}", "-a", "127.0.0.1:{port}", "-f", "{config}",
           "-s", "malloc,8m", "-p", "feature=+http2"),
          ("-V",), "same", package="varnish"),
    Front("squid", "squid", "squid.conf", ("squid", "-N", "-f", "{config}"),
          ("-v",), None, package="squid"),
    Front("squid-lenient", "squid", "squid.conf", ("squid", "-N", "-f", "{config}"),
          ("-v",), None, True, package="squid"),
    Front("lighttpd", "lighttpd", "lighttpd.conf", ("lighttpd", "-D", "-f", "{config}"),
          ("-v",), "same", package="lighttpd"),
    Front("lighttpd-lenient", "lighttpd", "lighttpd.conf", ("lighttpd", "-D", "-f", "{config}"),
          ("-v",), "same", True, package="lighttpd"),
    Front("caddy", "caddy", "Caddyfile",
          ("caddy", "run", "--adapter", "caddyfile", "--config", "{config}"),
          ("version",), "same", package="caddy"),
    Front("nghttpx", "nghttpx", None,
          ("nghttpx", "--conf=/dev/null", "--frontend=127.0.0.1,{port};no-tls",
           "--backend=127.0.0.1,{server}", "--workers=1", "--add-request-header=x-front: {token}",
           "--errorlog-file=/dev/stderr"),
          ("--version",), "same", package="nghttp2-proxy"),
    Front("tinyproxy", "tinyproxy", "tinyproxy.conf", ("tinyproxy", "-d", "-c", "{config}"),
          ("-v",), None, package="tinyproxy"),
    Front("trafficserver", "traffic_server", "trafficserver", ("sh", "{config}"),
          ("--version",), None, package="trafficserver"),
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Running:
    """A front end that runs before the server at a port, ready when made."""

    def __init__(self, front: Front, server: int) -> None:
        self.front = front
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix=f"{front.name}-")
        self._dir = Path(self._folder.name)
        self._dir.chmod(0o777)  # some leave the user that starts them
        self._log = (self._dir / "output").open("w+b")
        self.restart()

    def restart(self) -> None:
        """Anew, on other ports."""
        self._end_process()
        for attempt in range(3):  # the ports that were free may have been taken meanwhile
            try:
                self._start()
                return
            except RuntimeError as error:
                if attempt == 2:
                    self.close()
                    raise RuntimeError(
                        f"{self.front.name} does not start: {error}\n{self.log()}"
                    ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def log(self) -> str:
        return (
            (self._dir / "output").read_text(errors="backslashreplace")[-3000:]
            if self._dir.exists()
            else ""
        )

    def _start(self) -> None:
        front = self.front
        self.port = free_port()
        self.http2 = {"same": self.port, "apart": free_port()}.get(front.http2 or "")
        words = {
            "port": str(self.port),
            "http2": str(self.http2),
            "server": str(self._server),
            "token": TOKEN,
            "dir": str(self._dir),
            "config": "",
        }
        if front.config is not None:
            words["config"] = str(self._dir / front.config)
            text = (FOLDER / front.config).read_text()
            text = text.replace("# lenient: " if front.lenient else "# strict: ", "")
            text = re.sub("@([A-Z0-9]+)@", lambda found: words[found[1].lower()], text)
            Path(words["config"]).write_text(text)
        command = [word.format_map(words) for word in front.run]
        command[0] = find(command[0]) or command[0]
        environment = foreign_environment() if front.config or front.package else dict(os.environ)
        environment["PYTHONPATH"] = str(FOLDER.parent)
        environment["HOME"] = str(self._dir)
        process = self._process = subprocess.Popen(
            command, cwd=self._dir, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env=environment, start_new_session=True,
        )  # fmt: skip
        self._await_ready(process)

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        """It passes a request on. Nothing tells of that but trying."""
        deadline = time.monotonic() + 20 * SLOWNESS
        problem: str | None = "nothing tried"
        while problem is not None:
            if process.poll() is not None:
                raise RuntimeError(f"it ended with {process.returncode}")
            if time.monotonic() > deadline:
                self._end_process()
                raise RuntimeError(problem)
            try:
                problem = probe(self.port, "/ready")
            except OSError as error:
                problem = str(error)
                time.sleep(0.02)

    def _end_process(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5 * SLOWNESS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session of its own
                self._process.wait(10)

    def close(self) -> None:
        self._end_process()
        self._log.close()
        self._folder.cleanup()
