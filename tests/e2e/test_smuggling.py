"""The tricks of tests/smuggling.toml on front ends before the server; support/smuggling.py tells how they are judged.
`make smuggling` tries all front ends over both interfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.fronts import FOLDER, FRONTS, Front, Running, model
from support.gullible import Gullible
from support.pace import in_time
from support.relay import Recorded, Relay
from support.smuggling import (
    TOKEN,
    Verdicts,
    judge_client,
    judge_connection,
    load_tricks,
    read_answers,
    run,
)

BY_NAME = {front.name: front for front in FRONTS}
TUNNELS = ("upgrade", "h2c", "early-refusal")
BODIES = ("early", "expect", "body-of", "half-a-body", "pipelined")
RUNS = [  # and the tricks that are meant for that front end; ("",): all
    ("model-length", "asgi", ("",)),
    ("model-coding", "wsgi", ("",)),
    ("model-early", "asgi", BODIES),
    ("model-tunnel", "asgi", TUNNELS),
    ("model-tunnel", "wsgi", TUNNELS),
    ("nginx", "wsgi", ("",)),
    ("nginx-lenient", "asgi", ("",)),
    ("haproxy", "asgi", ("",)),
    ("haproxy-lenient", "wsgi", ("",)),
]


@pytest.mark.slow
@pytest.mark.plain("front ends speak HTTP to the server here")
@pytest.mark.parametrize(("name", "interface", "meant"), RUNS)
def test_nothing_is_smuggled(serve: Any, name: str, interface: str, meant: tuple[str, ...]) -> None:
    front = BY_NAME[name]
    if not front.is_here:
        pytest.skip(f"there is no {front.program}")
    tricks = [trick for trick in load_tricks() if trick.name.startswith(meant)]
    server = serve(f"smuggling_{interface}:app", "--no-access-log", interface=interface)
    with Relay((server.host, server.port)) as relay, Running(front, relay.port) as running:
        verdicts = run(tricks, running, relay.connections)
    assert not verdicts.lost, verdicts.lost
    assert not verdicts.died, verdicts.died
    assert len(verdicts.held) > len(tricks) / 6


@pytest.mark.parametrize("front", FRONTS, ids=lambda front: front.name)
def test_front_ends_can_be_had(front: Front) -> None:
    """Each has its configuration, and what `make smuggling` installs for it."""
    assert front.config is None or (FOLDER / front.config).exists()
    setup = Path(__file__).resolve().parents[2] / "tools" / "setup.sh"
    wanted = f"\n{front.program} {front.package}\n"
    assert front.package is None or wanted in setup.read_text()


# --- the judge sees what it must ----------------------------------------------------------------------


@pytest.mark.plain("front ends speak HTTP to the server here")
def test_the_judge_sees_what_is_left_of_a_body(serve: Any) -> None:
    server = serve("smuggling_asgi:app", "--limit-body-discard", "1000", interface="asgi")
    tricks = [trick for trick in load_tricks() if trick.name == "early-answer-at-once"]
    with (
        Relay((server.host, server.port)) as relay,
        Running(model("patient"), relay.port) as running,
    ):
        assert run(tricks, running, relay.connections).lost


def betrayed(front: Front, server: str, *names: str) -> Verdicts:
    """What these tricks do where the server is as bad as the front end, the other way."""
    tricks = [trick for trick in load_tricks() if trick.name in names]
    assert len(tricks) == len(names)
    with (
        Gullible(server) as bad,
        Relay(bad.address) as relay,
        Running(front, relay.port) as running,
    ):
        return run(tricks, running, relay.connections)


def sees(front: Front, server: str, *names: str) -> Verdicts:
    """That each of these tricks works; a front end that is late seems to wait for more."""
    found: list[Verdicts] = []

    def attempt() -> bool:
        found.append(betrayed(front, server, *names))
        return set(found[-1].lost) == set(names)

    in_time(attempt)
    return found[-1]


def test_the_judge_sees_cl_te() -> None:
    assert not betrayed(model("length"), "coding", "length:plain", "te-te:plain").lost
    verdicts = sees(model("length"), "coding", "cl-te:plain", "cl-te:prefixed")
    assert any("not forwarded" in problem for problem in verdicts.lost["cl-te:plain"])


def test_the_judge_sees_te_cl() -> None:
    assert not betrayed(model("coding"), "length", "length:plain", "te-te:plain").lost
    sees(model("coding"), "length", "te-cl:plain", "te-cl:stacked")


def test_the_judge_sees_tunnels() -> None:
    assert not betrayed(model("tunnel"), "length", "length:plain", "pipelined:five").lost
    sees(model("tunnel"), "length", "upgrade:version-mismatch", "upgrade-at-once:denied")


SEEN = (
    b'HTTP/1.1 200 OK\r\nX-Seen: 1 POST /t000001\r\nContent-Length: %d\r\n\r\n%b'
)  # fmt: skip


def answer(headers: str, body: str = "") -> bytes:
    text = f'{{"method": "POST", "target": "/t000001", "headers": {headers}, "body": "{body}"}}'.encode()
    return SEEN % (len(text), text)


@pytest.mark.parametrize(
    ("sent", "answered", "problem"),
    [
        (1, answer(f'[["x-front", "{TOKEN}"]]'), None),
        (0, answer("[]"), "1 responses to 0 requests"),
        (1, answer("[]"), "not forwarded by the front end"),
        (2, answer(f'[["x-front", "{TOKEN}"]]', f"GET / x-front: {TOKEN}"), "a part of it"),
        (2, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 2, "behind a refusal"),
    ],
)
def test_connections_are_judged(sent: int, answered: bytes, problem: str | None) -> None:
    record = Recorded(bytearray(TOKEN.encode() * sent), bytearray(answered), True)
    found = list(judge_connection(record))
    assert any(problem in one for one in found) if problem else not found, found


def test_answers_are_judged() -> None:
    answers = read_answers(answer("[]") * 2)
    assert list(judge_client(answers[:1], 1)) == []
    assert "order" in "".join(judge_client(answers, 1))
    assert "the answer to /t000001" in "".join(judge_client(answers[:1], 2))
