"""The files of deploy/, as they are: what they start is started, what they promise is tried."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.client import SLOWNESS, MalformedResponse, RawClient, Response, connect
from support.load import Load
from support.netns import Network, NotPermitted
from support.server import Server, child_environment

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SETTINGS = DEPLOY / "asgiserver.toml"

FRONT = "192.0.2.1"
SERVERS = {"one": "192.0.2.11", "two": "192.0.2.12", "three": "192.0.2.13"}
CLIENT = "192.0.2.100"

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program}")


# --- three servers behind a proxy ------------------------------------------------------------------


@dataclass(frozen=True)
class Proxy:
    name: str
    file: str
    check: tuple[str, ...]
    run: tuple[str, ...]
    looks: bool  # at the health path, and says what it finds


# nginx writes its pid and its log where only root may, and where another nginx may be at work.
APART = 'mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log/nginx && exec "$@"'
PROXIES = [
    Proxy(
        "haproxy",
        "haproxy.cfg",
        ("haproxy", "-c", "-f"),
        ("haproxy", "-db", "-f"),
        True,
    ),
    Proxy(
        "nginx",
        "nginx.conf",
        ("unshare", "--mount", "sh", "-ec", APART, "-", "nginx", "-t", "-c"),
        (
            "unshare",
            "--mount",
            "sh",
            "-ec",
            APART,
            "-",
            "nginx",
            "-e",
            "stderr",
            "-g",
            "daemon off;",
            "-c",
        ),
        False,
    ),
]


@pytest.fixture(params=PROXIES, ids=lambda proxy: proxy.name)
def proxy(request: pytest.FixtureRequest) -> Proxy:
    chosen: Proxy = request.param
    if shutil.which(chosen.name) is None:
        pytest.skip(f"there is no {chosen.name}")
    return chosen


@pytest.fixture
def network() -> Iterator[Network]:
    if shutil.which("ip") is None:
        pytest.skip("there is no ip (iproute2)")
    try:
        made = Network(FRONT, {**SERVERS, "client": CLIENT})
    except NotPermitted as problem:
        pytest.skip(f"no network namespaces here: {problem}")
    yield made
    made.close()


class Front:
    """A proxy that runs."""

    def __init__(self, proxy: Proxy, network: Network, log: Path) -> None:
        self._log = log
        with network.hub, log.open("wb") as output:
            self._process = subprocess.Popen(
                [*proxy.run, str(DEPLOY / proxy.file)], stdout=output, stderr=output
            )

    def log(self) -> str:
        return self._log.read_text(errors="backslashreplace")

    def wait(self, what: str, condition: Callable[[], bool], timeout: float = 15) -> None:
        """What it does can only be seen from outside, by looking often."""
        deadline = time.monotonic() + timeout * SLOWNESS
        while not condition():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"no {what}:\n{self.log()}"
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10 * SLOWNESS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


def answers(network: Network) -> bool:
    with network.machines["client"]:
        try:
            with connect((FRONT, 80)) as client:
                client.get("/")
                return client.recv_response().status == 200
        except (OSError, MalformedResponse):
            return False


def kill_all(server: Server) -> None:
    """The supervisor and its workers, at one blow as far as that goes."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    server.signal(signal.SIGKILL)
    for child in children:
        with contextlib.suppress(ProcessLookupError):  # It has seen that its parent is gone.
            os.kill(int(child), signal.SIGKILL)
    server.wait()


