"""Mixed traffic in which every answer is checked, from seeds.

A ``Client`` is a thread that does one thing after the other to one server, by chance. What differs from what
the request asks for is ``wrong``; an answer that does not come is ``lost``, unless the process that had
it in hand was killed, which ``Target.killed`` tells.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "apps")]

from soak_common import FILE_SIZE, pattern  # noqa: E402
from support.client import MalformedResponse, RawClient, Response, connect  # noqa: E402
from support.server import Server  # noqa: E402
from support.websocket import BINARY, CLOSE, PING, PONG, TEXT, WebSocket, frame, handshake  # noqa: E402

PATIENCE = 60.0  # seconds for an answer: longer is a hang
EXAMPLES = 20  # of failures that are kept in words
FILE = pattern(7, FILE_SIZE)


class Wrong(AssertionError):
    """An answer, and not the one to this request."""


@dataclass
class Target:
    """A server under test. ``moves``: its workers are replaced while it serves."""

    name: str
    server: Server
    websocket: bool
    moves: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    killed: dict[int, float] = field(default_factory=dict)  # when, by process
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, example: str = "") -> None:
        with self.lock:
            self.counts[what] += 1
            if example and len(self.examples) < EXAMPLES:
                self.examples.append(f"{self.name}: {what}: {example}")
                print(f"{time.strftime('%X')} {self.examples[-1]}", flush=True)

    def connect(self) -> RawClient:
        address = self.server.address
        if self.server.context is None:
            return connect(address, PATIENCE)
        raw = connect(address.address, PATIENCE)
        raw.socket = self.server.context.wrap_socket(raw.socket, server_hostname=address.name)
        return raw


class Gate:
    """Lets clients through, or holds them all where they have nothing open."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closed = self.over = False
        self._held = self.members = 0

    def close(self) -> None:
        with self._changed:
            self._closed = True
            if not self._changed.wait_for(lambda: self._held == self.members, 2 * PATIENCE):
                raise Wrong("a client hangs")

    def open(self) -> None:
        with self._changed:
            self._closed = False
            self._changed.notify_all()

    def end(self) -> None:
        self.over = True
        self.open()

    @property
    def closed(self) -> bool:
        return self._closed

    def wait(self) -> None:
        with self._changed:
            self._held += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._closed)
            self._held -= 1


class Client(threading.Thread):
    def __init__(self, target: Target, gate: Gate, seed: str) -> None:
        super().__init__(name=f"{target.name} {seed}", daemon=True)
        self.target, self.gate, self.seed = target, gate, seed
        self.rng = random.Random(f"{target.name} {seed}")
        self.raw: RawClient | None = None
        self.pid: int | None = None  # who serves this connection, once he has said so
        self.opened = 0.0
        gate.members += 1
        kinds = [one for one in KINDS if target.websocket or not one[0].__name__.startswith("ws_")]
        self.kinds, self.weights = [one[0] for one in kinds], [one[1] for one in kinds]

    # --- a connection ---

    @property
    def client(self) -> RawClient:
        if self.raw is None:
            self.pid, self.opened = None, time.monotonic()
            self.raw = self.target.connect()
            self.target.count("connections")
        return self.raw

    def drop(self, reset: bool = False) -> None:
        raw, self.raw = self.raw, None
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.reset() if reset else raw.close()

    def leave(self) -> None:
        """As clients do: in order, or not."""
        how = self.rng.choice(("close", "reset", "half"))
        if how == "half" and self.target.server.context is None:
            with contextlib.suppress(OSError):
                self.client.shutdown()
                self.client.recv_all()
        self.drop(reset=how == "reset")

    # --- an answer ---

    def answer(self, method: str = "GET", skip: tuple[int, ...] = ()) -> Response:
        response = self.client.recv_response(method, skip)
        self.note(response)
        if response.closes:
            self.drop()
        return response

    def note(self, response: Response) -> None:
        pid = response.get("x-pid")
        if pid is not None:
            self.pid = int(pid)
        self.target.count("answers")

    def expect(
        self, body: bytes, status: int = 200, method: str = "GET", skip: tuple[int, ...] = ()
    ) -> Response:
        response = self.answer(method, skip)
        if response.status != status or response.body != body:
            raise Wrong(
                f"{response.status} with {len(response.body)} bytes {response.body[:60]!r}, not "
                f"{status} with {len(body)} bytes {body[:60]!r}"
            )
        return response

    # --- its life ---

    def excused(self) -> bool:
        """What was lost was in the hands of a process that was killed."""
        with self.target.lock:
            killed = dict(self.target.killed)
        if self.pid is not None:
            return self.pid in killed
        return any(when >= self.opened for when in killed.values())

    def run(self) -> None:
        while not self.gate.over:
            if self.gate.closed:
                self.drop()
                self.gate.wait()
                continue
            kind = self.rng.choices(self.kinds, self.weights)[0]
            try:
                kind(self)
                self.target.count(kind.__name__)
            except (OSError, MalformedResponse) as error:
                excused = self.excused()
                self.drop()
                text = f"{kind.__name__}, seed {self.seed}: {type(error).__name__}: {error}"
                self.target.count("killed" if excused else "lost", "" if excused else text)
            except AssertionError as error:
                self.drop()
                self.target.count("wrong", f"{kind.__name__}, seed {self.seed}: {error}")
        self.drop()


