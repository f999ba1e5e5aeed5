"""TLS beside nginx: what a request, a handshake and an idle connection cost.

Two servers share one core and answer a constant: the floor (bench/floor.c, the core without Python), and
nginx (`return 200`). Same certificate (ECDSA on P-256), same cipher suite, one process each, no log. wrk asks
over 64 kept connections, `openssl s_time` opens new ones without resuming any, each version in turn, in
interleaved rounds. CPU time is the server's own, from the scheduler. Memory is the growth of the server's
private memory with idle connections open that have been served once.

Needs wrk, openssl and nginx: .venv/bin/python bench/tls.py
"""

import argparse
import contextlib
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asbench import harness, load, servers
from asbench.harness import raise_file_limit
from asbench.measure import spread
from asbench.report import figure
from asbench.scenarios import HELLO as BODY
from idle import SAMPLE, SPARE_FILES

CIPHERS = {"TLSv1.2": "ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.3": "TLS_AES_256_GCM_SHA384"}
LEAST_REQUESTS = 10_000  # in one measurement, else it is repeated
ATTEMPTS = 10
GOALS = {"cpu": 1.15, "handshakes": 0.95, "idle": 20 * 1024}


def make_certificate(folder: Path) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        "-subj /CN=localhost -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


def start(name: str, folder: Path, files: int, core: int) -> Any:
    """A running server, as a context manager."""
    port = harness.free_port()
    if name == "nginx":
        command = servers.nginx(folder, port, files, tls=True)
    else:
        keys = ("--tls", str(folder / "cert.pem"), str(folder / "key.pem"))
        command = [str(harness.find_floor()), "--timeout-keep-alive", "600"]
        command += ["--port", str(port), *keys]
    return harness.serving(name, command, port, core)


def files_for(connections: int) -> int:
    """nginx drops idle connections when the last sixteenth of its places is being taken."""
    return connections + connections // 8 + SPARE_FILES


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask(client: ssl.SSLSocket) -> None:
    client.sendall(harness.REQUEST)
    with client.makefile("rb") as stream:
        if (got := harness.read_answer(stream)) != BODY:
            raise harness.BenchError(f"wrong answer: {got[:80]!r}")


def handshakes(server: harness.Server, version: str, seconds: int, core: int) -> float:
    """Microseconds of CPU for each new connection, none of which is resumed."""
    flag = version.replace("TLSv", "-tls").replace(".", "_")
    kind = "-ciphersuites" if version == "TLSv1.3" else "-cipher"
    command = ["taskset", "-c", str(core), "openssl", "s_time", "-new", "-time", str(seconds)]
    command += [flag, kind, CIPHERS[version], "-connect", f"{harness.HOST}:{server.port}"]
    before = server.cpu_ns()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    spent = server.cpu_ns() - before
    count = re.search(r"(\d+) connections in \d+ real seconds", done.stdout)
    if done.returncode or not count or not int(count[1]):
        raise harness.BenchError(f"openssl s_time failed:\n{done.stdout}{done.stderr}")
    return spent / 1000 / int(count[1])


def requests(server: harness.Server, seconds: int, core: int) -> float:
    """Microseconds of CPU a request; of so many that the handshakes before them do not count."""
    for _ in range(ATTEMPTS):
        before = server.cpu_ns()
        answers = load.wrk(server.port, seconds, core, scheme="https").answers
        if answers >= LEAST_REQUESTS:
            return (server.cpu_ns() - before) / 1000 / answers
    raise harness.BenchError(f"{server.name} answered hardly anything: is the machine busy?")


def check(server: harness.Server) -> str:
    """The right answer; the cipher suite that wrk, too, gets."""
    context = client_context()
    with (
        socket.create_connection((harness.HOST, server.port), 5) as raw,
        context.wrap_socket(raw) as client,
    ):
        ask(client)
        return str(client.cipher())