class Questions(Load):
    """Each request is another one, and so must be its answer. ``methods`` are used in turn."""

    def __init__(self) -> None:
        self.methods = ("GET",)
        self.pids: dict[str, set[int]] = {name: set() for name in SERVERS}
        self.longest = 0.0  # seconds
        self._numbers = itertools.count()
        super().__init__((FRONT, 80), connections=12)

    def ask(self, client: RawClient) -> Response:
        number, began = next(self._numbers), time.monotonic()
        path, method = f"/question-{number}", self.methods[number % len(self.methods)]
        body = path if method == "POST" else ""
        # What a client claims must not get through.
        claims = "X-Forwarded-For: 203.0.113.1", "Forwarded: for=203.0.113.1;proto=https"
        if method == "POST":
            client.post(path, body.encode(), *claims)
        else:
            client.get(path, *claims)
        response = client.recv_response()
        assert response.status == 200, f"{method}: {response.status} {response.body!r}"
        seen = json.loads(response.body)
        told = [seen[key] for key in ("method", "path", "body", "client", "scheme")]
        assert told == [method, path, body, CLIENT, "http"], seen
        self.pids[seen["name"]].add(seen["pid"])
        self.longest = max(self.longest, time.monotonic() - began)
        return response

    def name(self, response: Response) -> str:
        name: str = json.loads(response.body)["name"]
        return name

    def wait_for_each(self, names: set[str], more: int) -> None:
        """Until each of them has answered so many more."""
        goals = {name: self.answers[name] + more for name in names}
        self.wait_until(lambda: all(self.answers[name] >= goals[name] for name in names))


@is_root
@pytest.mark.slow
def test_no_request_is_lost(proxy: Proxy, network: Network, serve: Any, tmp_path: Path) -> None:
    """Servers are killed, drained and rolled behind the proxy, while clients ask without a pause."""

    def start(name: str) -> Server:
        with network.machines[name]:
            server: Server = serve(
                "named_asgi:app", "--config", str(SETTINGS), "--port", "8000", "--no-access-log",
                "--workers", "2",  # whatever the machine has
                bind=SERVERS[name], port_option=True, env={"SERVER_NAME": name},
            )  # fmt: skip
        for number in (1, 2):
            server.wait_log(f"Worker {number} is ready")
        return server

    figures: list[str] = []

    def report(what: str) -> None:
        requests = load.requests - sum(int(line.split()[-1]) for line in figures)
        figures.append(f"{what}: {requests}")
        assert not load.failures, f"{what}: {len(load.failures)} of {requests}: {load.failures[:5]}"

    servers = {name: start(name) for name in SERVERS}
    front = Front(proxy, network, tmp_path / "front.log")
    try:
        front.wait("answer", lambda: answers(network))
        with network.machines["client"]:
            load = Questions()
        with load:
            load.wait_for_each(set(SERVERS), 20)
            report("all three")

            kill_all(servers["one"])
            load.wait_for_each({"two", "three"}, 200)
            report("one is killed")
            servers["one"] = start("one")
            load.wait_for_each(set(SERVERS), 20)
            report("one is back")

            # From here on also what no proxy may send twice.
            load.methods = ("GET", "POST")
            until = time.monotonic() + tomllib.loads(SETTINGS.read_text())["shutdown_delay"]
            servers["two"].signal(signal.SIGTERM)
            if proxy.looks:
                front.wait("word of it", lambda: bool(re.search(r"app/two is DOWN", front.log())))
                assert servers["two"].alive() or time.monotonic() > until
            assert servers["two"].wait() == 0
            load.wait_for_each({"one", "three"}, 100)
            report("two is drained")

            before = load.pids["three"].copy()
            servers["three"].mark()
            servers["three"].signal(signal.SIGHUP)
            servers["three"].wait_log("Reloaded")
            load.wait_until(lambda: bool(load.pids["three"] - before))  # few connections are new
            load.wait_for_each({"one", "three"}, 100)
            report("three is rolled")
    finally:
        front.stop()
        print(front.log())
        for server in servers.values():  # all at once: a second signal ends the delay
            if server.alive():
                server.signal(signal.SIGTERM)
    assert not load.failures, load.failures[:5]
    print(f"{proxy.name}: {', '.join(figures)}; longest {load.longest:.3f} s")


# --- the files on their own --------------------------------------------------------------------------


