"""What workers cost: supervisor's memory and wake-ups, start and end. ``python bench/workers.py``"""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "asgiserver", "bench.hello:asgi", "--port", "0"]


def status(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


def start(*words: str) -> tuple[subprocess.Popen[str], float]:
    began = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True)
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


if __name__ == "__main__":
    main()
