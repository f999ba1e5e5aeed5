"""Load that checks each answer: keep-alive connections, each on a thread of its own.

    with Load(server.address) as load:
        load.wait(100)          # until so many more answers came
        server.signal(signal.SIGHUP)
        server.wait_log("Reloaded")
    assert load.failures == []

A connection that ends is a failure, unless its last answer said ``Connection: close``, or this process was late
with its request; and so is one that is refused. ``answers`` counts the bodies that came.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from .client import SLOWNESS, RawClient, Response, connect

PATIENCE = 1.0  # seconds that a worker which leaves waits for a request, at least


class Load:
    """Starts at once. ``check(response)`` raises AssertionError for a wrong answer."""

    def __init__(
        self,
        address: Any,
        target: str = "/",
        *,
        connections: int = 4,
        check: Callable[[Response], None] | None = None,
        fields: tuple[str, ...] = (),
        pause: float = 0.0,
    ) -> None:
        self._address, self._target, self._fields = address, target, fields
        self._check = check or expect_200
        self._pause = pause
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.requests = 0
        self.connects = 0
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, daemon=True) for _ in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Each connection ends behind its answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20 * SLOWNESS)
            assert not thread.is_alive(), "a request hangs"

    def wait(self, more: int, timeout: float = 30) -> None:
        """Until so many more answers have come."""
        wanted = self.requests + more
        self.wait_until(lambda: self.requests >= wanted, timeout)

    def wait_until(self, condition: Callable[[], bool], timeout: float = 30) -> None:
        """Until the condition, which is looked at behind each answer, is true."""
        deadline = time.monotonic() + timeout * SLOWNESS
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"{self.requests} requests, failures: {self.failures[:5]}"
                self._changed.wait(left)

    def bodies(self) -> set[str]:
        with self._changed:
            return set(self.answers)

    # --- what other tests may ask for instead ---

    def ask(self, client: RawClient) -> Response:
        """One request; its answer, after a check."""
        client.get(self._target, *self._fields)
        response = client.recv_response()
        self._check(response)
        return response

    def name(self, response: Response) -> str:
        """What to count an answer under."""
        return response.text

    # --- one connection ---

    def _run(self) -> None:
        client: RawClient | None = None
        while not self._stop.is_set():
            asked = time.monotonic() if client is None else client.sent
            try:
                if client is None:
                    client = connect(self._address)
                    self.connects += 1
                response = self.ask(client)
            except (OSError, AssertionError) as error:
                if client is None or client.sent - asked < PATIENCE:
                    self._count(f"{type(error).__name__}: {error}", failed=True)
                if client is not None:
                    client.close()
                client = None
                self._stop.wait(0.02)
                continue
            self._count(self.name(response))
            if response.closes:
                client.close()
                client = None
            if self._pause:
                self._stop.wait(self._pause)
        if client is not None:
            client.close()

    def _count(self, text: str, failed: bool = False) -> None:
        with self._changed:
            if failed:
                self.failures.append(text)
            else:
                self.requests += 1
                self.answers[text] += 1
            self._changed.notify_all()


def expect_200(response: Response) -> None:
    assert response.status == 200, f"{response.status} {response.body!r}"
