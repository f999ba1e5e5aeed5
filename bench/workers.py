"""What workers cost and bring: start and end, the supervisor's memory and wake-ups, and how much more
two workers serve than one. ``python bench/workers.py``; needs wrk and two cores.

For the last figure each request keeps a processor busy for two milliseconds, so that wrk and the kernel's
part of a request hardly count on a machine with no cores to spare for them.
"""

import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from asbench import harness, load

COMMAND = [sys.executable, "-m", "asgiserver", "--port", "0", "--no-access-log"]
ROUNDS = 5


def status(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


def start(*words: str, app: str = "bench.apps.hello:asgi") -> tuple[subprocess.Popen[str], float]:
    began = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *words, app], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "CTRL+C" in line:
            break
    return process, time.perf_counter() - began


def stop(process: subprocess.Popen[str]) -> float:
    began = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.wait()
    return time.perf_counter() - began


def shared_out(*words: str) -> int:
    """Kilobytes of four workers with FastAPI, the supervisor and all: what is shared counts once."""
    process, _ = start("--workers", "4", *words, app="examples.fastapi_app:app")
    time.sleep(2)
    total = harness.Server("FastAPI", process, 0, Path()).memory()["shared_out"] // 1024
    stop(process)
    return total


def rate(workers: int) -> float:
    """Requests a second."""
    command = [*COMMAND, "--workers", str(workers), "bench.apps.hello:busy"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port, ready = "", 1 if workers == 1 else 0
        for line in process.stderr:
            if found := re.search(r"Listening at http://[^:]+:(\d+)", line):
                port = found[1]
            ready += "is ready" in line
            if port and ready == workers:
                break
        said = load.wrk(int(port), 3, connections=32)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    return said.answers / said.seconds


def main() -> None:
    bare = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
        bare.append(time.perf_counter() - began)
    print(f"import asyncio: {min(bare) * 1000:.0f} ms")
    for words in (("--workers", "1"), ("--workers", "2")):
        runs = []
        for _ in range(5):
            process, up = start(*words)
            time.sleep(0.5)
            runs.append((up, stop(process)))
        up, down = min(run[0] for run in runs), min(run[1] for run in runs)
        print(f"{' '.join(words)}: start {up * 1000:.0f} ms, end {down * 1000:.0f} ms")
    process, _ = start("--workers", "2")
    time.sleep(1)
    before = status(process.pid, "voluntary_ctxt_switches")
    time.sleep(10)
    woken = status(process.pid, "voluntary_ctxt_switches") - before
    print(f"supervisor: {status(process.pid, 'VmRSS')} kB, {woken} wake-ups in 10 s")
    stop(process)
    print(f"4 workers, FastAPI: {shared_out()} kB, with --preload {shared_out('--preload')} kB")
    ratios = []
    for _ in range(ROUNDS):
        one, two = rate(1), rate(2)
        ratios.append(two / one)
        print(f"1 worker: {one:.0f} requests/s, 2 workers: {two:.0f}, ratio {two / one:.2f}")
    print(f"ratio: median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
