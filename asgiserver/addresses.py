"""Where to listen, as users write it: ``HOST:PORT``, ``unix:PATH``, ``fd://N``."""

from dataclasses import dataclass, field

_DEFAULT_PORT = 8000


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a TCP host and port, a Unix socket's path, or an inherited descriptor.

    ``label`` is how the user wrote it, for messages.
    """

    label: str = field(compare=False)
    host: str = ""
    port: int = 0
    path: str | None = None
    fd: int | None = None


def parse(text: str, label: str = "") -> Address:
    """``HOST:PORT``, ``[HOST]:PORT``, ``HOST``, ``:PORT`` (all addresses), ``unix:PATH`` or
    ``fd://N``. Raises ValueError.
    """
    label = label or f"--bind {text}"
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise ValueError(f"{text!r} has no path")
        return Address(label, path=path)
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not _is_number(number):
            raise ValueError(f"{text!r} is not fd:// and a number")
        return Address(label, fd=int(number))
    host, port = _split_host(text)
    if not _is_number(port) or int(port) > 65535:
        raise ValueError(f"{text!r}: {port!r} is not a port")
    return Address(label, "::" if host in ("", "*") else host, int(port))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _split_host(text: str) -> tuple[str, str]:
    if "/" in text:
        raise ValueError(f"{text!r} is not HOST:PORT, unix:PATH or fd://N")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [HOST]:PORT")
        return host, rest[1:] if rest else str(_DEFAULT_PORT)
    if text.count(":") > 1:
        raise ValueError(f"{text!r}: an IPv6 address needs brackets, as in [::1]:8000")
    host, colon, port = text.partition(":")
    return host, port if colon else str(_DEFAULT_PORT)