def idle(server: harness.Server, count: int) -> float:
    """Bytes for each of `count` idle connections. The client's side keeps the socket alone."""
    context = client_context()
    kept: list[socket.socket] = []
    with contextlib.ExitStack() as stack:

        def connect(keep: bool) -> ssl.SSLSocket:
            raw = socket.create_connection((harness.HOST, server.port), 10)
            client = context.wrap_socket(raw)
            ask(client)
            if not keep:
                kept.append(stack.enter_context(socket.socket(fileno=client.detach())))
            return client

        stack.enter_context(connect(keep=True))
        before = server.memory()["private"]
        asked = [stack.enter_context(connect(keep=n % SAMPLE == 0)) for n in range(count)]
        after = server.memory()["private"]
        for client in asked[::SAMPLE]:
            ask(client)
    return (after - before) / count


@contextlib.contextmanager
def both(folder: Path, files: int, core: int) -> Iterator[list[harness.Server]]:
    with start("floor", folder, files, core) as floor, start("nginx", folder, files, core) as nginx:
        yield [floor, nginx]


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    server_core, client_core = harness.two_cores()
    make_certificate(folder)
    series: dict[str, dict[str, list[float]]] = {}

    def measured(kind: str, server: harness.Server, cpu_us: float) -> None:
        series.setdefault(kind, {}).setdefault(server.name, []).append(cpu_us)
        print(f"{kind:18} {server.name:5} {cpu_us:8.2f} µs", file=sys.stderr, flush=True)

    files = files_for(args.connections)
    with both(folder, files, server_core) as running:
        if len({check(server) for server in running}) != 1:
            raise harness.BenchError("the two use different cipher suites")
        for server in running:
            requests(server, 1, client_core)
        for number in range(args.rounds):
            for server in running if number % 2 else running[::-1]:
                measured("request", server, requests(server, args.seconds, client_core))
                for version in CIPHERS:
                    cost = handshakes(server, version, args.seconds, client_core)
                    measured(f"handshake {version}", server, cost)
    memory = {}
    with both(folder, files, server_core) as running:
        for server in running:
            memory[server.name] = round(idle(server, args.connections))
    return {
        "benchmark": "tls",
        "openssl": ssl.OPENSSL_VERSION,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "connections": args.connections,
        "cpu_us": {
            kind: {name: spread(costs, 2) for name, costs in rows.items()}
            | {"ratio": round(ratio(rows), 3)}
            for kind, rows in series.items()
        },
        "idle": memory,
    }


def ratio(rows: dict[str, list[float]]) -> float:
    """The floor's CPU in multiples of nginx's: the median of the rounds' ratios."""
    pairs = zip(rows["floor"], rows["nginx"], strict=True)
    return statistics.median(a / b for a, b in pairs)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"TLS on one core, {results['openssl']}, ECDSA on P-256, {results['rounds']} interleaved "
        f"rounds of {results['seconds']} s. Medians, in brackets the least and the greatest.",
        "",
        "| CPU µs for a | floor | nginx | nginx = 1 | goal |",
        "|---|---|---|---|---|",
    ]
    for kind, row in results["cpu_us"].items():
        goal = GOALS["cpu"] if kind == "request" else 1 / GOALS["handshakes"]
        lines.append(
            f"| {kind} | {figure(row['floor'], ',.2f')} | {figure(row['nginx'], ',.2f')} | "
            f"{row['ratio']:.2f} | ≤ {goal:.2f} |"
        )
    floor, nginx = results["idle"]["floor"], results["idle"]["nginx"]
    lines += [
        "",
        f"Memory of each of {results['connections']:,} idle connections that were served once: floor "
        f"{floor:,} bytes, nginx {nginx:,}; goal ≤ {GOALS['idle']:,}.",
    ]
    return "\n".join(lines) + "\n"


def run_all(args: argparse.Namespace) -> dict[str, Any]:
    raise_file_limit(files_for(args.connections))
    with tempfile.TemporaryDirectory(prefix="bench-tls-") as folder:
        return run(args, Path(folder))


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--connections", type=int, default=10_000, help="idle ones")
    return harness.main(parser, "tls", run_all, table)


if __name__ == "__main__":
    sys.exit(main())
