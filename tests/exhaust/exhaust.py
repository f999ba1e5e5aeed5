"""What attackers can exhaust, and what a well-behaved client beside them notices (``make exhaust``).

    PYTHONPATH=tests python -m exhaust.exhaust [--seconds 12] [--only TEXT]

Each attack of attacks.py is a crowd of connections in a process of its own (crowd.py). The server has a processor
for itself, the crowd and the well-behaved client share the others. That client asks at a steady rate, on a
connection that it renews every now and then; before the attack in several short windows, whose median is
the undisturbed figure. Beside the attack its p99 must be under ten times that.

Judged is not the clock but what the server and that client have worked between a request and its answer, for whomever:
that is what the clock would show on a machine with nothing else to do. By the clock itself, another process that had
the processor would be the server's fault, or would excuse it, when it came in the undisturbed windows. Both are shown.

As root, two more things are kept from the figures (`apart`, `at_once`). On the loopback the kernel sends what an
attacker has to send when the server reads, and on its processor: a network of the run's own leaves that to the others.
And an answer that is there is read at once, so that what the server does behind it does not count.

What is measured of the server: the peak of its resident memory, its descriptors, how long a connection of an attacker
lives, and the bytes that it logs. What is promised follows from the options of the run. The figures are
printed, and written to build/results/exhaust.json; what breaks a promise ends the run with status 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exhaust.attacks import ATTACKS, KIB, MIB, TICK, Attack, Settings
from support.certificates import Authority
from support.client import SLOWNESS, RawClient
from support.server import Server

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "results"

TIMES = 10  # the undisturbed p99
PAUSE = 0.01  # seconds between two requests of the well-behaved client
RENEWED = 30  # requests on one connection
COMMON = 12 * MIB  # what any traffic costs: caches, the allocator's arenas, Python's own
LINE = 256  # bytes of a line in the log, at most
AT_ONCE, A_SECOND = 100, 10  # lines about refusals
SPARE_FILES = 16  # what the well-behaved client and the loop have


@dataclass
class Client:
    """The well-behaved one."""

    server: Server
    fresh: bool = True
    patience: float = math.inf  # of the server with an idle connection, seconds
    raw: RawClient | None = None
    used: float = 0.0  # when the connection was, last: its answer may have come at once
    asked: int = 0
    failures: list[str] = field(default_factory=list)

    def connect(self) -> RawClient:
        if self.raw is not None and self.fresh and self.asked % RENEWED == 0:
            self.close()
        if self.raw is None:
            self.used = time.monotonic()
            self.raw = self.server.raw(timeout=20)
        return self.raw

    def close(self) -> None:
        if self.raw is not None:
            self.raw.close()
            self.raw = None

    def ask(self) -> tuple[float, float]:
        """Seconds by the clock, with those of connecting where that was due; and those that the two of them worked."""
        began, worked, waited = time.monotonic(), self.work(), 0.0
        try:
            raw = self.connect()
            used, self.used = self.used, time.monotonic()
            raw.get("/")
            waited = time.monotonic() - used
            response = raw.recv_response()
            if (response.status, response.body) != (200, b"hello"):
                self.failures.append(f"{response.status} {response.body!r}")
        except (OSError, AssertionError) as error:
            self.close()
            # One whose own process stood still for too long has lost the connection by itself.
            if waited < self.patience / 2:
                self.failures.append(repr(error))
        self.asked += 1
        return time.monotonic() - began, self.work() - worked

    def work(self) -> float:
        return work(self.server.pid) + time.thread_time()

    def keep_asking(
        self, going: Callable[[], bool], look: Callable[[], None] | None = None
    ) -> list[tuple[float, float]]:
        times: list[tuple[float, float]] = []
        while going():
            began = time.monotonic()
            times.append(self.ask())
            if look is not None:
                look()
            time.sleep(max(0.0, PAUSE - (time.monotonic() - began)))
        return times

    def calm(self, windows: int, seconds: float) -> tuple[float, float]:
        """The undisturbed p99 of both: the medians of several."""
        found = []
        for _ in range(windows):
            until = time.monotonic() + seconds
            found.append(p99(self.keep_asking(lambda: time.monotonic() < until)))  # noqa: B023
        return statistics.median(one for one, _ in found), statistics.median(
            one for _, one in found
        )


def quantile(values: Iterable[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


def p99(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return quantile((one for one, _ in pairs), 0.99), quantile((one for _, one in pairs), 0.99)


# --- the server ---


def pin(pid: int, cpus: set[int]) -> None:
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cpus)


APART = (
    "mount -t sysfs none /sys && ip link set lo up"
    ' && echo $0 > /sys/class/net/lo/queues/rx-0/rps_cpus && exec "$@"'
)


def apart(cpus: list[int]) -> None:
    """Begins anew in a network of its own, whose packets are the business of `cpus`; needs root."""
    inside = "EXHAUST_APART"
    if os.geteuid() != 0 or not cpus or inside in os.environ:
        return
    os.environ[inside] = "1"
    mask = f"{sum(1 << cpu for cpu in cpus):x}"
    words = ["unshare", "--net", "--mount", "sh", "-c", APART, mask, sys.executable, "-m"]
    os.execvp(words[0], [*words, "exhaust.exhaust", *sys.argv[1:]])


def at_once() -> None:
    """This process goes before others, where it may; not those that it starts."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        pass


