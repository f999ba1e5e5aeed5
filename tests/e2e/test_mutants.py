"""The corpus, damaged at random places: whatever comes, the answers are well-formed and do not depend on how the
bytes were cut, and the server lives.

The damage depends on the case's name alone, so that a failure can be repeated.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cases import FOLDER, Case, growing, load_cases, whole
from support.client import RawClient, Response
from support.server import Server

MUTANTS = 4  # of each case
LONGEST = 3000  # bytes; the limits have tests of their own

# What parsers trip over.
PIECES = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b"\x0b", b"\x7f", b"\x80", b"\xff", b"0", b"-", b"+",
    b"%", b"%00", b",", b";", b"chunked", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n", b"0\r\n\r\n", b"ffffffffffffffff",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
]  # fmt: skip


def damaged(case: Case, others: list[Case]) -> Iterator[bytes]:
    chance = random.Random(zlib.crc32(case.id.encode()))
    for _ in range(MUTANTS):
        raw = case.raw
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(raw) + 1)
            end = min(len(raw), at + chance.randint(1, 12))
            raw = chance.choice(
                [
                    raw[:at] + chance.choice(PIECES) + raw[at:],
                    raw[:at] + chance.choice(PIECES) + raw[end:],
                    raw[:at] + raw[end:],
                    raw[:end] + raw[at:],
                    raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :],
                    raw[:at] + chance.choice(others).raw,
                ]
            )
        yield raw[:LONGEST]


def answers(server: Server, parts: list[bytes]) -> list[tuple[int, bytes]]:
    """All final responses until the server closes; each must be well-formed."""
    with server.raw() as client:
        try:
            for part in parts:
                client.send(part)
            client.shutdown()
        except OSError:
            pass
        got: list[tuple[int, bytes]] = []
        while response := next_response(client):
            got.append((response.status, response.body))
        return got


def next_response(client: RawClient) -> Response | None:
    if client.at_end():
        return None
    return client.recv_response(skip=(100,))


CASES = [case for case in load_cases() if len(case.raw) < LONGEST and b"HEAD" not in case.raw]
FILES = sorted(path.stem for path in Path(FOLDER).glob("*.toml"))


@pytest.mark.parametrize("file", FILES)
def test_mutants(shared: Callable[..., Server], backend: Any, file: str) -> None:
    server = shared(f"echo_{backend.interface}:app", **backend.options)
    for case in CASES:
        if not case.id.startswith(f"{file}:"):
            continue
        for raw in damaged(case, CASES):
            if b"HEAD" in raw:
                continue  # Its answer's bounds cannot be told from the answer alone.
            at_once, in_parts = answers(server, whole(raw)), answers(server, growing(raw))
            assert at_once == in_parts, f"{case.id}: {raw!r}"
            assert all(status < 500 or status in (501, 505) for status, _ in at_once), (
                f"{case.id}: {raw!r}"
            )
            for status, _ in at_once[:-1]:
                assert status == 200, f"{case.id}: something behind a refusal: {raw!r}"
            assert server.alive(), f"{case.id}: {raw!r}"
