"""``forwarded_allow_ips``: what it may list, and what the core gets of it."""

import re
from typing import Any

import pytest

from asgiserver import Config
from asgiserver.networks import Network, parse

LOOPBACK: Network = (b"\x7f\0\0\1", 32)
ALL: list[Network] = [(bytes(4), 0), (bytes(16), 0), (b"", 0)]


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("", []),
        (" , ", []),
        ("127.0.0.1", [LOOPBACK]),
        (" 127.0.0.1 ,unix, ", [LOOPBACK, (b"", 0)]),
        ("10.0.0.0/8", [(b"\x0a\0\0\0", 8)]),
        ("10.0.0.0/255.0.0.0", [(b"\x0a\0\0\0", 8)]),
        ("2001:db8::/32", [(b"\x20\x01\x0d\xb8" + bytes(12), 32)]),
        ("::ffff:127.0.0.1", [(bytes(10) + b"\xff\xff\x7f\0\0\1", 128)]),
        ("*", ALL),
    ],
)
def test_lists(text: str, networks: list[Network]) -> None:
    assert parse(text) == networks


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("evil", "'evil' is no address, network, unix or *"),
        ("127.0.0.1, evil", "'evil' is no address, network, unix or *"),
        ("127.0.0.1 ::1", "'127.0.0.1 ::1' is no address"),
        ("127.0.0.256", "'127.0.0.256' is no address"),
        ("127.0.0.01", "'127.0.0.01' is no address"),
        ("127.0.0.1:80", "'127.0.0.1:80' is no address"),
        ("10.0.0.0/33", "'10.0.0.0/33' is no address"),
        ("[::1]", "'[::1]' is no address"),
        ("unix:/run/s", "'unix:/run/s' is no address"),
        ("10.1.0.0/8", "'10.1.0.0/8' has bits behind its prefix; 10.0.0.0/8 is meant?"),
        ("fe80::1%eth0", "'fe80::1%eth0' has a zone"),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"forwarded_allow_ips: {why}")):
        Config("main:app", forwarded_allow_ips=text)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"fields": True, "protocol": "off"}),
        ({"proxy_headers": False}, {"fields": False, "protocol": "off"}),
        ({"proxy_protocol": "auto"}, {"fields": True, "protocol": "auto"}),
    ],
)
def test_settings_of_the_core(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    trusted = parse("127.0.0.1,::1,unix")
    assert Config("main:app", **settings).core_proxy() == {"trusted": trusted, **expected}


def test_nobody_to_send_a_proxy_header() -> None:
    with pytest.raises(ValueError, match="proxy_protocol: forwarded_allow_ips trusts nobody"):
        Config("main:app", proxy_protocol="v1", forwarded_allow_ips=",")