# --- what a client does ---------------------------------------------------------------------------


def request(target: str, *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: soak", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sized(rng: random.Random, most: int) -> bytes:
    """A body, more often a small one."""
    return pattern(rng.randrange(1000), int(most ** rng.random()) - (rng.random() < 0.1))


def posted(rng: random.Random, target: str, body: bytes) -> bytes:
    """With a length or in chunks of any size."""
    if rng.random() < 0.5:
        return request(target, f"Content-Length: {len(body)}", method="POST", body=body)
    chunks, at = [], 0
    while at < len(body):
        size = rng.randint(1, max(1, len(body) // 3))
        piece = body[at : at + size]
        chunks.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        at += size
    return request(
        target, "Transfer-Encoding: chunked", method="POST", body=b"".join(chunks) + b"0\r\n\r\n"
    )


def hello(c: Client) -> None:
    number = c.rng.randrange(100_000)
    c.client.send(request(f"/hello?{number}"))
    c.expect(b"hello %d" % number)


def head(c: Client) -> None:
    c.client.send(request("/hello?1", method="HEAD"))
    c.expect(b"", method="HEAD")


def pipelined(c: Client) -> None:
    """Different answers, in order. One that says close is the last: the rest was not looked at."""
    todo: list[tuple[bytes, bytes]] = []
    for _ in range(c.rng.randint(2, 40)):
        number = c.rng.randrange(1000)
        body = sized(c.rng, 2000)
        todo.append(
            c.rng.choice(
                (
                    (request(f"/hello?{number}"), b"hello %d" % number),
                    (posted(c.rng, "/echo", body), body),
                    (request(f"/stream?{number},50,3"), pattern(number, 50) * 3),
                )
            )
        )
    client = c.client
    client.send(b"".join(one for one, _ in todo))
    for _, body in todo:
        c.expect(body)
        if c.raw is not client:
            c.target.count("given back")
            return


def post(c: Client) -> None:
    body = sized(c.rng, 300_000)
    c.client.send(posted(c.rng, "/echo", body))
    c.expect(body)


def large_post(c: Client) -> None:
    """Above what is kept in memory, and what waits for the application."""
    body = pattern(c.rng.randrange(1000), c.rng.randint(500_000, 900_000))
    c.client.send(posted(c.rng, "/echo", body))
    c.expect(body)


def both_ways(c: Client) -> None:
    body = sized(c.rng, 60_000)  # fits the buffers on the way: who sends does not read
    c.client.send(posted(c.rng, "/flow", body))
    c.expect(body)


def continued(c: Client) -> None:
    body = sized(c.rng, 3000)
    head = request("/echo", f"Content-Length: {len(body)}", "Expect: 100-continue", method="POST")
    c.client.send(head)
    if body and c.client.recv_head().status != 100:
        raise Wrong("no 100 Continue")
    c.client.send(body)
    c.expect(body)


def unread(c: Client) -> None:
    c.client.send(posted(c.rng, "/unread", sized(c.rng, 30_000)))
    c.expect(b"unread")


def in_drops(c: Client) -> None:
    """A request in pieces of any size, with pauses."""
    body = sized(c.rng, 2000)
    raw = posted(c.rng, "/echo", body)
    at = 0
    while at < len(raw):
        size = c.rng.randint(1, 1 + len(raw) // 4)
        c.client.send(raw[at : at + size])
        at += size
        time.sleep(c.rng.random() * 0.003)
    c.expect(body)


def stream(c: Client) -> None:
    number, size, count = c.rng.randrange(1000), c.rng.randint(1, 9000), c.rng.randint(0, 40)
    c.client.send(request(f"/stream?{number},{size},{count}"))
    c.expect(pattern(number, size) * count)


def file(c: Client) -> None:
    c.client.send(request("/file"))
    c.expect(FILE)


def alone(c: Client) -> None:
    """A connection for one request."""
    c.drop()
    number = c.rng.randrange(1000)
    c.client.send(request(f"/hello?{number}", "Connection: close"))
    if not c.expect(b"hello %d" % number).closes:
        raise Wrong("the connection stays")


def health(c: Client) -> None:
    c.client.send(request("/health"))
    if c.answer().status != 200:
        raise Wrong("not healthy")


def sleep(c: Client) -> None:
    c.client.send(request(f"/sleep?{c.rng.randint(1, 20)}"))
    c.expect(b"slept")


def fail(c: Client) -> None:
    c.client.send(request("/fail"))
    response = c.answer()
    if response.status != 500:
        raise Wrong(f"{response.status}, not 500")


def bad(c: Client) -> None:
    """What is no request is answered by a 400 and the end."""
    c.client.send(
        c.rng.choice(
            (
                b"NONSENSE\r\n\r\n",
                request("/hello", "bad field"),
                request("/echo", "Transfer-Encoding: chunked", "Content-Length: 3", method="POST"),
                request("/echo", "Transfer-Encoding: chunked", method="POST", body=b"zz\r\n"),
            )
        )
    )
    response = c.answer()
    if response.status != 400 or not response.closes:
        raise Wrong(f"{response.status}, not 400")


def leave_early(c: Client) -> None:
    """Within a request, at any byte."""
    raw = posted(c.rng, "/echo", sized(c.rng, 700_000))
    c.client.send(raw[: c.rng.randrange(len(raw))])
    c.leave()


def leave_late(c: Client) -> None:
    """Within an answer, at any byte."""
    target, size = c.rng.choice(
        (("/file", FILE_SIZE), ("/stream?1,20000,100", 2_000_000), ("/sleep?5", 5), ("/fail", 20))
    )
    c.client.send(request(target) * c.rng.randint(1, 3))
    left = c.rng.randrange(size)
    while left > 0 and c.rng.random() < 0.9:
        left -= len(c.client.socket.recv(min(left, 20_000))) or left
    c.leave()


def probe(c: Client) -> None:
    """Somebody looks whether the port is open, or what it is."""
    c.drop()
    c.opened = time.monotonic()
    address = c.target.server.address
    plain = address if c.target.server.context is None else address.address
    with connect(plain, PATIENCE) as client, contextlib.suppress(OSError):
        if c.rng.random() < 0.5:
            client.send(c.rng.randbytes(c.rng.randint(1, 300)))
        if c.rng.random() < 0.3:
            client.reset()


def opened(c: Client) -> WebSocket | None:
    """None: the server just leaves, and says to come again."""
    c.client.send(handshake("/ws"))
    response = c.client.recv_head()
    if response.status == 503 and c.target.moves:
        c.target.count("told to leave")
        c.drop()
        return None
    if response.status != 101:
        raise Wrong(f"{response.status}, not 101")
    c.note(response)
    return WebSocket(c.client)


def ws_talk(c: Client) -> None:
    """A conversation; who is told that the server leaves (1012) may have lost the last message."""
    c.drop()
    socket_ = opened(c)
    if socket_ is None:
        return
    for _ in range(c.rng.randint(1, 12)):
        opcode = c.rng.choice((TEXT, BINARY, PING))
        body = sized(c.rng, 120 if opcode == PING else 90_000)
        if opcode != PING and len(body) > 10 and c.rng.random() < 0.3:
            cut = c.rng.randrange(len(body))
            c.client.send(frame(opcode, body[:cut], fin=False) + frame(0, body[cut:]))
        else:
            socket_.send(opcode, body)
        got = socket_.recv()
        if got.opcode == CLOSE and got.code == 1012 and c.target.moves:
            c.target.count("told to leave")
            c.drop()
            return
        if (got.opcode, got.payload) != (PONG if opcode == PING else opcode, body):
            raise Wrong(f"opcode {got.opcode} with {got.payload[:60]!r}")
        c.target.count("messages")
    socket_.close()
    got = socket_.recv()
    if got.opcode != CLOSE or got.code not in (1000, 1012):
        raise Wrong(f"opcode {got.opcode}, not a close frame")
    c.drop()


def ws_leave(c: Client) -> None:
    """Within a message, at any byte."""
    c.drop()
    if opened(c) is None:
        return
    raw = frame(BINARY, sized(c.rng, 90_000))
    c.client.send(raw[: c.rng.randrange(len(raw))])
    c.leave()


KINDS: list[tuple[Callable[[Client], None], float]] = [
    (hello, 30), (head, 3), (pipelined, 10), (post, 10), (large_post, 0.5), (both_ways, 5),
    (continued, 4), (unread, 4), (in_drops, 3), (stream, 6), (file, 1), (alone, 8), (health, 5),
    (sleep, 3), (fail, 0.5), (bad, 2), (leave_early, 4), (leave_late, 4), (probe, 2),
    (ws_talk, 5), (ws_leave, 1),
]  # fmt: skip

__all__ = ["Client", "Gate", "Target", "Wrong"]
