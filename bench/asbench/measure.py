"""Interleaved rounds: each server is asked in turn, checked before and after, and charged its CPU."""

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asbench import load, servers
from asbench.harness import APPS, HOST, BenchError, Server, read_answer
from asbench.scenarios import Scenario
from asbench.servers import Entry

TIMEOUT = 20.0  # seconds, for one answer
DISTURBED = 0.15  # of one core: more than this taken by others, and a measurement is repeated
PAUSE = 1.0  # seconds in which idle connections are watched
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# What a series has of each round, and how many digits of it matter.
DIGITS = {
    "cpu_us": 3,
    "rate": 0,
    "p50_us": 1,
    "p99_us": 1,
    "p999_us": 1,
    "others": 3,
    "opened": 3,
    "idle_bytes": 0,
    "idle_cpu_us": 0,
    "start_ms": 1,
    "memory_mib": 1,
}


@dataclass
class Series:
    """The rounds of one server in one scenario."""

    scenario: str
    interface: str
    server: str
    rounds: dict[str, list[float]] = field(default_factory=dict)
    repeated: int = 0  # measurements that were thrown away since others used the machine
    disturbed: int = 0  # those that were kept nevertheless
    failed: str | None = None

    def add(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.rounds.setdefault(name, []).append(round(value, DIGITS[name]))

    def result(self) -> dict[str, Any]:
        """As it goes into the JSON file."""
        figures = {name: spread(values, DIGITS[name]) for name, values in self.rounds.items()}
        failed = self.failed or (None if figures else "not measured")
        return {**asdict(self), **figures, "failed": failed}


def spread(values: list[float], digits: int) -> dict[str, float]:
    """Median, least and greatest, rounded."""
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in figures.items()}


@dataclass(frozen=True)
class Settings:
    """How long, how often, and where."""

    rounds: int
    seconds: float
    repeats: int  # at most, of a measurement that was disturbed
    server_core: int
    client_core: int


class Live:
    """A running server, which can be started again."""

    def __init__(self, entry: Entry, app: str, core: int) -> None:
        self.entry, self.app, self.core = entry, app, core
        self.stack = contextlib.ExitStack()
        self.server = self.start()

    def start(self) -> Server:
        return self.stack.enter_context(servers.running(self.entry, self.app, self.core))

    def restart(self) -> bool:
        """Whether it runs again."""
        self.stack.close()
        try:
            self.server = self.start()
        except BenchError:
            return False
        return True


# --- one measurement -----------------------------------------------------------------------------


def check(server: Server, scenario: Scenario) -> int:
    """Ask as the scenario does; the length of the right answer."""
    body = b""
    with socket.create_connection((HOST, server.port), TIMEOUT) as client:
        client.sendall(scenario.load.request * scenario.load.depth)
        with client.makefile("rb") as stream:
            for _ in range(scenario.load.depth):
                body = read_answer(stream)
                if not scenario.right(body):
                    raise BenchError(f"{len(body)} bytes, not the right ones: {body[:40]!r}")
    return len(body)


