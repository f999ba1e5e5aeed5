"""Whom to trust, as the core takes it: ``forwarded_allow_ips``."""

import ipaddress
from collections.abc import Sequence
from typing import TypedDict

Network = tuple[bytes, int]  # the address (4 or 16 bytes; none: Unix sockets), bits of the prefix

_UNIX: Network = (b"", 0)
_ALL: tuple[Network, ...] = ((bytes(4), 0), (bytes(16), 0), _UNIX)


class ProxySettings(TypedDict, total=False):
    """What the core believes of the proxies in front of it.

    ``trusted``: whose fields count. ``fields``: X-Forwarded-* and Forwarded do. ``schemes``: pairs
    of a field's name and the value with which it says https, any other says http (gunicorn's
    ``secure_scheme_headers``); where there are any, they alone tell the scheme, and a request in
    which they contradict each other is answered with 400. ``protocol``: connections begin with a
    header of the PROXY protocol, ``"v1"``, ``"v2"`` or ``"auto"`` (either), from the peers in
    ``protocol_trusted`` (default: ``trusted``); ``"off"``: they do not.
    """

    trusted: Sequence[Network]
    fields: bool
    schemes: Sequence[tuple[bytes, bytes]]
    protocol: str
    protocol_trusted: Sequence[Network]


def parse(text: str) -> list[Network]:
    """The networks of a list: addresses, networks, ``unix`` and ``*``, with commas between them.

    Raises ValueError, naming what is none of these.
    """
    networks: list[Network] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word == "*":
            networks += _ALL
        elif word == "unix":
            networks.append(_UNIX)
        else:
            networks.append(_parse_network(word))
    return networks


def _parse_network(word: str) -> Network:
    try:
        network = ipaddress.ip_network(word)
    except ValueError as error:
        if "host bits set" in str(error):
            raise ValueError(
                f"{word!r} has bits behind its prefix; {_meant(word)} is meant?"
            ) from None
        raise ValueError(f"{word!r} is no address, network, unix or *") from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.scope_id is not None:
        raise ValueError(f"{word!r} has a zone, which no proxy tells: leave it out")
    return network.network_address.packed, network.prefixlen


def _meant(word: str) -> str:
    return str(ipaddress.ip_network(word, strict=False))
