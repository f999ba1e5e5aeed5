"""Several workers: they serve, die, hang, are recycled, and end."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import statistics
import time
from typing import Any

import pytest
from support.client import SLOWNESS, MalformedResponse, RawClient, connect
from support.load import Load
from support.pace import in_time
from support.ports import reserved_port
from support.probes import refuses
from support.processes import (
    await_end,
    children,
    lives,
    open_files,
    run_first,
    state,
    wait_until,
)
from support.server import Server

ASGI, WSGI = "workers_asgi:app", "workers_wsgi:app"
QUIET = ("--no-access-log",)


def app_of(backend: Any) -> str:
    return WSGI if backend.interface == "wsgi" else ASGI


def workers_of(server: Server, count: int = 2) -> list[int]:
    """Waits for so many that are ready; their process ids, by place. A single one has no supervisor."""
    if count == 1:
        return [server.pid]
    for number in range(1, count + 1):
        server.wait_log(rf"Worker {number} is ready")
    ready = dict(re.findall(r"Worker (\d+) is ready: process (\d+)", server.log()))
    return [int(ready[str(number)]) for number in range(1, count + 1)]


def ask_until(server: Server, pids: set[int]) -> None:
    """Each of them answers."""
    wait_until(lambda: pids.discard(int(server.get())) or not pids, what=f"for {pids}")


# --- they serve ---


def test_several_serve(serve, backend):
    server = serve(app_of(backend), "--workers", "2", *QUIET, **backend.options)
    pids = workers_of(server)
    assert children(server.pid) == sorted(pids)
    ask_until(server, set(pids))
    log = server.log()
    assert f"process {server.pid} with workers: 2" in log
    assert log.count("Press CTRL+C") == 1
    assert "multiprocess" not in log
    server.stop()
    assert server.log().count("Stopped") == 1
    await_end(*pids)


@pytest.mark.parametrize(("workers", "said"), [("2", "True False"), ("1", "False False")])
def test_wsgi_multiprocess(serve, workers, said):
    server = serve(WSGI, "--workers", workers)
    assert server.get("/multi") == said


def test_web_concurrency(serve):
    server = serve(ASGI, env={"WEB_CONCURRENCY": "2"})
    assert len(workers_of(server)) == 2
    server = serve(ASGI, "--workers", "1", env={"WEB_CONCURRENCY": "2"})
    assert children(server.pid) == []


def test_auto(serve):
    server = serve(ASGI, "--workers", "auto")
    wait_until(lambda: server.get())
    count = int(re.search(r"with workers: (\d+)", server.log())[1])
    assert 1 <= count <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("kind", [ASGI, WSGI])
def test_reuse_port(serve, kind):
    server = serve(kind, "--workers", "2", "--reuse-port", binds=["127.0.0.1:0"])
    ask_until(server, set(workers_of(server)))


@pytest.mark.plain("connections are shared before the handshakes, and its clients are plain")
@pytest.mark.parametrize("kind", [ASGI, WSGI])
def test_a_burst_is_shared(serve, kind):
    """Clients that come at once are not all taken by the worker that wakes first: they may stay."""
    server = serve(kind, "--workers", "2", *QUIET)
    pids = workers_of(server)
    run_first(*pids)  # a worker leaves connections to the others for a millisecond
    shares = [min(share_out(server, pids)) for _ in range(15)]
    assert statistics.median(shares) >= 8, shares


def share_out(server: Server, pids: list[int], count: int = 32) -> list[int]:
    """How many of so many connections each worker has, which are all made before any is used."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", server.port))
        connections = []
        for sock in socks:
            sock.settimeout(15 * SLOWNESS)
            connections.append(http.client.HTTPConnection(""))
            connections[-1].sock = sock
            connections[-1].request("GET", "/")
        answers = [int(one.getresponse().read()) for one in connections]
    return [answers.count(pid) for pid in pids]


