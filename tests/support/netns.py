"""Machines in a network of their own, for a test: network namespaces, a bridge between them.

A namespace has no name: it is an open descriptor, and what is in it goes when the descriptor is closed,
also when the test is killed. Within ``with namespace:`` the calling thread is there, and so is what it
makes: sockets, threads, processes. Needs root.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from types import TracebackType

_HERE = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class NotPermitted(Exception):
    """There can be no namespaces here; why."""


def _call(function: str, *args: int) -> None:
    if getattr(_libc, function)(*args) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}")


class Namespace:
    """One machine. Not for two threads at once."""

    def __init__(self) -> None:
        home = os.open(_HERE, os.O_RDONLY)
        try:
            _call("unshare", _CLONE_NEWNET)
            try:
                self._descriptor = os.open(_HERE, os.O_RDONLY)
            finally:
                _call("setns", home, _CLONE_NEWNET)
        except OSError as error:
            raise NotPermitted(str(error)) from None
        finally:
            os.close(home)
        self._home: int | None = None

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def __enter__(self) -> Namespace:
        assert self._home is None
        self._home = os.open(_HERE, os.O_RDONLY)
        _call("setns", self._descriptor, _CLONE_NEWNET)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._home is not None
        _call("setns", self._home, _CLONE_NEWNET)
        os.close(self._home)
        self._home = None

    def ip(self, words: str) -> None:
        """Runs the command ``ip`` there."""
        with self:
            done = subprocess.run(
                ["ip", *words.split()], check=False, capture_output=True, text=True, timeout=10
            )
        if done.returncode:
            raise NotPermitted(f"ip {words}: {done.stderr.strip()}")

    def close(self) -> None:
        os.close(self._descriptor)


class Network:
    """A machine ``hub`` with the first address, and one machine for each of ``addresses``, by name; all
    of 192.0.2.0/24 (RFC 5737). Close it in the end. Raises NotPermitted.
    """

    def __init__(self, hub: str, addresses: dict[str, str]) -> None:
        self._made: list[Namespace] = []
        self.machines: dict[str, Namespace] = {}
        try:
            self.hub = self._make()
            self.hub.ip("link add bridge type bridge")
            self.hub.ip(f"address add {hub}/24 dev bridge")
            self.hub.ip("link set bridge up")
            for name, address in addresses.items():
                machine = self.machines[name] = self._make()
                self.hub.ip(f"link add {name} type veth peer name eth0 netns {machine.path}")
                self.hub.ip(f"link set {name} master bridge up")
                machine.ip(f"address add {address}/24 dev eth0")
                machine.ip("link set eth0 up")
        except BaseException:
            self.close()
            raise

    def _make(self) -> Namespace:
        namespace = Namespace()
        self._made.append(namespace)
        namespace.ip("link set lo up")
        return namespace

    def close(self) -> None:
        while self._made:
            self._made.pop().close()
