"""Binding: addresses, Unix sockets, inherited sockets, and the words when it fails."""

import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgiserver import Config, addresses, banner, sockets
from asgiserver.errors import StartError
from asgiserver.sockets import Listeners

Bind = Callable[..., Listeners]


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Binds by settings; closes in the end."""
    made: list[Listeners] = []

    def bind_settings(**settings: Any) -> Listeners:
        made.append(sockets.bind(Config(**settings)))
        return made[-1]

    yield bind_settings
    for listeners in made:
        listeners.close()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def refusal(**settings: Any) -> str:
    with pytest.raises(StartError) as caught:
        sockets.bind(Config(**settings)).close()
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")

# --- TCP ---


def test_clients_are_refused_until_it_listens(bind: Bind) -> None:
    listeners = bind(port=0)
    address = listeners.sockets[0].getsockname()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
    listeners.listen(16)
    socket.create_connection(address, timeout=5).close()


def test_close_is_idempotent(bind: Bind) -> None:
    listeners = bind(port=0)
    listeners.close()
    listeners.close()
    assert listeners.sockets == []


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6(bind: Bind, host: str) -> None:
    (sock,) = bind(host=host, port=0).sockets
    assert sock.family == socket.AF_INET6
    assert banner.url(sock) == f"http://[::1]:{sock.getsockname()[1]}"


@needs_ipv6
def test_all_addresses_of_both_families(bind: Bind) -> None:
    listeners = bind(host="::", port=0)
    assert [sock.family for sock in listeners.sockets] == [socket.AF_INET6, socket.AF_INET]
    assert len({sock.getsockname()[1] for sock in listeners.sockets}) == 1


def resolve_to(
    monkeypatch: pytest.MonkeyPatch, *addresses: tuple[socket.AddressFamily, Any]
) -> None:
    """Makes every name have these addresses."""

    def getaddrinfo(host: str, port: int, **more: Any) -> Any:
        return [(family, socket.SOCK_STREAM, 6, "", (ip, port)) for family, ip in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_every_address_of_a_name_is_bound_to_one_port(
    bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2"))
    names = [sock.getsockname() for sock in bind(host="name", port=0).sockets]
    assert [name[0] for name in names] == ["127.0.0.1", "127.0.0.2"]
    assert names[0][1] == names[1][1]


def test_addresses_that_the_machine_lacks_are_left_out(
    bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, (socket.AF_INET, "192.0.2.77"), (socket.AF_INET, "127.0.0.1"))
    assert [sock.getsockname()[0] for sock in bind(host="name", port=0).sockets] == ["127.0.0.1"]


def test_a_port_in_use_names_its_holder_and_a_free_one(taken: int) -> None:
    text = refusal(port=taken)
    found = re.fullmatch(
        rf"Cannot listen at 127\.0\.0\.1:{taken}: the port is in use by process {os.getpid()} "
        r"\(.+\)\. Free: --port (\d+)",
        text,
    )
    assert found, text
    assert int(found[1]) > taken
    sockets.bind(Config(port=int(found[1]))).close()


def test_no_socket_is_left_open_by_a_failure(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, (socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.1"))
    before = len(os.listdir("/proc/self/fd"))
    refusal(host="name", port=taken)
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_servers_that_start_together(bind: Bind) -> None:
    """Both can bind; the second one to listen is told."""
    first = bind(port=0)
    port = first.sockets[0].getsockname()[1]
    second = bind(port=port)
    first.listen(16)
    with pytest.raises(StartError, match=f"127.0.0.1:{port}: the port is in use by process"):
        second.listen(16)


def test_addresses_that_cannot_be_bound() -> None:
    assert "192.0.2.1:8000: it is no address of this machine" in refusal(host="192.0.2.1")
    assert refusal(host="no.such.host.invalid").startswith(
        "--host no.such.host.invalid: no address has that name ("
    )


def test_privileged_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: socket.socket, address: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(
        sockets.socket, "socket", type("Denied", (socket.socket,), {"bind": denied})
    )
    assert refusal(port=80) == (
        "Cannot listen at 127.0.0.1:80: ports below 1024 need root's rights or "
        "CAP_NET_BIND_SERVICE. Try --port 8000"
    )


# --- Unix sockets ---


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A relative path: pytest's own folders are too deep for a socket's name."""
    monkeypatch.chdir(tmp_path)
    return "socket"


@pytest.mark.parametrize(("settings", "mode"), [({}, 0o666), ({"uds_mode": 0o600}, 0o600)])
def test_unix_socket(bind: Bind, path: str, settings: dict[str, int], mode: int) -> None:
    listeners = bind(uds=path, **settings)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    assert banner.url(listeners.sockets[0]) == f"unix:{path}"
    listeners.listen(16)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listeners.close()
    assert not os.path.exists(path)