def test_reuse_port_and_the_number_of_workers(serve, tmp_path):
    """No socket is left that nobody accepts from."""
    file = tmp_path / "a.toml"
    file.write_text("workers = 3\n")
    server = serve(ASGI, "--reuse-port", "--config", str(file), *QUIET, binds=["127.0.0.1:0"])
    workers_of(server, 3)
    server.signal(signal.SIGTTOU)
    server.wait_log("no fewer workers than 3")
    for count in (2, 4):
        file.write_text(f"workers = {count}\n")
        server.mark()
        server.signal(signal.SIGHUP)
        server.wait_log("Reloaded")
        wait_until(lambda count=count: len(children(server.pid)) == count)
        wait_until(lambda count=count: server.log().count("is ready") >= count)
        for _ in range(40):
            server.get()


# --- addresses ---


@pytest.mark.plain("it looks for http:// addresses")
def test_several_addresses(serve, tmp_path):
    path = tmp_path / "s"
    server = serve(
        ASGI, "--workers", "2", binds=["127.0.0.1:0", "[::1]:0", f"unix:{path}", "localhost:0"]
    )
    found = re.findall(r"Listening at http://(\S+):(\d+)", server.log())
    hosts = [host for host, _ in found]
    assert hosts[:2] == ["127.0.0.1", "[::1]"]
    families = {info[0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    assert len(hosts[2:]) == len(families)
    assert len({port for _, port in found[2:]}) == 1  # one port for all families of a name
    for host, port in found:
        with connect((host.strip("[]"), int(port))) as client:
            client.get()
            assert client.recv_response().status == 200
    with connect(str(path)) as client:
        client.get()
        assert client.recv_response().status == 200
    server.stop()
    assert not path.exists()


def test_the_same_address_twice_is_one(serve):
    with reserved_port() as port:
        server = serve(ASGI, binds=[f"127.0.0.1:{port}", f"127.0.0.1:{port}"])
    assert server.log().count("Listening at") == 1


# --- death ---


def test_a_killed_worker_is_replaced(serve, backend):
    """The requests in its hands are lost, and no others."""
    server = serve(app_of(backend), "--workers", "2", *QUIET, **backend.options)
    first = workers_of(server)
    with Load(server.address, connections=8) as load:
        load.wait(200)
        server.mark()
        os.kill(first[0], signal.SIGKILL)
        server.wait_log(r"Worker 1, process \d+, was killed by SIGKILL")
        server.wait_log(r"Worker 1 is ready: process \d+")
        load.wait(200)
    assert len(load.failures) <= 8, load.failures
    assert all("refused" not in one for one in load.failures)
    ask_until(server, {first[1]})


def test_all_killed(serve):
    """Clients wait until there is somebody again; none is refused."""
    server = serve(ASGI, "--workers", "2", *QUIET)
    for pid in workers_of(server):
        os.kill(pid, signal.SIGKILL)
    assert server.get()


def test_backoff(serve):
    """One that dies again and again is not started again and again."""
    server = serve(ASGI, "--workers", "2", *QUIET)
    pids = workers_of(server)
    began = time.monotonic()
    for _ in range(4):
        server.mark()
        os.kill(pids[0], signal.SIGKILL)
        pids[0] = int(server.wait_log(r"Worker 1 is ready: process (\d+)")[1])
    assert time.monotonic() - began > 0.1 + 0.2 + 0.4 + 0.8


def test_cannot_be_imported(serve, tmp_path):
    (tmp_path / "broken.py").write_text("raise RuntimeError('it is broken')\n")
    for more in ([], ["--preload"], ["--limit-max-requests", "5", "--workers", "1"]):
        words = ["--workers", "2", "--app-dir", str(tmp_path), *more]
        server = serve("broken:app", *words, wait=False)
        server.expect_tracebacks()
        assert server.wait() == 3, server.log()
        assert server.log().count("Traceback") == 1, server.log()
        assert "RuntimeError: it is broken" in server.log()
        assert "ready" not in server.log()


@pytest.mark.parametrize("more", [(), ("--preload",)])
def test_lifespan_fails(serve, tmp_path, more):
    flag = tmp_path / "flag"
    flag.touch()
    server = serve(ASGI, "--workers", "2", *more, env={"APP_FAILS": str(flag)}, wait=False)
    assert server.wait() == 3
    assert server.log().count("no database") == 1


def test_fails_later(serve, tmp_path):
    """Once it has worked, a failing start is tried again: the database may come back."""
    flag = tmp_path / "flag"
    server = serve(ASGI, "--workers", "2", *QUIET, env={"APP_FAILS": str(flag)})
    pids = workers_of(server)
    flag.touch()
    server.mark()
    os.kill(pids[0], signal.SIGKILL)
    server.wait_log("ended with status 3 before it was ready")
    flag.unlink()
    server.wait_log("Worker 1 is ready")


# --- hanging ---


@pytest.mark.parametrize(("app", "path"), [(ASGI, "/sleep"), (ASGI, "/spin"), (WSGI, "/sleep"), (WSGI, "/spin")])  # fmt: skip
def test_a_hung_worker_is_replaced(serve, app, path):
    module = app.partition(":")[0]
    where = "app" if path == "/sleep" else "spin"

    def attempt() -> bool:
        server = serve(app, "--workers", "2", "--timeout-worker-healthcheck", "1.5", *QUIET)
        server.expect_abort()
        workers_of(server)
        with server.raw() as client:
            try:
                client.get()
                pid = int(client.recv_response().text)
                client.get(path)
            except (OSError, MalformedResponse):
                assert "gave no sign of life" in server.log()
                return False  # It was late by itself, or the other one.
            found = server.wait_log(rf"{pid}, gave no sign of life for ([\d.]+) s and is killed")
            assert 1.5 <= float(found[1]) < 10 * SLOWNESS
            ended = server.wait_log(rf"Worker \d, process {pid}, hung, and was killed by (\w+)")
            if "waiting\n" not in found.string or ended[1] == "SIGKILL":
                return False  # It was late by itself, or too late to say where it was.
            server.wait_log(rf"{pid}, hung(.|\n)*Worker \d is ready")
        assert ended[1] == "SIGABRT"
        assert re.search(rf'File ".*{module}.py", line \d+ in {where}', server.log())
        return True

    in_time(attempt)


def test_a_stopped_worker_is_replaced(serve):
    """It cannot even write its traceback."""
    server = serve(ASGI, "--workers", "2", "--timeout-worker-healthcheck", "1.5", *QUIET)
    server.expect_abort()  # The other one may be late by itself.
    pid = workers_of(server)[0]
    os.kill(pid, signal.SIGSTOP)
    server.wait_log(f"Worker 1, process {pid}, hung, and was killed by SIGKILL")
    wait_until(lambda: server.log().count("Worker 1 is ready") >= 2)


def test_a_busy_worker_is_left_alone(serve):
    """Idle or slow is not hung."""

    def attempt() -> bool:
        server = serve(ASGI, "--workers", "2", "--timeout-worker-healthcheck", "2", *QUIET)
        server.expect_abort()
        pids = workers_of(server)
        run_first(*pids)
        with server.raw() as client:
            client.get("/poll")
            server.wait_log("polling")
            time.sleep(3)  # longer than one that hangs has
            if "gave no sign of life" in server.log():
                return False  # This machine may have kept it from running.
            assert children(server.pid) == sorted(pids)
        return True

    in_time(attempt)


# --- recycling ---


def recycled(server: Server) -> int:
    return len(re.findall("is replaced", server.log()))


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_max_requests(serve, backend, preload):
    server = serve(
        app_of(backend), "--workers", "2", "--limit-max-requests", "200",
        "--limit-max-requests-jitter", "100", *QUIET, *preload, **backend.options,
    )  # fmt: skip
    with Load(server.address) as load:
        load.wait_until(lambda: recycled(server) >= 4)
        load.wait(100)
    assert load.failures == []
    assert len(load.bodies()) >= 4
    assert "limit_max_requests" in server.log()


def test_max_requests_of_one_worker(serve, backend):
    server = serve(app_of(backend), "--limit-max-requests", "150", *QUIET, **backend.options)
    with Load(server.address) as load:
        load.wait_until(lambda: recycled(server) >= 3)
    assert load.failures == []


def test_max_requests_and_new_connections(serve, backend):
    """A connection for each request: recycling refuses and resets none."""
    server = serve(
        app_of(backend), "--workers", "2", "--limit-max-requests", "200", *QUIET, **backend.options
    )
    with Load(server.address, fields=("Connection: close",)) as load:
        load.wait_until(lambda: recycled(server) >= 4)
    assert load.failures == []
    assert load.connects >= load.requests


def test_max_age(serve):
    server = serve(ASGI, "--workers", "2", "--limit-max-age", "1", *QUIET)
    with Load(server.address) as load:
        load.wait_until(lambda: recycled(server) >= 3)
    assert load.failures == []
    assert "limit_max_age" in server.log()


def test_max_rss(serve):
    server = serve(ASGI, "--workers", "2", "--limit-max-rss", "100000000", *QUIET)
    with Load(server.address, "/grow", pause=0.005) as load:
        load.wait_until(lambda: recycled(server) >= 2)
        load.wait(20)
    assert load.failures == []
    assert "limit_max_rss" in server.log()


def test_recycling_that_fails_is_tried_again(serve, tmp_path):
    flag = tmp_path / "flag"
    server = serve(
        ASGI, "--workers", "1", "--limit-max-requests", "20", *QUIET, env={"APP_FAILS": str(flag)}
    )
    flag.touch()
    with Load(server.address, pause=0.005) as load:
        server.wait_log("before it was ready")
        flag.unlink()
        server.wait_log(r"Worker 1 is ready(.|\n)*Worker 1 is ready")
        load.wait(20)
    assert load.failures == []


# --- one more or less ---


def test_ttin_ttou(serve):
    server = serve(ASGI, "--workers", "2", *QUIET)
    workers_of(server)
    with Load(server.address) as load:
        server.signal(signal.SIGTTIN)
        server.wait_log("Worker 3 is ready")
        assert len(children(server.pid)) == 3
        for _ in range(2):
            before = len(children(server.pid))
            server.signal(signal.SIGTTOU)
            load.wait_until(lambda before=before: len(children(server.pid)) < before)
        server.signal(signal.SIGTTOU)
        server.wait_log("no fewer workers than 1")
        assert len(children(server.pid)) == 1
        load.wait(50)
    assert load.failures == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_usr1_usr2_do_no_harm(serve, workers, backend):
    server = serve(app_of(backend), "--workers", workers, *QUIET, **backend.options)
    with Load(server.address) as load:
        for _ in range(3):
            server.signal(signal.SIGUSR1)
            load.wait(20)
        if workers == "2":
            server.signal(signal.SIGUSR2)
            server.wait_log("SIGUSR2 is not supported")
    assert load.failures == []


# --- the end ---


ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
COUNTS = pytest.mark.parametrize("workers", ["1", "2"])


@ENDS
@COUNTS
def test_running_requests_end(serve, backend, number, workers, tmp_path):
    server = serve(app_of(backend), "--workers", workers, *QUIET, **backend.options)
    workers_of(server, int(workers))
    end = tmp_path / "end"
    with server.raw() as client:
        client.get(f"/until{end}")
        server.wait_log("^waiting")
        server.signal(number)
        wait_until(lambda: refuses(server), what="for a refusal")
        end.touch()
        response = client.recv_response()
        assert response.status == 200
        assert response.closes
    assert server.wait() == 0
    if backend.interface == "asgi":
        assert server.log().count("shut down") == int(workers)


@COUNTS
@pytest.mark.parametrize("path", ["/stream", "/poll"])
def test_streams_do_not_hold_the_end(serve, loop, workers, path):
    server = serve(ASGI, "--workers", workers, "--timeout-disconnect", "0.3", *QUIET, loop=loop)
    workers_of(server, int(workers))
    with server.raw() as client:
        client.get(path)
        if path == "/stream":
            assert client.recv_head().status == 200
        else:
            server.wait_log("polling")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < 10 * SLOWNESS  # the grace time is 30
    assert "saw the disconnect" in server.log()
    assert server.log().count("shut down") == int(workers)


@COUNTS
@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGQUIT, None)]
)  # fmt: skip
def test_at_once(serve, loop, workers, first, second):
    server = serve(ASGI, "--workers", workers, *QUIET, loop=loop)
    workers_of(server, int(workers))
    with server.raw() as client:
        client.get("/forever")
        server.wait_log("^waiting")
        server.signal(first)
        if second is not None:
            server.wait_log("Waiting for running requests: 1")
            server.signal(second)
        assert server.wait() == 0
    assert "Cut requests as asked for: 1" in server.log()
    assert server.log().count("shut down") == int(workers)


