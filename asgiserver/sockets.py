"""The listening sockets: bound before the application is imported, listening once it is ready.

A port in use is thus found before a slow import, while clients are refused rather than kept waiting
until there is somebody to serve them.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence

from . import holders
from .addresses import Address, parse
from .config import Config
from .errors import StartError

_FREE_PORTS_TRIED = 50
_SAME_PORT_TRIES = 20


def addresses(config: Config) -> list[Address]:
    """What ``config`` names."""
    if config.bind:
        return list(dict.fromkeys(parse(text) for text in config.bind))
    if config.fd is not None:
        return [Address(f"--fd {config.fd}", fd=config.fd)]
    if config.uds is not None:
        return [Address(f"--uds {config.uds}", path=config.uds)]
    return [Address(f"--host {config.host}", config.host, config.port)]


class _Bound:
    """The sockets of one address: one for each of a name's addresses, and that for each worker
    where they do not share them."""

    def __init__(self, address: Address, sets: list[list[socket.socket]]) -> None:
        self.address = address
        self.sets = sets
        self.path = os.path.abspath(address.path) if address.path is not None else None
        self.file = _identity(self.path)
        self.owner = os.getpid()

    def stop(self) -> None:
        for sock in (sock for one in self.sets for sock in one):
            sock.close()

    def close(self) -> None:
        self.stop()
        # A worker that inherited the sockets leaves the file to the process that made it.
        mine = self.owner == os.getpid()
        if mine and self.path is not None and _identity(self.path) == self.file:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.path = None


class Listeners:
    """Bound sockets. Close it in the end: the file of a Unix socket is removed then."""

    def __init__(self, bound: list[_Bound]) -> None:
        self._bound = bound
        self._slot, self._workers = 0, 1

    def take_share(self, slot: int, workers: int) -> None:
        """Where each worker has sockets of its own: this is the one at a place counted from 0.

        There can be more of them than sockets, and fewer, after the number has changed.
        """
        self._slot, self._workers = slot, workers

    @property
    def sockets(self) -> list[socket.socket]:
        """One for each address of a name; this worker's where each has its own. None once stopped."""
        shares = (self._share(one.sets) for one in self._bound)
        return [sock for share in shares for sock in share if sock.fileno() >= 0]

    def _share(self, sets: list[list[socket.socket]]) -> list[socket.socket]:
        share = sets[self._slot :: self._workers] or [sets[self._slot % len(sets)]]
        return [sock for one in share for sock in one]

    @property
    def paths(self) -> list[str]:
        """Those of Unix sockets that were made here."""
        return [one.path for one in self._bound if one.path is not None]

    def listen(self, backlog: int) -> None:
        """From now on clients can connect. Raises StartError when another process was faster."""
        for sock in self.sockets:
            try:
                sock.listen(backlog)
            except OSError as error:
                raise _explained(error, sock.getsockname()) from None

    def stop(self) -> None:
        """From now on clients are refused, as far as no other process listens on the same sockets,
        rather than left to wait for somebody who accepts them no more. Idempotent.
        """
        for one in self._bound:
            one.stop()

    def close(self, but: "Listeners | None" = None) -> None:
        """All, or all that the other one does not use too. Idempotent."""
        kept = but._bound if but is not None else []
        for one in self._bound:
            if one not in kept:
                one.close()
        self._bound = []

    def bound_to(self, address: Address) -> _Bound | None:
        return next((one for one in self._bound if one.address == address), None)


def bind(config: Config, workers: int = 1, present: Listeners | None = None) -> Listeners:
    """Binds what ``config`` names: inherited sockets, Unix sockets, and TCP ports on each address
    of a name; with ``reuse_port``, TCP ports once for each of the workers. What is bound at
    ``present`` already is used on.

    Raises StartError.
    """
    listeners = Listeners([])
    try:
        for address in addresses(config):
            bound = present.bound_to(address) if present is not None else None
            if bound is None:
                bound = _Bound(address, _bind(address, config, workers))
            listeners._bound.append(bound)
    except BaseException:
        listeners.close(but=present)
        raise
    return listeners


def adopt(given: Sequence[socket.socket]) -> Listeners:
    """Sockets that the program has bound; they are the server's from now on. Raises StartError."""
    for sock in given:
        _check_kind(sock, "sockets")
        sock.setblocking(False)
    return Listeners([_Bound(Address("sockets"), [[sock]]) for sock in given])


def _bind(address: Address, config: Config, workers: int) -> list[list[socket.socket]]:
    if address.fd is not None:
        return [[_inherited(address.fd, address.label)]]
    if address.path is not None:
        return [[_unix(address.path, config.uds_mode, address.label)]]
    first = _tcp(address, config.reuse_port)
    sets = [first]
    if config.reuse_port:
        for _ in range(workers - 1):
            sets.append([_bound(sock.family, sock.getsockname(), True) for sock in first])
    return sets


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


def _resolve(
    host: str, port: int, label: str
) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
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
            raise StartError(f'{label}: no address has that name ("{reason}").') from None
        for family, _, _, _, address in infos:
            if family in (socket.AF_INET, socket.AF_INET6):
                found[family, address] = None  # type: ignore[index]
    return list(found)


def _tcp(address: Address, reuse_port: bool) -> list[socket.socket]:
    host, port = address.host, address.port
    found = _resolve(host, port, address.label)
    for tries_left in reversed(range(_SAME_PORT_TRIES)):
        sockets: list[socket.socket] = []
        try:
            _bind_all(found, port, sockets, reuse_port)
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
    found: list[tuple[socket.AddressFamily, tuple[str, int]]],
    port: int,
    sockets: list[socket.socket],
    reuse_port: bool = False,
) -> None:
    """Binds all, to the same port. An address that this machine lacks (often ::1 of localhost) is
    left out, unless it is the only one.
    """
    lacking: OSError | None = None
    for family, address in found:
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bound(family, (address[0], chosen, *address[2:]), reuse_port))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            lacking = error
    if not sockets and lacking is not None:
        raise lacking


def _bound(family: int, address: tuple[str | int, ...], reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
            _bind_all(_resolve(host, candidate, host), candidate, sockets)
            return candidate
        except (OSError, StartError):
            continue
        finally:
            for sock in sockets:
                sock.close()
    return None


# --- Unix sockets and inherited ones ---


def _unix(path: str, mode: int, label: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path, label)
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


def _remove_stale(path: str, label: str) -> None:
    """Removes the socket file of a server that is gone; StartError for anything else there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StartError(f"{label}: the file exists and is not a socket.")
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


def _inherited(descriptor: int, label: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
        sock.set_inheritable(False)  # by the application's programs
    except OSError as error:
        what = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise StartError(f"{label}: the descriptor {what}.") from None
    try:
        _check_kind(sock, label)
    except StartError:
        sock.detach()
        raise
    sock.setblocking(False)
    return sock


def _check_kind(sock: socket.socket, label: str) -> None:
    if sock.type != socket.SOCK_STREAM or sock.family not in (
        socket.AF_INET, socket.AF_INET6, socket.AF_UNIX,
    ):  # fmt: skip
        raise StartError(f"{label}: the descriptor is not a TCP or Unix stream socket.")


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
