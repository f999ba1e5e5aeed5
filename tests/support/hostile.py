"""Programs for tests/apps/hostile_*.py, as strategies of hypothesis: what an application may do wrong, as
plain data."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# How many programs a test tries. More of them, and other ones each time: HOSTILE_EXAMPLES=5000.
EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "0"))

hostile = settings(
    max_examples=EXAMPLES or 100,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

METHODS = [
    "__iter__",
    "__next__",
    "__len__",
    "__getitem__",
    "__contains__",
    "__eq__",
    "__hash__",
    "__index__",
    "__int__",
    "__bool__",
    "__str__",
    "__repr__",
    "__bytes__",
    "__buffer__",
    "__del__",
    "__getattribute__",
    "__float__",
    "__await__",
    "__lt__",
    "__add__",
    "get",
    "keys",
    "items",
    "lower",
    "encode",
]
DEEDS = [
    "gc",
    "clear",
    "grow",
    "switch",
    "send",
    "start",
    "accept",
    "close",
    "receive",
    "cancel",
    "scope",
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 1000),
    st.sampled_from([1 << 31, 1 << 63, -(1 << 63), 1 << 70, 1.5, float("nan")]),
    st.text("ab\r\n\0 :é€\ud800", max_size=5),
)
buffers = st.builds(
    lambda kind, text: {"make": kind, "of": text},
    st.sampled_from(
        ["bytes", "bytes", "bytearray", "view", "strided", "words", "released", "float"]
    ),
    st.text("ab\r\n\0 :\xff", max_size=5),
)


def evil(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda value, how, names, deed: {
            "make": "evil",
            "of": value,
            "how": how,
            "names": names,
            "deed": deed,
        },
        of,
        st.sampled_from(["raise", "recurse", "wrong", "deed", "deed"]),
        st.lists(st.sampled_from(METHODS), min_size=1, max_size=3, unique=True),
        st.sampled_from(DEEDS),
    )


def compound(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.lists(of, max_size=3)
    made = st.builds(
        lambda kind, value: {"make": kind, "of": value},
        st.sampled_from(["tuple", "generator", "itself"]),
        items,
    )
    tables = st.lists(st.tuples(of, of).map(list), max_size=3)
    return st.one_of(items, made, tables.map(lambda pairs: {"make": "dict", "of": pairs}), evil(of))


anything = st.recursive(st.one_of(scalars, buffers), compound, max_leaves=6)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """That, now and then with something wrong about it, or something else altogether."""
    choices = {9: evil(usual), 10: anything}
    return st.integers(0, 10).flatmap(lambda choice: choices.get(choice, usual))


def octets(*texts: str) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda kind, text: {"make": kind, "of": text},
        st.sampled_from(["bytes", "bytes", "bytearray", "view"]),
        st.sampled_from(texts),
    )


def pairs(names: st.SearchStrategy[Any], values: st.SearchStrategy[Any]) -> Any:
    pair = st.builds(
        lambda name, value: {"make": "tuple", "of": [name, value]}, mostly(names), mostly(values)
    )
    return mostly(
        st.one_of(
            st.lists(mostly(pair), max_size=3),
            st.lists(pair, max_size=3).map(lambda items: {"make": "generator", "of": items}),
        )
    )


def message(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A message of that type, some of whose keys and values misbehave, and some are missing."""
    rows = [
        st.tuples(mostly(st.just(name)) if name == "type" else st.just(name), mostly(value)).map(
            list
        )
        for name, value in {"type": st.just(kind), **fields}.items()
    ]
    chosen = st.tuples(*(st.one_of(row, row, row, row, row, st.none()) for row in rows))
    return mostly(
        chosen.map(lambda rows: {"make": "dict", "of": [row for row in rows if row is not None]})
    )


NAMES = (
    *["x-a", "content-type"] * 8,
    "content-length",
    "Transfer-Encoding",
    "connection",
    "date",
    "a b",
    "",
    "x\r\ny",
)
VALUES = (*["1", "text"] * 8, "0", "5", "chunked", "close", "a\r\nb: c", "\0", " a ", "\xff")