@COUNTS
def test_the_time_is_over(serve, loop, workers):
    server = serve(
        ASGI, "--workers", workers, "--timeout-graceful-shutdown", "0.5", *QUIET, loop=loop
    )
    workers_of(server, int(workers))
    with server.raw() as one, server.raw() as two:
        for client in (one, two):
            client.get("/forever")
        server.wait_log("^waiting\n(.|\n)*^waiting\n")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    cut = re.findall(r"Cut requests that did not end within 0.5 s: (\d)", server.log())
    assert sum(map(int, cut)) == 2


@COUNTS
def test_third_signal(serve, workers):
    server = serve("cli_apps:stubborn_end", "--workers", workers, *QUIET)
    workers_of(server, int(workers))
    pids = [server.pid, *children(server.pid)]
    server.signal(signal.SIGTERM)
    server.wait_log("hanging")
    server.signal(signal.SIGTERM)
    wait_until(lambda: server.signal(signal.SIGTERM) or not lives(server.pid))
    assert server.wait() in (128 + signal.SIGTERM, -signal.SIGTERM)
    await_end(*pids)


def test_stopped_while_it_starts(serve):
    for more in ([], ["--preload"]):
        server = serve("cli_apps:stubborn_start", "--workers", "2", *more, wait=False)
        server.wait_log("^starting")
        server.signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
        assert "Traceback" not in server.log()


