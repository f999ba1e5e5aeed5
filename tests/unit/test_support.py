"""The tests' own client and corpus: what is wrong must not pass for right."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from support.cases import Case, byte_by_byte, growing, load_case, load_cases, whole
from support.client import MalformedResponse, RawClient


@pytest.fixture
def pair() -> Iterator[tuple[RawClient, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with RawClient(ours) as client, theirs:
        yield client, theirs


Pair = tuple[RawClient, socket.socket]

GOOD = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
    (b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n", 299, b""),
]

BAD = [
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nbad\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
]


@pytest.mark.parametrize(("raw", "status", "body"), GOOD)
def test_client_takes(pair: Pair, raw: bytes, status: int, body: bytes) -> None:
    client, server = pair
    for byte in raw:
        server.sendall(bytes([byte]))
    response = client.recv_response()
    assert (response.status, response.body) == (status, body)
    assert client.buffer == b""


@pytest.mark.parametrize("raw", BAD)
def test_client_refuses(pair: Pair, raw: bytes) -> None:
    client, server = pair
    server.sendall(raw)
    with pytest.raises(MalformedResponse):
        client.recv_response()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
    ],
)
def test_client_sees_a_cut_response(pair: Pair, raw: bytes) -> None:
    client, server = pair
    server.sendall(raw)
    server.close()
    with pytest.raises(MalformedResponse):
        client.recv_response()


def test_client_keeps_what_follows(pair: Pair) -> None:
    client, server = pair
    server.sendall(GOOD[0][0] + GOOD[1][0] + b"more")
    client.recv_response()
    client.recv_response()
    assert client.buffer == b"more"
    assert not client.at_end()


CORPUS = list(load_cases())


def test_corpus_is_large() -> None:
    assert len(CORPUS) > 400
    assert sum(case.refused is None for case in CORPUS) > 100
    assert {case.refused for case in CORPUS} >= {400, 413, 414, 417, 431, 501, 505}


@pytest.mark.parametrize(
    "name",
    [
        "CVE-2019-16785", "CVE-2019-16786", "CVE-2019-16789", "GHSA-4f7p-27jc-3c36", "GHSA-9298-4cf8-g4wj",
        "CVE-2020-7694", "CVE-2020-7695", "CVE-2020-10108", "CVE-2022-24801", "CVE-2022-39348", "CVE-2021-22959",
        "CVE-2021-22960", "CVE-2022-32213", "CVE-2022-32214", "CVE-2022-32215", "CVE-2023-30589", "CVE-2024-27982",
        "CVE-2025-23167", "CVE-2024-22019", "CVE-2025-43859", "CVE-2025-59822", "CVE-2024-1135", "CVE-2024-6827",
        "CVE-2026-48710", "CVE-2026-42544", "CVE-2023-24534", "CVE-2018-6758", "GHSA-gfw2-4jvh-wgfg",
        "GHSA-pjjw-qhg8-p2p9", "GHSA-45c4-8wx5-qw6w", "gunicorn 22", "gunicorn 26",
    ],
)  # fmt: skip
def test_history_has_a_case(name: str) -> None:
    assert any(re.search(rf"{re.escape(name)}\b", case.why) for case in CORPUS)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.id)
def test_cuts_lose_nothing(case: Case) -> None:
    for cut in (whole, byte_by_byte, growing):
        parts = cut(case.raw)
        assert b"".join(parts) == case.raw
        assert len(parts) < 4100


def test_a_case_with_a_mistyped_key_is_refused() -> None:
    table = {"name": "x", "why": "y", "raw": "GET / HTTP/1.1\r\n\r\n", "refused": 400}
    load_case("file", table)
    for wrong in ({"refuse": 400}, {"requests": [{"methd": "GET"}]}, {"after": "sometimes"}):
        with pytest.raises(AssertionError):
            load_case("file", {**table, **wrong})