def busy_ns(stat: str) -> int:
    """CPU time that the whole machine has spent, and was robbed of, by /proc/stat."""
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.split()[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK_NS


class Others:
    """How much CPU others on this machine use."""

    def __init__(self, ours: Callable[[], int]) -> None:
        self.ours = ours
        self.before, self.began = self.spent(), time.monotonic_ns()

    def spent(self) -> int:
        ours = self.ours() + time.process_time_ns()
        return busy_ns(Path("/proc/stat").read_text()) - ours

    def share(self) -> float:
        """Of one core, since the beginning."""
        spent = self.spent() - self.before
        return max(0.0, spent / (time.monotonic_ns() - self.began))


def cpu_of(pid: int) -> int:
    """Of another process, all its threads, in nanoseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def figures(said: load.Figures, cpu_ns: int, others: float) -> dict[str, float]:
    return {
        "cpu_us": cpu_ns / 1000 / said.answers,
        "rate": said.answers / said.seconds,
        "p50_us": said.p50_us,
        "p99_us": said.p99_us,
        "p999_us": said.p999_us,
        "others": others,
        "opened": said.opened / said.answers,
    }


def ask(
    server: Server, scenario: Scenario, everybody: list[Server], settings: Settings, rate: int = 0
) -> dict[str, float]:
    """One measurement, with the right answers around it."""
    length = check(server, scenario)
    at_rest = server.memory()["private"] if scenario.load.idle else 0
    with load.generator(
        server.name,
        server.port,
        scenario.load,
        length,
        settings.seconds,
        settings.client_core,
        rate,
    ) as asking:
        extra = watch_idle(server, scenario, at_rest) if scenario.load.idle else {}
        others = Others(lambda: sum(one.cpu_ns() for one in everybody) + cpu_of(asking.process.pid))
        before = server.cpu_ns()
        said = asking.run()
        spent, share = server.cpu_ns() - before, others.share()
    check(server, scenario)
    return figures(said, spent, share) | extra


def watch_idle(server: Server, scenario: Scenario, at_rest: int) -> dict[str, float]:
    """What idle connections need: memory, and CPU in a second."""
    count = scenario.load.idle + scenario.load.connections
    grown, before = server.memory()["private"] - at_rest, server.cpu_ns()
    time.sleep(PAUSE)
    spent = server.cpu_ns() - before
    return {"idle_bytes": grown / count, "idle_cpu_us": spent / 1000 / PAUSE}


def ask_by_wrk(
    server: Server, scenario: Scenario, everybody: list[Server], settings: Settings
) -> dict[str, float]:
    """The same by wrk, whose own CPU time the system counts when it ends."""
    check(server, scenario)
    others = Others(lambda: sum(one.cpu_ns() for one in everybody) + children_ns())
    before = server.cpu_ns()
    said = load.wrk(
        server.port,
        settings.seconds,
        settings.client_core,
        connections=scenario.load.connections,
        depth=scenario.load.depth,
    )
    spent, share = server.cpu_ns() - before, others.share()
    check(server, scenario)
    return figures(said, spent, share)


def children_ns() -> int:
    """CPU time of the processes that this one has waited for."""
    times = os.times()
    return int((times.children_user + times.children_system) * 1e9)


def measure(
    server: Server, scenario: Scenario, everybody: list[Server], settings: Settings
) -> dict[str, float]:
    """One measurement, however the scenario wants it."""
    if scenario.generator == "wrk":
        return ask_by_wrk(server, scenario, everybody, settings)
    if not scenario.half_rate:
        return ask(server, scenario, everybody, settings)
    peak = ask(server, scenario, everybody, settings)["rate"]
    return ask(server, scenario, everybody, settings, rate=max(1, int(peak / 2)))


def measure_undisturbed(
    one: Callable[[], dict[str, float]], settings: Settings, series: Series
) -> None:
    """Repeats what others disturbed; keeps the least disturbed if all were."""
    tries: list[dict[str, float]] = []
    while len(tries) <= settings.repeats:
        tries.append(one())
        if tries[-1]["others"] <= DISTURBED:
            break
    best = min(tries, key=lambda figures: figures["others"])
    series.repeated += len(tries) - 1
    series.disturbed += best["others"] > DISTURBED
    series.add(best)


# --- rounds --------------------------------------------------------------------------------------


def turns(names: list[str], number: int) -> list[str]:
    """Another order in each round."""
    turn = number % len(names) if names else 0
    return names[turn:] + names[:turn]


def start(entries: Iterable[Entry], app: str, core: int, absent: dict[str, str]) -> dict[str, Live]:
    """All that start; the others are told of."""
    found = {}
    for entry in entries:
        try:
            found[entry.name] = Live(entry, app, core)
        except BenchError as error:
            why = " ".join(str(error).split())[:300]
            absent[f"{entry.name}, {entry.interface}"] = why
            print(f"left out: {why}", file=sys.stderr)
    return found


def first_line(error: Exception) -> str:
    """What a table has room for."""
    return (str(error) or repr(error)).splitlines()[0]


def say(number: int, settings: Settings, series: Series) -> None:
    last = {name: values[-1] for name, values in series.rounds.items()}
    cpu, rate = last.get("cpu_us", 0.0), last.get("rate", 0.0)
    print(
        f"{number + 1}/{settings.rounds} {series.scenario:15} {series.interface:7} "
        f"{series.server:19} "
        + (series.failed or f"{cpu:11.3f} µs {rate:11,.0f}/s, others {last['others']:.0%}"),
        file=sys.stderr,
        flush=True,
    )


def run_scenario(
    scenario: Scenario,
    interface: str,
    live: dict[str, Live],
    settings: Settings,
    found: list[Series],
) -> None:
    """All rounds of one scenario, into `found`."""
    takes_part = [
        name
        for name, one in live.items()
        if (not scenario.only or name in scenario.only)
        and (not one.entry.growing or scenario.growth)
        and (scenario.constant or one.entry.interface != "own")
    ]
    series = {name: Series(scenario.name, interface, name) for name in takes_part}
    found += series.values()
    for number in range(settings.rounds):
        for name in turns(takes_part, number):
            one = series[name]
            if one.failed or name not in live:
                continue
            everybody = [other.server for other in live.values()]
            server = live[name].server
            try:
                measure_undisturbed(
                    lambda: measure(server, scenario, everybody, settings),  # noqa: B023
                    settings,
                    one,
                )
            except (BenchError, OSError, ValueError) as error:
                one.failed = first_line(error)
                if not live[name].restart():
                    del live[name]
            say(number, settings, one)


def run_group(
    scenarios: list[Scenario],
    interface: str,
    entries: list[Entry],
    settings: Settings,
    absent: dict[str, str],
    found: list[Series],
) -> None:
    """The scenarios of one application under one interface, while its servers run."""
    constant = any(scenario.constant for scenario in scenarios)
    kinds = {interface, "own"} if constant else {interface}
    app = scenarios[0].apps[interface]
    wanted = [entry for entry in entries if entry.interface in kinds]
    with contextlib.ExitStack() as stack:
        live = start(wanted, app, settings.server_core, absent)
        for one in live.values():
            stack.callback(one.stack.close)
        for scenario in scenarios:
            run_scenario(scenario, interface, live, settings, found)


def run_all(
    scenarios: list[Scenario],
    interfaces: list[str],
    entries: list[Entry],
    settings: Settings,
    absent: dict[str, str],
    found: list[Series],
) -> None:
    """Everything that was chosen, so that each server starts once for each application."""
    groups: dict[tuple[str, str], list[Scenario]] = {}
    for scenario in scenarios:
        for interface, app in scenario.apps.items():
            if interface in interfaces:
                groups.setdefault((interface, app), []).append(scenario)
    for (interface, _), members in groups.items():
        run_group(members, interface, entries, settings, absent, found)


# --- what is not asked over sockets --------------------------------------------------------------


def start_up(entries: list[Entry], interfaces: list[str], settings: Settings) -> list[Series]:
    """From nothing to the first answer, and the memory that is in use then."""
    apps = {"asgi": "hello:asgi", "wsgi": "hello:wsgi", "own": "hello:wsgi"}
    scenario = Scenario("start", "start", load.Load(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"), b"")
    wanted = [one for one in entries if one.interface in {*interfaces, "own"} & set(apps)]
    series = [Series("start", entry.interface, entry.name) for entry in wanted]
    for _ in range(settings.rounds):
        for entry, one in zip(wanted, series, strict=True):
            if one.failed:
                continue
            began = time.perf_counter()
            try:
                with servers.running(entry, apps[entry.interface], settings.server_core) as server:
                    first_answer(server, scenario.load.request)
                    took = time.perf_counter() - began
                    memory = server.memory()["private"]
            except (BenchError, OSError) as error:
                one.failed = first_line(error)
            else:
                one.add({"start_ms": 1000 * took, "memory_mib": memory / 1024 / 1024})
    return series


def first_answer(server: Server, request: bytes) -> None:
    with socket.create_connection((HOST, server.port), TIMEOUT) as client:
        client.sendall(request)
        with client.makefile("rb") as stream:
            read_answer(stream)


def in_process(
    scenarios: list[Scenario], interfaces: list[str], settings: Settings
) -> list[Series]:
    """What applications cost by themselves, with no server at all."""
    series: dict[tuple[str, str], Series] = {}
    chosen = [
        (scenario, interface, app)
        for scenario in scenarios
        for interface, app in scenario.apps.items()
        if interface in interfaces
        and interface != "threads"
        and (app.startswith("json_") or scenario.name == "plain")
    ]
    for _ in range(settings.rounds):
        for scenario, interface, app in chosen:
            one = series.setdefault(
                (scenario.name, interface), Series(scenario.name, interface, "in process")
            )
            try:
                one.add({"cpu_us": drive(app, interface, scenario, settings)})
            except BenchError as error:
                one.failed = first_line(error)
    return list(series.values())


def drive(app: str, interface: str, scenario: Scenario, settings: Settings) -> float:
    """Microseconds of CPU that an application needs for a request."""
    path = scenario.load.request.split()[1].decode()
    command = ["taskset", "-c", str(settings.server_core), sys.executable]
    command += [str(APPS / "in_process.py"), interface, app, path, str(settings.seconds)]
    entry = next(one for one in servers.SERVERS if one.name == servers.OURS)
    done = subprocess.run(
        command,
        capture_output=True,
        timeout=settings.seconds + load.PATIENCE,
        env={**os.environ, **servers.environment(entry)},
        check=False,
    )
    cost, _, body = done.stdout.partition(b"\n")
    if done.returncode or not scenario.right(body):
        said = done.stderr.decode().strip().splitlines()
        raise BenchError(f"{app} in process: {said[-1] if said else body[:80]!r}")
    return float(cost)
