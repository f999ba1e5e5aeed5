"""The core's TLSContext: what it tells of its certificates, and what it does not take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority, Pair

from asgiserver import _core


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Authority(tmp_path_factory.mktemp("certificates")).here


def context(pair: Pair, **more: Any) -> _core.TLSContext:
    return _core.TLSContext(str(pair.certfile), str(pair.keyfile), **more)


def test_certificates(pair: Pair, tmp_path: Path) -> None:
    pair.copy(tmp_path, "other")
    first, second = context(pair, sni_dir=str(tmp_path)).certificates
    assert first[0] == str(pair.certfile)
    assert set(first[1]) >= {"localhost"}
    assert first[2].endswith("Z")
    assert second[0] == str(tmp_path / "other.pem")
    assert second[1:] == first[1:]


@pytest.mark.parametrize("alpn", [(), ["http/1.1"], ("a" * 255, "b")])
def test_alpn(pair: Pair, alpn: Sequence[str]) -> None:
    assert context(pair, alpn=alpn)


@pytest.mark.parametrize(
    ("more", "kind", "word"),
    [
        ({"alpn": "http/1.1"}, TypeError, "alpn"),
        ({"alpn": [""]}, TypeError, "alpn"),
        ({"alpn": ["a" * 256]}, TypeError, "alpn"),
        ({"alpn": [b"http/1.1"]}, TypeError, "alpn"),
        ({"alpn": 5}, TypeError, "iterable"),
        ({"password": 5}, TypeError, "password"),
        ({"cert_reqs": 3}, ValueError, "cert_reqs"),
        ({"cert_reqs": -1}, ValueError, "cert_reqs"),
        ({"reload_interval": -1}, ValueError, "reload_interval"),
        ({"reload_interval": float("nan")}, ValueError, "reload_interval"),
        ({"reload_interval": 86401}, ValueError, "reload_interval"),
        ({"ticket_key": b"x" * 79}, ValueError, "ticket_key"),
    ],
)
def test_not_taken(pair: Pair, more: dict[str, Any], kind: type[Exception], word: str) -> None:
    with pytest.raises(kind, match=word):
        context(pair, **more)


def test_little_patience(pair: Pair) -> None:
    """A millisecond is the shortest time between two looks."""
    assert context(pair, reload_interval=1e-9)