def work(pid: int) -> float:
    """Seconds of processor time that it has had."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python has not


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): VmHWM begins anew


def peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    raise RuntimeError("no VmHWM")


def settings_for(attack: Attack, seconds: float) -> Settings:
    """Time-outs that end within the attack."""
    time_out = seconds / 4
    names = ("tls_handshake", "request_head", "request_body", "keep_alive", "write")
    given: dict[str, Any] = {f"timeout_{name}": time_out for name in names}
    return Settings(
        {**given, "timeout_linger": 0.5, "timeout_graceful_shutdown": 0.0, **attack.given}
    )


def start(
    attack: Attack, interface: str, settings: Settings, authority: Authority | None
) -> Server:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = {resource.RLIMIT_NOFILE: attack.files or hard}
    if attack.file_size:
        limits[resource.RLIMIT_FSIZE] = attack.file_size
    kind, _, threads = interface.partition("-")
    server = Server(
        f"exhaust_{kind}:app", "--no-access-log", *settings.words,
        interface=kind, threads=4 if threads else None, rlimits=limits,
        tls=authority if attack.tls else None,
    )  # fmt: skip
    server.await_ready()
    return server


# --- an attack ---


@dataclass(frozen=True)
class Form:
    """How much of an attack there is: the short form for every test run, the long one for the figures."""

    seconds: float
    long: bool
    windows: int
    window: float


SHORT = Form(1.6, False, 2, 0.2)


def judge(row: dict[str, Any]) -> list[str]:
    """The promises that were broken; of the time to wait apart from the others."""
    broken = [
        f"{key} {row[key]} > {row[key + '_bound']}"
        for key in ("rss", "files", "life", "log", "disk")
        if row[key + "_bound"] is not None and row[key] > row[key + "_bound"]
    ]
    if row["left"] > SPARE_FILES and not row["stays"]:
        broken.append(f"{row['left']} descriptors stay open")
    if row["wrong"]:
        broken.append(f"other answers: {row['wrong']}")
    return broken + [f"failed: {text}" for text in row["failures"][:3]]


def is_late(row: dict[str, Any]) -> bool:
    return row["work"] > TIMES * row["calm_work"]


def run(
    attack: Attack, interface: str, form: Form, authority: Authority | None, cpus: list[int]
) -> dict[str, Any]:
    settings = settings_for(attack, form.seconds)
    server = start(attack, interface, settings, authority)
    try:
        row = measure(server, attack, settings, form, cpus)
        server.stop()
    finally:
        server.kill()
    return {"name": attack.name, "interface": interface, "promise": attack.promise, **row}


def measure(
    server: Server, attack: Attack, settings: Settings, form: Form, cpus: list[int]
) -> dict[str, Any]:
    if len(cpus) > 1:
        pin(server.pid, {cpus[0]})
    client = Client(server, attack.fresh, settings.timeout_keep_alive)
    calm, calm_work = client.calm(form.windows, form.window)
    files = server.open_files()
    server.mark()
    reset_peak(server.pid)
    before, seen, spooled = server.rss(), [files], [0]

    def look() -> None:
        if client.asked % 10 == 0:
            seen.append(server.open_files())
            spooled.append(server.spooled())

    crowd = send_crowd(server, attack, form, cpus[1:])
    times = client.keep_asking(lambda: crowd.poll() is None, look)
    told = json.loads(crowd.communicate()[0])
    rss, log = peak(server.pid) - before, len(server.log().encode())
    client.close()
    left = 0 if attack.stays else leftover(server, files, settings)
    after = Client(server)
    after.ask()
    after.close()
    size = attack.crowd[form.long]
    disk = size if attack.file_size or "limit_body_spool" in attack.given else 0
    # Those whom the server has refused are read from for a while.
    lingering = 2 * told["opened"] / form.seconds * settings.timeout_linger
    lines = AT_ONCE + (A_SECOND + 2) * (form.seconds + 3)
    # Connections are accepted, and time-outs seen, as late as others are served, and as the crowd looks.
    waited = max(one for one, _ in times)
    late = 2 * TICK + 0.5 * SLOWNESS + 3 * waited + 2 * told["late"]
    return {
        "seconds": form.seconds,
        "connections": size,
        "opened": told["opened"],
        "rss": max(0, rss),
        "rss_bound": int(COMMON + size * attack.holds(settings)),
        "files": max(seen) - files,
        "files_bound": attack.files or int(2 * size + disk + lingering + SPARE_FILES),
        "left": left,
        "stays": attack.stays,
        "life": round(told["longest"], 2),
        "life_bound": None if attack.lives is None else round(attack.lives(settings) + late, 2),
        "disk": max(spooled),
        "disk_bound": settings.limit_body_spool,
        "log": log,
        "log_bound": int(lines * LINE),
        "statuses": told["statuses"],
        "wrong": wrong_statuses(
            attack.status, told["statuses"],
            stood_still=max(waited, told["late"]) > settings.timeout_request_head / 2,
        ),
        "requests": len(times),
        "failures": client.failures + after.failures,
        "calm": round(calm, 5),
        "p50": round(quantile((one for one, _ in times), 0.5), 5),
        "p99": round(p99(times)[0], 5),
        "calm_work": round(calm_work, 5),
        "work": round(p99(times)[1], 5),
    }  # fmt: skip


def wrong_statuses(
    expected: int | None, statuses: dict[str, int], stood_still: bool
) -> dict[str, int]:
    """An attack that is not answered as it should be is none. Where a process stood still, members of
    the crowd may have run out of time before they came to it."""
    if expected is None:
        return {}
    if str(expected) not in statuses:
        return {**statuses, f"no {expected}": 0}
    right = {str(expected)} | ({"408"} if stood_still else set())
    return {key: n for key, n in statuses.items() if key not in right}


def send_crowd(
    server: Server, attack: Attack, form: Form, cpus: list[int]
) -> subprocess.Popen[bytes]:
    words = [attack.name, server.port, attack.crowd[form.long], form.seconds, *cpus]
    return subprocess.Popen(
        [sys.executable, "-m", "exhaust.crowd", *map(str, words)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )  # fmt: skip


def leftover(server: Server, before: int, settings: Settings) -> int:
    """Descriptors that are still there when every connection should have ended."""
    until = time.monotonic() + (settings.timeout_request_head + 5) * SLOWNESS
    while server.open_files() > before and time.monotonic() < until:
        time.sleep(0.02)
    return server.open_files() - before


def told(row: dict[str, Any], broken: list[str]) -> str:
    return (
        f"{row['name']:40} {row['interface']:12} {row['opened']:7} {row['rss'] / MIB:7.1f} / {row['rss_bound'] / MIB:6.0f} MiB"
        f" {row['files']:6} files {row['life']:6.1f} / {row['life_bound'] or 0:4.1f} s {row['log'] / KIB:6.1f} KiB"
        f" p99 {row['calm'] * 1000:6.2f} -> {row['p99'] * 1000:7.2f} ms"
        f" work {row['calm_work'] * 1000:6.2f} -> {row['work'] * 1000:6.2f} ms  {'; '.join(broken) or 'held'}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=12, help="of each attack")
    parser.add_argument("--only", default="", help="attacks whose names have this text")
    args = parser.parse_args()
    form = Form(args.seconds, True, 5, 0.6)
    cpus = sorted(os.sched_getaffinity(0))
    apart(cpus[1:])
    at_once()
    if len(cpus) > 1:
        os.sched_setaffinity(0, cpus[1:])
    rows: list[dict[str, Any]] = []
    failed = False
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        for attack in ATTACKS:
            for interface in attack.interfaces if args.only in attack.name else ():
                row = run(attack, interface, form, authority, cpus)
                broken = judge(row) + ["the others wait too long"] * is_late(row)
                failed = failed or bool(broken)
                rows.append({**row, "broken": broken})
                print(told(row, broken), flush=True)
                (RESULTS / "exhaust.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
