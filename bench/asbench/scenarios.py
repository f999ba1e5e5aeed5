"""What the servers are asked for, and what the right answer is."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from asbench.load import Load

HELLO = b"Hello, World!"
JSON = {"message": "Hello, World!"}
DEPTH = 24
IDLE = 10_000
KIB, MIB = 1024, 1024 * 1024
# What a browser sends to a page of a site that it knows.
BROWSER = (
    ("Connection", "keep-alive"),
    ("sec-ch-ua", '"Chromium";v="142", "Not)A;Brand";v="24", "Google Chrome";v="142"'),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux"'),
    ("Upgrade-Insecure-Requests", "1"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-GB,en;q=0.9,de;q=0.8"),
    ("Cookie", "session=3f1c2a9d5b7e4f60a1b2c3d4e5f60718; theme=dark; consent=yes"),
)
HOST_FIELD = ("Host", "bench")


def message(path: str, fields: Iterable[tuple[str, str]] = (), body: bytes | None = None) -> bytes:
    """A request: POST if it has a body."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (HOST_FIELD, *fields)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def length_of(fields: Iterable[tuple[str, str]]) -> bytes:
    """What /headers answers to these and Host."""
    return b"%d" % sum(len(name) + len(value) for name, value in (HOST_FIELD, *fields))


@dataclass(frozen=True)
class Scenario:
    """A question, and who answers it."""

    name: str
    title: str
    load: Load
    answer: bytes | dict[str, str]  # a dict: as JSON
    apps: dict[str, str] = field(default_factory=dict)  # by interface
    constant: bool = False  # servers with a constant answer take part
    half_rate: bool = False  # at half of the rate that the server reaches
    generator: str = "http_load"
    growth: tuple[str, int] | None = None  # what grows, and how much of it this one has
    main: bool = True
    only: tuple[str, ...] = ()  # these servers; none: all

    def right(self, body: bytes) -> bool:
        """Whether an answer is the right one."""
        if isinstance(self.answer, bytes):
            return body == self.answer
        try:
            return bool(json.loads(body) == self.answer)
        except ValueError:
            return False


HELLO_APPS = {"asgi": "hello:asgi", "wsgi": "hello:wsgi"}
THREADED = {"threads": "hello:wsgi"}
ROUTES = {"asgi": "routes:asgi", "wsgi": "routes:wsgi"}
PLAIN = Load(message("/"))
LARGE_ANSWER = b"0123456789abcdef" * (MIB // 16)
BODY = bytes(range(256)) * 40  # 10 KiB

MAIN = [
    Scenario("plain", "hello", PLAIN, HELLO, HELLO_APPS | THREADED, constant=True),
    Scenario(
        "pipelined",
        f"hello, {DEPTH} deep",
        Load(message("/"), depth=DEPTH),
        HELLO,
        HELLO_APPS,
        constant=True,
    ),
    Scenario(
        "close",
        "new connection each",
        Load(message("/", [("Connection", "close")])),
        HELLO,
        HELLO_APPS,
        constant=True,
    ),
    Scenario(
        "idle",
        f"{IDLE:,} idle beside",
        Load(message("/"), idle=IDLE),
        HELLO,
        HELLO_APPS,
        constant=True,
    ),
    Scenario("rate", "half of the peak", PLAIN, HELLO, HELLO_APPS, constant=True, half_rate=True),
    Scenario(
        "headers", "12 headers read", Load(message("/headers", BROWSER)), length_of(BROWSER), ROUTES
    ),
    Scenario("echo", "10 KiB echo", Load(message("/echo", body=BODY)), BODY, ROUTES),
    Scenario(
        "large", "1 MiB answer", Load(message("/large"), connections=16), LARGE_ANSWER, ROUTES
    ),
    Scenario("stream", "64 × 1 KiB stream", Load(message("/stream")), b"x" * 64 * KIB, ROUTES),
    Scenario(
        "slow",
        "5 ms of sleep",
        Load(message("/slow"), connections=1000),
        b"slow",
        {"asgi": "routes:asgi", "threads": "routes:wsgi"},
        main=False,
    ),
    Scenario("wrk", "hello, by wrk", PLAIN, HELLO, HELLO_APPS, True, generator="wrk", main=False),
    Scenario(
        "wrk pipelined",
        f"hello, {DEPTH} deep, by wrk",
        Load(message("/"), depth=DEPTH),
        HELLO,
        HELLO_APPS,
        constant=True,
        generator="wrk",
        main=False,
    ),
]
FRAMEWORKS = [
    Scenario(
        title.lower(),
        title,
        Load(message(path)),
        JSON,
        {interface: f"json_{title.lower()}:{app}"},
        main=main,
    )
    for title, interface, path, app, main in (
        ("Starlette", "asgi", "/json", "app", True),
        ("FastAPI", "asgi", "/json", "app", True),
        ("Litestar", "asgi", "/json", "app", True),
        ("Django", "asgi", "/async", "asgi", False),
        ("Flask", "wsgi", "/json", "app", True),
        ("Pyramid", "wsgi", "/json", "app", True),
        ("Django", "wsgi", "/json", "app", True),
    )
]
GROWERS = ("asgiserver", "floor", "bare", "uvicorn", "granian", "freastal", "bjoern")


def fields_of(count: int) -> list[tuple[str, str]]:
    """So many header fields, of which Host is one."""
    return [(f"X-Field-{number}", "a value of some length") for number in range(count - 1)]


def growing(kind: str, amount: int, title: str, load: Load, answer: bytes) -> Scenario:
    """One point of a curve."""
    hello = kind == "connections"
    return Scenario(
        f"{kind} {amount}",
        title,
        load,
        answer,
        HELLO_APPS if hello else ROUTES,
        constant=hello,
        growth=(kind, amount),
        only=GROWERS,
    )


GROWTH = [
    *(
        growing("connections", n, f"{n:,} connections", Load(message("/"), connections=n), HELLO)
        for n in (10, 64, 100, 1000, 10_000)
    ),
    *(
        growing(
            "headers",
            n,
            f"{n} header field{'s'[: n - 1]}",
            Load(message("/headers", fields_of(n))),
            length_of(fields_of(n)),
        )
        for n in (1, 10, 30, 100)
    ),
    *(
        growing(
            "body",
            n,
            f"{n // KIB:,} KiB body",
            Load(message("/count", body=bytes(n)), connections=64 if n < MIB else 4),
            b"%d" % n,
        )
        for n in (KIB, 32 * KIB, MIB, 64 * MIB)
    ),
]
ALL = [*MAIN, *FRAMEWORKS, *GROWTH]