def test_the_file_of_somebody_else_is_not_removed(bind: Bind, path: str) -> None:
    listeners = bind(uds=path)
    os.unlink(path)
    Path(path).write_text("mine")
    listeners.close()
    assert Path(path).read_text() == "mine"


def test_the_file_is_removed_after_the_folder_changed(
    bind: Bind, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = bind(uds=path)
    full = os.path.abspath(path)
    monkeypatch.chdir("/")
    listeners.close()
    assert not os.path.exists(full)


def test_a_dead_servers_socket_is_replaced(bind: Bind, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    assert os.path.exists(path)
    bind(uds=path).listen(16)


@pytest.mark.parametrize("listens", [True, False])
def test_a_living_servers_socket_is_not(path: str, listens: bool) -> None:
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(path)
        if listens:
            living.listen()
        text = refusal(uds=path)
        assert text.startswith(f"Cannot listen at {path}: it is in use by process {os.getpid()} (")
    assert os.path.exists(path)


def test_a_living_server_with_a_full_queue(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as waiting:
        living.bind(path)
        living.listen(0)
        waiting.connect(path)
        assert "it is in use by process" in refusal(uds=path)


def test_what_is_no_socket(path: str) -> None:
    Path(path).write_text("data")
    assert refusal(uds=path) == f"--uds {path}: the file exists and is not a socket."
    assert Path(path).read_text() == "data"


def test_paths_that_cannot_be_bound(path: str) -> None:
    assert refusal(uds="none/socket") == "Cannot listen at none/socket: there is no folder none."
    assert refusal(uds="x" * 200).endswith(": AF_UNIX path too long.")


# --- inherited sockets ---


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_inherited(bind: Bind, path: str, family: socket.AddressFamily) -> None:
    with socket.socket(family) as sock:
        sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else path)
        descriptor = os.dup(sock.fileno())
        listeners = bind(fd=descriptor)
        listeners.listen(16)
        with socket.socket(family) as client:
            client.connect(sock.getsockname())
        listeners.close()
    if family == socket.AF_UNIX:
        assert os.path.exists(path)  # Whoever made it removes it.


def test_descriptors_that_are_no_listening_sockets(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file:
        number = file.fileno()
        assert refusal(fd=number) == f"--fd {number}: the descriptor is not a socket."
    assert refusal(fd=number) == f"--fd {number}: the descriptor is not open."
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        number = sock.fileno()
        assert refusal(fd=number).endswith("is not a TCP or Unix stream socket.")
        sock.getsockname()  # It is still open.


# --- what an address means ---


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "fd"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80, None, None),
        ("localhost", "localhost", 8000, None, None),
        ("example.org:0", "example.org", 0, None, None),
        (":9000", "::", 9000, None, None),
        ("*:9000", "::", 9000, None, None),
        ("[::1]:65535", "::1", 65535, None, None),
        ("[fe80::1%lo]", "fe80::1%lo", 8000, None, None),
        ("unix:/run/a b.sock", "", 0, "/run/a b.sock", None),
        ("unix:relative", "", 0, "relative", None),
        ("fd://3", "", 0, None, 3),
    ],
)
def test_parse(text, host, port, path, fd):
    found = addresses.parse(text)
    assert (found.host, found.port, found.path, found.fd) == (host, port, path, fd)


@pytest.mark.parametrize(
    "text",
    [
        "a:b", "a:65536", "a:-1", "a:", "a:²", "::1", "::1:80", "[::1", "[::1]80", "[::1]:x",
        "unix:", "fd://", "fd://x", "fd://-1", "http://a:80", "/run/a.sock",
    ],
)  # fmt: skip
def test_parse_refuses(text):
    with pytest.raises(ValueError, match=r"not|port|path|brackets"):
        addresses.parse(text)


def test_how_it_was_written_makes_no_difference():
    """A reload finds the socket of an address again that is spelled in another way now."""
    assert addresses.parse("a:80") == addresses.parse("a:80", "--host a")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
def test_shares(count, workers):
    """Whatever their numbers, each worker has a socket, and each socket a worker."""
    sets = [[object()] for _ in range(count)]
    listeners = sockets.Listeners([])
    taken = set()
    for slot in range(workers):
        listeners.take_share(slot, workers)
        share = listeners._share(sets)
        assert share
        taken.update(share)
    assert len(taken) == count


@pytest.mark.parametrize(
    ("address", "number", "text"),
    [
        (("127.0.0.1", 80), errno.ENOBUFS, "Cannot listen at 127.0.0.1:80: No buffer space available."),
        (("::1", 80, 0, 0), errno.ENOBUFS, "Cannot listen at [::1]:80: No buffer space available."),
        ("/run/x", errno.EACCES, "Cannot listen at /run/x: Permission denied."),
        (b"/run/x", errno.EADDRINUSE, "Cannot listen at /run/x: it is in use."),
    ],
)  # fmt: skip
def test_words_for_what_the_system_says(address, number, text):
    assert str(sockets._explained(OSError(number, os.strerror(number)), address)) == text