body_messages = message(
    "http.response.body",
    body=octets("", "a", "hello", "x" * 20000),
    more_body=st.booleans(),
)
http_messages = st.one_of(
    message(
        "http.response.start",
        status=st.sampled_from([200, 204, 304, 404, 100, 999, 1000]),
        headers=pairs(octets(*NAMES), octets(*VALUES)),
        trailers=st.booleans(),
    ),
    *[body_messages] * 3,
    message(
        "http.response.trailers",
        headers=pairs(octets(*NAMES), octets(*VALUES)),
        more_trailers=st.booleans(),
    ),
    message("http.response.pathsend", path=st.sampled_from(["/etc/hostname", "/nowhere", ""])),
    message("http.response.early_hint", links=st.lists(octets("</a>"), max_size=2)),
)
websocket_messages = st.one_of(
    message(
        "websocket.accept",
        subprotocol=st.sampled_from(["a", "b", "", "a b"]),
        headers=pairs(octets("x-a", "upgrade", "sec-websocket-accept", ""), octets(*VALUES)),
    ),
    message("websocket.send", text=st.sampled_from(["", "hé", "\ud800", "x" * 20000])),
    message("websocket.send", bytes=octets("", "abc", "x" * 20000)),
    message(
        "websocket.close", code=st.integers(990, 5000), reason=st.sampled_from(["", "é" * 100])
    ),
    message("websocket.http.response.start", status=st.just(403), headers=st.just([])),
    message("websocket.http.response.body", body=octets("no")),
)


def plain(**message: Any) -> Any:
    return {"make": "dict", "of": [list(item) for item in message.items()]}


# What makes the rest of a program matter.
BEGIN = plain(type="http.response.start", status=200)
END = plain(type="http.response.body")
ACCEPT = plain(type="websocket.accept")

SENDING = [
    "send",
    "send",
    "send",
    "send",
    "send",
    "plain-send",
    "spawn",
    "drop",
    "twice",
    "throw",
    "step",
    "close-awaitable",
    "thread",
    "stale",
]
OTHER = [
    "receive",
    "spawn-receive",
    "thread-receive",
    "stale-receive",
    "keep",
    "sleep",
    "cancel",
    "gc",
    "raise",
]


def asgi_programs(messages: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    acts = st.one_of(
        st.tuples(st.sampled_from(SENDING), messages),
        st.tuples(st.sampled_from(SENDING), messages),
        st.tuples(st.sampled_from(OTHER)),
        st.tuples(st.sampled_from(["headers", "return"]), anything),
    )
    return st.builds(
        lambda first, rest, last: [*first, *rest, *last],
        st.sampled_from([[], [["send", BEGIN]], [["send", ACCEPT]]]),
        st.lists(acts.map(list), min_size=1, max_size=6),
        st.sampled_from([[], [["send", END]], [["send", END]]]),
    )


statuses = st.sampled_from(
    ["200 OK", "200 OK", "404 X", "204 No Content", "304 X", "200", "99 x", "200 \r\na: b", "x"]
)
starts = st.tuples(
    st.sampled_from(["start", "start", "thread-start", "stale-start"]),
    mostly(statuses),
    pairs(st.sampled_from(NAMES), st.sampled_from(VALUES)),
)
starts_again = st.tuples(
    st.just("start"),
    mostly(statuses),
    pairs(st.sampled_from(NAMES), st.sampled_from(VALUES)),
    anything,
)
bodies = mostly(
    st.sampled_from(["", "a", "hello", "x" * 20000]).map(lambda text: {"make": "bytes", "of": text})
)
results = st.tuples(
    st.just("result"),
    st.sampled_from(["list", "value", "iterator", "iterator", "file"]),
    st.sampled_from(["", "", "iter", "next", "close", "read", "fileno", "bad-fd", "no-int"]),
    st.sampled_from(DEEDS),
    st.lists(bodies, max_size=3),
)
wsgi_acts = st.one_of(
    starts,
    starts,
    starts_again,
    st.tuples(st.sampled_from(["write", "thread-write", "stale-write", "errors", "input"]), bodies),
    st.tuples(st.sampled_from(["thread-input", "stale-input", "keep", "raise"])),
    st.tuples(st.just("input"), anything),
)
wsgi_programs = st.builds(
    lambda acts, result: [*acts, result],
    st.builds(
        lambda first, rest: [*first, *rest],
        st.sampled_from([[], [["start", "200 OK", []]]]),
        st.lists(wsgi_acts.map(list), max_size=4),
    ),
    results.map(list),
)


def target(program: Any) -> str:
    return "/?" + base64.urlsafe_b64encode(json.dumps(program).encode()).decode()