@is_root
def test_proxy_accepts_its_file(proxy: Proxy) -> None:
    done = subprocess.run(
        [*proxy.check, str(DEPLOY / proxy.file)],
        check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_times_agree() -> None:
    """Proxies drop idle connections before the server does, and notice before it stops serving."""
    settings = tomllib.loads(SETTINGS.read_text())
    nginx = (DEPLOY / "nginx.conf").read_text()
    haproxy = (DEPLOY / "haproxy.cfg").read_text()

    def found(pattern: str, text: str) -> float:
        match = re.search(pattern, text)
        assert match is not None, pattern
        return float(match[1])

    assert found(r"keepalive_timeout (\d+)s", nginx) < settings["timeout_keep_alive"]
    assert found(r"timeout http-keep-alive (\d+)s", haproxy) < settings["timeout_keep_alive"]
    notices = found(r"inter (\d+)s", haproxy) * found(r"fall (\d+)", haproxy)
    assert notices < settings["shutdown_delay"]
    assert found(r"client_max_body_size (\d+)m", nginx) * 2**20 == settings["limit_request_body"]
    unit = read_unit("asgiserver.service")
    needed = settings["shutdown_delay"] + settings["timeout_graceful_shutdown"]
    assert float(unit["TimeoutStopSec"][0]) > needed


# systemd


def read_unit(name: str) -> dict[str, list[str]]:
    """All settings of a unit, whatever their section: no name is in two of them."""
    unit: dict[str, list[str]] = {}
    for line in (DEPLOY / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            unit.setdefault(key, []).append(value)
    return unit


@needs("systemd-analyze")
def test_units_are_valid(tmp_path: Path) -> None:
    """With a program that is there."""
    for name in ("asgiserver.service", "asgiserver.socket"):
        text = (DEPLOY / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/app/venv/bin/asgiserver", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "asgiserver" in line]
    assert done.returncode == 0 and not ours, done.stderr


# Makes of a process what systemd makes of it: sockets from descriptor 3 on, meant for its id.
ACTIVATE = """
import os, sys
count = int(sys.argv[1])
for number, descriptor in enumerate(map(int, sys.argv[2:2 + count]), 100):
    os.dup2(descriptor, number)
for number in range(count):
    os.dup2(100 + number, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


class Manager:
    """What systemd is to a service: sockets, words from it, commands."""

    def __init__(self, folder: Path) -> None:
        self.service, self.socket = read_unit("asgiserver.service"), read_unit("asgiserver.socket")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))
        self._notify.settimeout(15 * SLOWNESS)
        self.listeners = [self._listen(stream, folder) for stream in self.socket["ListenStream"]]
        words = shlex.split(
            self.service["ExecStart"][0].replace("/opt/app/asgiserver.toml", str(SETTINGS))
        )
        assert words[0].endswith("/bin/asgiserver")
        descriptors = [sock.fileno() for sock in self.listeners]
        watchdog = int(self.service["WatchdogSec"][0]) * 1_000_000
        self.process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(len(descriptors)), *map(str, descriptors),
             sys.executable, "-m", "asgiserver", *words[1:]],
            cwd=folder,
            pass_fds=descriptors,
            env=child_environment(
                {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(watchdog)}
            ),
        )  # fmt: skip

    def _listen(self, stream: str, folder: Path) -> socket.socket:
        if stream.startswith("/"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(str(folder / Path(stream).name))
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.bind(("127.0.0.1", 0))
        sock.listen(int(self.socket["Backlog"][0]))
        return sock

    def hear(self, word: str) -> None:
        """Waits until the service says so."""
        while word not in self._notify.recv(4096).decode().splitlines():
            pass

    def statuses(self, path: str) -> list[int]:
        """What each of the sockets answers."""
        found = []
        for sock in self.listeners:
            with connect(sock.getsockname()) as client:
                client.get(path)
                found.append(client.recv_response().status)
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for sock in [self._notify, *self.listeners]:
            sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    shutil.copy(ROOT / "examples" / "welcome.py", tmp_path / "main.py")
    made = Manager(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_systemd_service(manager: Manager) -> None:
    settings = tomllib.loads(SETTINGS.read_text())
    assert manager.service["Type"] == ["notify"]
    manager.hear("WATCHDOG=1")
    manager.hear("READY=1")
    assert manager.statuses("/") == [200, 200]

    command = manager.service["ExecReload"][0].replace("$MAINPID", str(manager.process.pid))
    subprocess.run(shlex.split(command), check=True, timeout=10)
    manager.hear("RELOADING=1")
    manager.hear("READY=1")
    assert manager.statuses("/") == [200, 200]

    # KillMode=mixed: the supervisor alone.
    manager.process.send_signal(signal.Signals[manager.service["KillSignal"][0]])
    manager.hear("STOPPING=1")
    for sock in manager.listeners:  # still served, and said to be about to end
        deadline = time.monotonic() + settings["shutdown_delay"] / 2
        status = 0
        while status != 503 and time.monotonic() < deadline:
            # A connection each: one to a worker that the reload has retired ends with its answer.
            with connect(sock.getsockname()) as client:
                client.get(settings["health_path"])
                status = client.recv_response().status
        assert status == 503
    assert manager.process.wait(float(manager.service["TimeoutStopSec"][0])) == 0


# Kubernetes


@pytest.mark.slow
def test_kubernetes(serve: Any, tmp_path: Path) -> None:
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert (
        deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    )
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"--port={ports[service['spec']['ports'][0]['targetPort']]}" in container["args"]
    assert container["command"] == ["asgiserver"]

    shutil.copy(ROOT / "examples" / "welcome.py", tmp_path / "main.py")
    *args, app = container["args"]
    here = ("--host", "127.0.0.1", "--port", "0", "--app-dir", str(tmp_path))
    server: Server = serve(app, *args, *here, port_option=True)
    with server.raw() as client:
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container[kind]["httpGet"]
            assert probe["port"] in ports
            client.get(probe["path"])
            assert client.recv_response().status == 200

    grace = pod["spec"]["terminationGracePeriodSeconds"]
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    pause = float(command[-1])
    option = "--timeout-graceful-shutdown="
    (running,) = [float(arg.removeprefix(option)) for arg in args if arg.startswith(option)]
    assert command[0] == "sleep" and pause + running < grace
    began = time.monotonic()
    subprocess.run(command, check=True, timeout=grace)
    with server.raw() as client:  # goes on serving until the signal
        client.get("/")
        assert client.recv_response().status == 200
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert time.monotonic() - began < grace


# Docker


def read_dockerfile() -> list[tuple[str, str]]:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_docker(serve: Any, tmp_path: Path) -> None:
    instructions = read_dockerfile()
    last = dict(instructions)  # of each kind
    assert last["USER"] not in ("root", "0")
    stop = signal.Signals[last["STOPSIGNAL"]]
    # Lists, not shell commands: a shell as process 1 would pass no signal on.
    program, *args = json.loads(last["ENTRYPOINT"])
    (app,) = json.loads(last["CMD"])
    assert program == "asgiserver"

    (copied,) = [rest for word, rest in instructions if word == "COPY" and "main.py" in rest]
    shutil.copy(ROOT / copied.split()[0], tmp_path / "main.py")
    here = ("--host", "127.0.0.1", "--port", "0", "--app-dir", str(tmp_path))
    server: Server = serve(app, *args, *here, port_option=True)
    assert f"--port={last['EXPOSE']}" in args
    check = json.loads(last["HEALTHCHECK"].partition(" CMD ")[2])
    assert check[0] == "python"
    command = [sys.executable, *(w.replace(last["EXPOSE"], str(server.port)) for w in check[1:])]
    assert subprocess.run(command, check=False, timeout=20).returncode == 0
    server.stop(number=stop)
    assert (
        subprocess.run(command, check=False, timeout=20, stderr=subprocess.DEVNULL).returncode == 1
    )


def test_docker_context() -> None:
    """What the build needs gets into its context; nothing that git does not know does."""
    rules = [
        line
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    let_in = [rule[1:] for rule in rules if rule.startswith("!")]
    assert all((ROOT / path).exists() for path in let_in), let_in
    top = {path.split("/")[0] for path in let_in}
    for word in re.findall(r"subdir\('([^']+)'\)", (ROOT / "meson.build").read_text()):
        optional = word.startswith(("tests", "bench", "fuzz"))  # not in a plain build
        assert word in top or optional, word
