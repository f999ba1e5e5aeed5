"""systemd: what it wants to hear (sd_notify), and the sockets that it hands over (socket
activation). Nothing happens where it did not ask.
"""

import os
import socket
import time

from .errors import StartError

_FIRST = 3  # descriptor of the first socket handed over


def notify(*lines: str) -> None:
    """Sends ``READY=1`` and the like to the service manager. Never fails: it may have gone."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(address)
            sock.send("\n".join(lines).encode())
        except OSError:
            return


def reloading() -> None:
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def ready(status: str) -> None:
    notify("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")


def stopping() -> None:
    notify("STOPPING=1")


def watchdog_interval() -> float | None:
    """Seconds between two signs of life; None where nobody waits for any."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or not int(microseconds):
        return None
    return int(microseconds) / 2e6


def alive() -> None:
    notify("WATCHDOG=1")


def passed_descriptors() -> list[int]:
    """The sockets that systemd opened for this process; the variables that say so are removed, so
    that no child takes them for its own. Raises StartError.
    """
    meant_for, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(os.getpid()) or not count:
        return []
    if not count.isdigit():
        raise StartError(f"LISTEN_FDS={count} in the environment is not a number.")
    return list(range(_FIRST, _FIRST + int(count)))
