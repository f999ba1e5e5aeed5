"""What the server says about itself when it starts."""

import os
import platform
import socket
from collections.abc import Sequence
from urllib.parse import quote


def url(sock: socket.socket, scheme: str = "http") -> str:
    """Where a browser finds ``sock``; a wildcard address becomes the loopback one."""
    if sock.family == socket.AF_UNIX:
        path = sock.getsockname()
        return f"unix:{path.decode() if isinstance(path, bytes) else path}"
    host, port = sock.getsockname()[:2]
    if sock.family == socket.AF_INET6:
        host = f"[{'::1' if host == '::' else host}]"
    elif host == "0.0.0.0":
        host = "127.0.0.1"
    return f"{scheme}://{host}:{port}"


def client_url(sock: socket.socket, scheme: str = "http") -> str:
    """The same for HTTP clients: the path of a Unix socket is the host, percent-encoded."""
    found = url(sock, scheme)
    path = found.removeprefix("unix:")
    return found if path == found else f"{scheme}+unix://{quote(path, safe='')}"


def _lan_url(sock: socket.socket, scheme: str) -> str | None:
    """Where other machines find a socket that listens on all addresses; None otherwise."""
    if sock.family != socket.AF_INET or sock.getsockname()[0] != "0.0.0.0":
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1; this chooses a route and sends nothing.
        except OSError:
            return None
        host = probe.getsockname()[0]
    return None if host.startswith("127.") else f"{scheme}://{host}:{sock.getsockname()[1]}"


def lines(
    *,
    version: str,
    app: str,
    interface: str,
    loop: str | None,
    sockets: Sequence[socket.socket],
    scheme: str = "http",
    threads: int = 0,
    workers: int | None = None,
    signals: bool = True,
) -> list[str]:
    """The banner. ``interface`` as it is shown; ``loop`` None where there is none; ``threads``
    that run the application; ``workers`` in the first of them; ``signals`` says whether they end the server.
    """
    python = f"{platform.python_implementation()} {platform.python_version()}"
    how = f" on {loop}" if loop else f" with threads: {threads}" if threads else ""
    served = f"Serving {app} ({interface}{how})"
    process = os.getpid() if workers is None else os.getppid()
    where = f"process {process}" + (f" with workers: {workers}" if workers is not None else "")
    found = [f"asgiserver {version} on {python}, {where}", served]
    for sock in sockets:
        lan = _lan_url(sock, scheme)
        more = f" (from other machines: {lan})" if lan else ""
        if sock.family == socket.AF_UNIX and scheme == "https":
            more = " (TLS)"
        found.append(f"Listening at {url(sock, scheme)}{more}")
    if signals:
        found.append("Press CTRL+C to quit")
    return found
