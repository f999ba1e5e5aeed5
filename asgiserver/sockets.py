"""The listening sockets: bound before the application is imported, listening once it is ready.

A port in use is thus found before a slow import, while clients are refused rather than kept waiting
until there is somebody to serve them.
"""

import contextlib
import errno
import os
import socket
import stat

from . import holders
from .config import Config
from .errors import StartError

_FREE_PORTS_TRIED = 50
_SAME_PORT_TRIES = 20


class Listeners:
    """Bound sockets. Close it in the end: the file of a Unix socket is removed then."""

    def __init__(self, sockets: list[socket.socket], path: str | None = None) -> None:
        self.sockets = sockets
        self._path = os.path.abspath(path) if path is not None else None
        self._file = _identity(self._path)

    def listen(self, backlog: int) -> None:
        """From now on clients can connect. Raises StartError when another process was faster."""
        for sock in self.sockets:
            try:
                sock.listen(backlog)
            except OSError as error:
                raise _explained(error, sock.getsockname()) from None

    def close(self) -> None:
        """Idempotent."""
        for sock in self.sockets:
            sock.close()
        self.sockets = []
        if self._path is not None and _identity(self._path) == self._file:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._path = None


def bind(config: Config) -> Listeners:
    """Binds what ``config`` names: an inherited socket, a Unix socket, or a TCP port on each
    address.

    Raises StartError.
    """
    if config.fd is not None:
        return Listeners([_inherited(config.fd)])
    if config.uds is not None:
        return Listeners([_unix(config.uds, config.uds_mode)], config.uds)
    return Listeners(_tcp(config.host, config.port))


def _identity(path: str | None) -> tuple[int, int] | None:
    """Which file a path is, to tell it from one that somebody put there later."""
    if path is None:
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


# --- TCP ---


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """All addresses of ``host``. ``::`` means all of both families, each with a socket of its own,
    so that IPv4 clients appear by their IPv4 addresses.
    """
    host = host.removeprefix("[").removesuffix("]")
    hosts = ["::", "0.0.0.0"] if host == "::" else [host]
    found: dict[tuple[socket.AddressFamily, tuple[str, int]], None] = {}
    for one in hosts:
        try:
            infos = socket.getaddrinfo(
                one or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StartError(f'--host {host}: no address has that name ("{reason}").') from None
        for family, _, _, _, address in infos:
            if family in (socket.AF_INET, socket.AF_INET6):
                found[family, address] = None  # type: ignore[index]
    return list(found)


def _tcp(host: str, port: int) -> list[socket.socket]:
    addresses = _addresses(host, port)
    for tries_left in reversed(range(_SAME_PORT_TRIES)):
        sockets: list[socket.socket] = []
        try:
            _bind_all(addresses, port, sockets)
            return sockets
        except OSError as error:
            for sock in sockets:
                sock.close()
            # The kernel's choice for the first address need not be free at the next.
            if port == 0 and sockets and error.errno == errno.EADDRINUSE and tries_left:
                continue
            raise _explained(error, (host, port)) from None
    raise AssertionError("unreachable")


def _bind_all(
    addresses: list[tuple[socket.AddressFamily, tuple[str, int]]],
    port: int,
    sockets: list[socket.socket],
) -> None:
    """Binds all, to the same port. An address that this machine lacks (often ::1 of localhost) is
    left out, unless it is the only one.
    """
    lacking: OSError | None = None
    for family, address in addresses:
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bound(family, (address[0], chosen, *address[2:])))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            lacking = error
    if not sockets and lacking is not None:
        raise lacking


def _bound(family: socket.AddressFamily, address: tuple[str | int, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else connections of an earlier run, in TIME_WAIT, would hold the port for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _free_port(host: str, port: int) -> int | None:
    """A port above ``port`` that could be bound now, on all addresses of the host."""
    for candidate in range(port + 1, min(port + 1 + _FREE_PORTS_TRIED, 65536)):
        if holders.port_is_listening(candidate):
            continue
        sockets: list[socket.socket] = []
        try:
            _bind_all(_addresses(host, candidate), candidate, sockets)
            return candidate
        except (OSError, StartError):
            continue
        finally:
            for sock in sockets:
                sock.close()
    return None


# --- Unix sockets and inherited ones ---


def _unix(path: str, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.setblocking(False)
        sock.bind(path)
        os.chmod(path, mode)  # Nobody can connect before listen().
    except OSError as error:
        sock.close()
        raise _explained(error, path) from None
    except StartError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Removes the socket file of a server that is gone; StartError for anything else there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StartError(f"--uds {path}: the file exists and is not a socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # A full backlog must not keep us waiting.
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if not holders.is_bound(path):
                os.unlink(path)
                return
        except BlockingIOError:
            pass
    raise StartError(f"Cannot listen at {path}: it is in use{holders.path_holder(path)}.")


def _inherited(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        what = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise StartError(f"--fd {descriptor}: the descriptor {what}.") from None
    if sock.type != socket.SOCK_STREAM or sock.family not in (
        socket.AF_INET, socket.AF_INET6, socket.AF_UNIX,
    ):  # fmt: skip
        sock.detach()
        raise StartError(f"--fd {descriptor}: the descriptor is not a TCP or Unix stream socket.")
    sock.setblocking(False)
    return sock


# --- what went wrong ---


def _explained(error: OSError, address: object) -> StartError:
    """The line for an error of bind() or listen()."""
    if isinstance(address, tuple):
        host, port = address[:2]
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return StartError(f"Cannot listen at {where}: {_tcp_reason(error, host, port)}")
    path = os.fsdecode(address) if isinstance(address, bytes) else str(address)
    return StartError(f"Cannot listen at {path}: {_unix_reason(error, path)}")


def _tcp_reason(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            free = _free_port(host, port)
            hint = f" Free: --port {free}" if free is not None else ""
            return f"the port is in use{holders.port_holder(port)}.{hint}"
        case errno.EACCES:
            return "ports below 1024 need root's rights or CAP_NET_BIND_SERVICE. Try --port 8000"
        case errno.EADDRNOTAVAIL:
            return "it is no address of this machine. 127.0.0.1 always is, 0.0.0.0 means all."
        case _:
            return f"{error.strerror or error}."


def _unix_reason(error: OSError, path: str) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"there is no folder {os.path.dirname(path) or '.'}."
        case errno.EADDRINUSE:
            return f"it is in use{holders.path_holder(path)}."
        case _:
            return f"{error.strerror or error}."
