"""The C core: one event loop with its listeners, connections and the gateway to one application."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from mmap import mmap
from typing import Any, Literal, final

from .networks import ProxySettings

LIBUV_VERSION: str
LLHTTP_VERSION: str
OPENSSL_VERSION: str

def check_access_log_format(text: str, /) -> None:
    """Raises ValueError, with what is wrong, for a text that cannot be ``access_log_format``."""

class ClientDisconnected(OSError):
    """Raised by ``send`` when the client has left."""

class TLSError(ValueError):
    """Raised by ``TLSContext``: one line that names the file and what is wrong with it."""

@final
class TLSContext:
    """Certificates, keys and rules of TLS sockets, read from PEM files.

    ``certfile`` is the certificate with its chain behind it; without ``keyfile`` it has the key as well.
    ``password`` is for encrypted keys; nobody is ever asked for one. ``cert_reqs``: clients are asked for a
    certificate signed by one of ``ca_certs`` - 0 not at all, 1 but need none, 2 and must have one; a bad one
    ends the handshake. ``ciphers`` are OpenSSL's names, with colons between them, in the order of liking; those
    that begin with ``TLS_`` are for TLS 1.3. ``min_version`` is 0x0303 or 0x0304. ``sni_dir`` is a folder with
    more pairs, chosen by the host name that a client asks for: NAME.crt, .pem or .cer with NAME.key beside it,
    or with the key in it. ``ticket_key`` is 80 random bytes that the workers of a server share, so that a
    session goes on with another one; by default each context has its own. ``alpn`` is the protocols, the first
    is liked best; empty: no ALPN.
    ``reload_interval``: seconds between two looks at the files, 0 for never. When they have changed a server
    makes a new context of them for new connections, or keeps the old one and logs why.
    """

    def __new__(
        cls,
        certfile: str,
        keyfile: str | None = None,
        password: str | bytes | None = None,
        ca_certs: str | None = None,
        cert_reqs: int = 0,
        ciphers: str | None = None,
        min_version: int = 0x0303,
        sni_dir: str | None = None,
        ticket_key: bytes | None = None,
        alpn: Sequence[str] = ("http/1.1",),
        reload_interval: float = 5.0,
    ) -> TLSContext: ...
    @property
    def certificates(self) -> list[tuple[str, list[str], str]]:
        """Path, names that it is good for, end of its validity (ISO 8601, UTC); the default one first."""
    @property
    def warnings(self) -> list[str]:
        """Pairs of ``sni_dir`` that were left out, and why, a line for each."""

@final
class Server:
    """Serves one application on any number of listening sockets.

    ``interface`` is ``"asgi"`` (needs ``loop``, a running or not yet running asyncio loop) or ``"wsgi"``
    (``loop`` is None; call ``run``). ``limits`` has the table's rows that name a C field, in the units of
    csrc/base/limits.h. ``access_log`` is None (off); a descriptor, to which lines are written by a thread of
    the core's own (it is duplicated, and may be closed); or a callable, which is given a list of what was
    logged in one turn of the loop. ``access_log_format`` is "uvicorn", "common", "combined", "json" or a text
    with gunicorn's ``%(…)s`` atoms (ValueError for another one). With None a descriptor gets uvicorn's
    lines, and a callable ``(client, method, target, http_version, status)`` instead of lines. Lines come
    without line feeds, and what a stranger sent is escaped in either. ``on_error(level, message, exception)`` receives
    what is to be logged; level is "debug", "info", "warning" or "error".
    Without ``proxy``, no proxy is believed.
    ``threads`` (WSGI): how many run the application, beside the thread that called ``run`` and one for the
    network; 0: the first does all.
    """

    def __init__(
        self,
        app: Any,
        *,
        interface: Literal["asgi", "wsgi"],
        loop: AbstractEventLoop | None = None,
        limits: Mapping[str, int] = ...,
        headers: Sequence[tuple[bytes, bytes]] = ...,
        root_path: str = "",
        state: dict[str, Any] | None = None,
        access_log: int
        | Callable[[list[tuple[str, str, str, str, int]]], None]
        | Callable[[list[str]], None]
        | None = None,
        access_log_format: str | None = None,
        access_log_colors: bool = False,
        on_error: Callable[[str, str, BaseException | None], None] | None = None,
        multiprocess: bool = False,
        health_path: str | None = None,
        proxy: ProxySettings = ...,
        threads: int = 0,
    ) -> None: ...
    def listen(self, fd: int, tls: TLSContext | None = None) -> None:
        """Accept on the listening socket ``fd``; with ``tls``, TLS.

        ``drain`` closes the socket; the descriptor's number is the caller's to close in any case.
        """
    def set_tls(self, tls: TLSContext, /) -> None:
        """New connections to all sockets that are TLS take this context from now on."""
    def balance(self, memory: mmap, /) -> None:
        """Share new connections fairly with the processes that accept from the same sockets and are given
        the same shared memory: zeros at first, 64 bytes for each of them. Once, before ``listen``.
        """
    def start(self) -> None:
        """ASGI: watch the core's descriptor in the asyncio loop."""
    def poll(self) -> None:
        """Handle what is ready. The asyncio loop calls it."""
    def run(self, tick: Callable[[], object] | None = None, interval: float = 1.0) -> None:
        """WSGI: serve until ``stop`` or until draining is complete. Python's signal handlers run promptly.

        With threads it also waits for applications that still run, but no more than a second once
        ``abort`` or ``stop`` was called. They are daemons.

        ``tick`` is called between requests, at once and then every ``interval`` seconds; what it raises is
        raised from here.
        """
    def stop(self) -> None:
        """WSGI: make ``run`` return."""
    def drain(self, callback: Callable[[], None] | None = None, idle: float = 0.0) -> None:
        """Accept who has connected, close the listening sockets, and busy connections behind their answer;
        then ``callback()``.

        Idle connections close when no request came for ``idle`` seconds: with 0 now; more loses no request
        that is under way while another process goes on accepting.
        """
    def disconnect(self) -> None:
        """ASGI: ``receive()`` of the requests that run says that the client has left, so that they end."""
    def forked(self) -> None:
        """In a forked child: let go of all sockets. A child that returns to the server is ended."""
    def set_healthy(self, healthy: bool, /) -> None:
        """What the health path says."""
    def call_at(self, requests: int, callback: Callable[[], None], /) -> None:
        """Call ``callback`` when so many requests were seen, counted from the first; before that, once."""
    def abort(self) -> int:
        """Cut all connections now; the number of requests that were cut."""
    def reopen_access_log(self, fd: int, /) -> None:
        """Write the access log to the descriptor ``fd``, which stays the caller's, from now on.

        RuntimeError where it does not go to a descriptor.
        """
    def close(self) -> None:
        """Cut what is left and free the loop. Idempotent."""
    @property
    def wakeup_fd(self) -> int:
        """WSGI: for ``signal.set_wakeup_fd``, so that a signal always ends the wait of ``run``."""
    @property
    def connections(self) -> int: ...
    @property
    def requests(self) -> int:
        """Requests being worked on now."""
    @property
    def requests_total(self) -> int: ...
    @property
    def connections_total(self) -> int: ...
    @property
    def overloaded_total(self) -> int:
        """Requests answered with 503 for ``limit_concurrency``."""
    @property
    def spool_full_total(self) -> int:
        """WSGI: requests answered with 503 for ``limit_body_spool``."""
    @property
    def spooled(self) -> int:
        """WSGI: bytes of request bodies in files now."""
    @property
    def accepting(self) -> bool: ...
