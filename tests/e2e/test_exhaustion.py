"""The short form of every attack of tests/exhaust: `make exhaust` has the long one, with its figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from exhaust.attacks import ATTACKS, BY_NAME, Attack
from exhaust.exhaust import SHORT, is_late, judge, run
from support.certificates import Authority
from support.client import SLOWNESS

# Where bodies go elsewhere, or threads tell of them; else one interface is enough here.
OTHERS_TOO = (
    "slow bodies", "bodies on a full disk", "bodies that fill the disk", "huge pipelines",
)  # fmt: skip
RUNS = [
    (attack, interface)
    for attack in ATTACKS
    for interface in attack.interfaces[: None if attack.name in OTHERS_TOO else 1]
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.memory,
    pytest.mark.plain("an attack has its own transport"),
]


@pytest.mark.parametrize(
    ("attack", "interface"), RUNS, ids=[f"{one.name}-{interface}" for one, interface in RUNS]
)
def test_promises_hold(authority: Authority, attack: Attack, interface: str) -> None:
    row = run(attack, interface, SHORT, authority, [])
    assert judge(row) == [], row
    assert row["opened"] > 0
    # How long others wait is judged by `make exhaust` on a machine that has nothing else to do.
    assert row["p99"] < 5 * SLOWNESS, row


def test_a_broken_promise_is_seen(authority: Authority) -> None:
    """A server without the time-out, held to it."""
    attack = dataclasses.replace(
        BY_NAME["slow heads"],
        given={"timeout_request_head": 0.0},
        lives=lambda _: 0.0,
        crowd=(5, 5),
    )
    broken = judge(run(attack, "asgi", SHORT, authority, []))
    assert len(broken) == 2
    assert broken[0].startswith("life ")
    assert broken[1].startswith("other answers: ")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"rss": 101}, "rss 101 > 100"),
        ({"files": 11}, "files 11 > 10"),
        ({"log": 11}, "log 11 > 10"),
        ({"disk": 8}, "disk 8 > 7"),
        ({"left": 100}, "100 descriptors stay open"),
        ({"failures": ["reset"]}, "failed: reset"),
    ],
)
def test_the_judge(change: dict[str, Any], word: str) -> None:
    row = {
        "rss": 1, "rss_bound": 100, "files": 1, "files_bound": 10, "life": 1, "life_bound": None,
        "log": 0, "log_bound": 10, "disk": 7, "disk_bound": 7, "left": 0, "stays": False, "wrong": {}, "failures": [],
    }  # fmt: skip
    assert judge(row) == []
    assert judge({**row, **change}) == [word]


def test_who_waits_too_long() -> None:
    assert not is_late({"calm_work": 0.001, "work": 0.009})
    assert is_late({"calm_work": 0.001, "work": 0.011})
