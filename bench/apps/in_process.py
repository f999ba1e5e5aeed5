"""What an application costs by itself: in_process.py INTERFACE MODULE:NAME PATH SECONDS.

Prints microseconds of CPU a request, and the body of the last answer on the lines below.
"""

import asyncio
import importlib
import io
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop

BATCH = 100


def measured(seconds: float, batch: Callable[[], bytes]) -> tuple[float, bytes]:
    """The mean over the best half of the batches: others on the machine only make one slower."""
    batch()
    costs: list[float] = []
    end, body = time.monotonic() + seconds, b""
    while time.monotonic() < end or not costs:
        began = time.process_time_ns()
        body = batch()
        costs.append((time.process_time_ns() - began) / 1000 / BATCH)
    best = sorted(costs)[: (len(costs) + 1) // 2]
    return sum(best) / len(best), body


def wsgi(app: Any, path: str, seconds: float) -> tuple[float, bytes]:
    template = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "bench",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }

    def start_response(status: str, fields: Any, exc_info: Any = None) -> None:
        assert status.startswith("200 "), status

    def batch() -> bytes:
        body = b""
        for _ in range(BATCH):
            parts = app(template.copy(), start_response)
            body = b"".join(parts)
            if hasattr(parts, "close"):
                parts.close()
        return body

    return measured(seconds, batch)


def asgi(app: Any, path: str, seconds: float) -> tuple[float, bytes]:
    template = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"bench")],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
    }
    parts: list[bytes] = []
    empty = {"type": "http.request", "body": b"", "more_body": False}
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not messages:  # the client stays
            await asyncio.get_running_loop().create_future()
        return messages.pop()

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 200) == 200, message
        if body := message.get("body"):
            parts.append(body)

    async def batch() -> bytes:
        for _ in range(BATCH):
            parts.clear()
            messages[:] = [empty]
            await app(template.copy(), receive, send)
        return b"".join(parts)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return measured(seconds, lambda: runner.run(batch()))


if __name__ == "__main__":
    interface, target, path, seconds = sys.argv[1:]
    module, _, name = target.partition(":")
    app = getattr(importlib.import_module(module), name)
    cost, body = {"asgi": asgi, "wsgi": wsgi}[interface](app, path, float(seconds))
    print(cost)
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