def test_stopped_while_it_imports(serve, tmp_path):
    text = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "slow.py").write_text(text)
    for more in ([], ["--preload"]):
        server = serve("slow:app", "--workers", "2", "--app-dir", str(tmp_path), *more, wait=False)
        server.wait_log("^importing")
        pids = children(server.pid)
        server.signal(signal.SIGINT)
        assert server.wait() == 128 + signal.SIGINT
        assert "Traceback" not in server.log()
        assert "rror" not in server.log()
        await_end(*pids)


@pytest.mark.parametrize("more", [(), ("--preload",)])
@pytest.mark.parametrize("app", [ASGI, WSGI])
def test_the_supervisor_is_killed(serve, app, more):
    server = serve(app, "--workers", "2", *QUIET, *more)
    workers_of(server)
    pids = children(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait(10)
    await_end(*pids)


@pytest.mark.parametrize("more", [(), ("--preload",)])
def test_the_supervisor_is_killed_while_a_worker_starts(serve, more):
    server = serve("cli_apps:stubborn_start", "--workers", "2", *more, wait=False)
    server.wait_log("^starting")
    pids = children(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait(10)
    await_end(*pids)


def test_ctrl_c_in_the_terminal(serve):
    """It reaches all processes at once."""
    server = serve(ASGI, "--workers", "2", *QUIET)
    pids = workers_of(server)
    for pid in [*pids, server.pid]:
        os.kill(pid, signal.SIGINT)
    assert server.wait() == 0
    assert server.log().count("shut down") == 2


# --- load balancers and probes ---


def health(server) -> int:
    with server.raw() as client:
        client.get("/healthz", "Connection: close")
        return client.recv_response().status


@pytest.mark.parametrize("workers", ["1", "2"])
def test_shutdown_delay(serve, backend, workers):
    server = serve(
        app_of(backend), "--workers", workers, "--health-path", "/healthz",
        "--shutdown-delay", "60", **backend.options,
    )  # fmt: skip
    assert server.get("/healthz") is not None
    with Load(server.address, connections=1) as load:
        load.wait(10)
        server.signal(signal.SIGTERM)
        wait_until(lambda: health(server) == 503, what="for 503")
        load.wait(20)
    assert load.failures == []
    server.stop()  # a second signal, which ends the delay
    assert "/healthz" not in server.log()


def test_the_delay_is_for_those_that_retire_too(serve, backend):
    """A load balancer may just be sending a request on a connection to one of them."""
    server = serve(
        app_of(backend), "--workers", "2", "--health-path", "/healthz", "--timeout-keep-alive", "60",
        "--shutdown-delay", "60", **backend.options,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(200)]
        for client in clients:
            assert still_healthy(client)
        server.signal(signal.SIGHUP)
        server.wait_log("Reloaded")
        server.signal(signal.SIGTERM)
        wait_until(lambda: health(server) == 503, what="for 503")  # of the new ones
        # A connection each: before it has heard of the signal, its answer is the connection's last.
        while still_healthy(clients.pop()):
            time.sleep(0.1)  # There are enough of them for twenty seconds.
    server.stop()  # a second signal, which ends the delay


def still_healthy(client: RawClient) -> bool:
    client.get("/healthz")
    status = client.recv_response().status
    assert status in (200, 503)
    return status == 200


def test_a_worker_that_retires_is_healthy(serve, backend):
    """Its successor serves already: who asks on a connection that stays must not give up the server."""
    server = serve(
        app_of(backend), "--workers", "2", "--health-path", "/healthz", **backend.options
    )
    with server.raw() as client:
        client.get("/healthz")
        assert client.recv_response().status == 200
        server.signal(signal.SIGHUP)
        server.wait_log("Reloaded")
        closes = False
        while not closes:  # it may not have been told yet
            client.get("/healthz")
            response = client.recv_response()
            assert response.status == 200
            closes = response.closes


@pytest.mark.parametrize("app", [ASGI, "probe_asgi:app"])
def test_limit_concurrency_says_so_once(serve, app):
    server = serve(app, "--limit-concurrency", "1")
    path = "/forever" if app == ASGI else "/disconnect?name=a"
    with server.raw() as client:
        client.get(path)
        wait_until(lambda: refused(server))
        for _ in range(5):
            assert refused(server)
    server.signal(signal.SIGQUIT)
    assert server.wait() == 0
    assert len(re.findall("limit_concurrency|limit-concurrency", server.log())) == 1, server.log()


def refused(server: Server) -> bool:
    with server.raw() as client:
        client.get("/", "Connection: close")
        return client.recv_response().status == 503


@pytest.mark.parametrize("app", [ASGI, WSGI])
def test_tcp_probes(serve, app):
    """No line tells of them; test_leaks.py sees that they leave nothing behind."""
    server = serve(app)
    server.mark()
    for _ in range(100):
        server.raw().close()
    server.get()
    assert [line for line in server.log().splitlines() if '"GET / HTTP/1.1" 200' not in line] == []


# --- nothing is left behind ---


def test_descriptors_stay(serve):
    server = serve(ASGI, "--workers", "2", "--limit-max-requests", "60", *QUIET)
    workers_of(server)
    before = open_files(server.pid)
    with Load(server.address) as load:
        load.wait_until(lambda: recycled(server) >= 20, timeout=60)
        for _ in range(5):
            server.mark()
            server.signal(signal.SIGHUP)
            server.wait_log("Reloaded")
    assert load.failures == []
    wait_until(lambda: len(children(server.pid)) == 2)
    wait_until(lambda: open_files(server.pid) == before, what=f"to have {before} files")
    wait_until(lambda: all(state(pid) != "Z" for pid in children(server.pid)), what="for zombies")


@pytest.mark.parametrize("more", [(), ("--preload",)])
def test_a_worker_has_no_files_of_the_supervisor(serve, more):
    """Only its own end of its own pipe; those of the others would keep them from being noticed."""
    server = serve(ASGI, "--workers", "2", *QUIET, *more)
    counts = {}
    for _ in range(2):
        pids = workers_of(server)
        wait_until(lambda: len(children(server.pid)) == 2 + bool(more))
        counts[tuple(pids)] = [open_files(pid) for pid in pids]
        server.mark()
        server.signal(signal.SIGHUP)
        server.wait_log("Reloaded")
    assert len({number for pair in counts.values() for number in pair}) == 1, counts
