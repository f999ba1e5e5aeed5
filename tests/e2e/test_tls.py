"""TLS: clients, certificates and their renewal, certificates of clients, and what is wrong at the start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from support.certificates import HERE, Authority, Pair
from support.client import SLOWNESS, TLSAddress, connect
from support.command import assert_line, command
from support.gunicorn import Gunicorn
from support.load import Load
from support.processes import (
    await_end,
    await_quiet,
    children,
    foreign_environment,
    wait_until,
)
from support.server import Server, end_all

import asgiserver

Factory = Callable[..., Server]

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture(params=VERSIONS.values(), ids=VERSIONS.keys())
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    chosen: ssl.TLSVersion = request.param
    return chosen


@pytest.fixture(params=["asgi-uvloop", "wsgi", "wsgi-threads"])
def run(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of a server over TLS, for tls_asgi.py and tls_wsgi.py."""
    interface, _, mode = request.param.partition("-")
    how = {"uvloop": {"loop": "uvloop"}, "threads": {"threads": 4}}.get(mode, {})
    return {"app": f"tls_{interface}:app", "interface": interface, "tls": True, **how}


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> Pair:
    """Files that a test may replace."""
    return authority.here.copy(tmp_path)


@pytest.fixture
def fresh(authority: Authority, request: pytest.FixtureRequest) -> Callable[[], Pair]:
    """A renewed certificate for this machine."""
    numbers = iter(range(1000))
    return lambda: authority.issue(f"fresh-{abs(hash(request.node.nodeid))}-{next(numbers)}", *HERE)


def seen(
    address: Any,
    context: ssl.SSLContext,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> tuple[x509.Certificate, dict[str, Any], ssl.SSLSocket]:
    """The server's certificate, the answer to GET /, and the connection, closed."""
    plain = connect(address).socket
    with context.wrap_socket(plain, server_hostname=name, session=session) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = b""
        while more := client.recv(65536):
            data += more
        shown = client.getpeercert(binary_form=True)
        assert shown is not None
        client.ended_with = client.session, client.session_reused  # type: ignore[attr-defined]
    return x509.load_der_x509_certificate(shown), json.loads(data.partition(b"\r\n\r\n")[2]), client


def plain_address(server: Server) -> Any:
    address = server.address
    return address.address if isinstance(address, TLSAddress) else address


def serial(server: Server) -> int:
    """Of the certificate that a new connection is shown."""
    return seen(plain_address(server), server.context)[0].serial_number


# --- clients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [["--tls-max", "1.2"], ["--tlsv1.3"]], ids=["1.2", "1.3"])
def test_curl(shared: Factory, run: dict[str, Any], authority: Authority, flags: list[str]) -> None:
    server = shared(**run)
    words = ["curl", "-sS", "--cacert", str(authority.path), *flags, f"{server.url}/a", "-w", "%{http_version}"]  # fmt: skip
    said = subprocess.run(
        words, env=foreign_environment(), capture_output=True, text=True,
        timeout=20 * SLOWNESS, check=True,
    )  # fmt: skip
    assert '"scheme": "https"' in said.stdout
    assert said.stdout.endswith("1.1")


def test_httpx(shared: Factory, run: dict[str, Any], authority: Authority) -> None:
    server = shared(**run)
    with httpx.Client(verify=authority.trusting(), timeout=20 * SLOWNESS) as client:
        for _ in range(5):
            assert client.get(server.url).json()["scheme"] == "https"


def test_what_the_application_is_told(
    shared: Factory, run: dict[str, Any], authority: Authority, version: ssl.TLSVersion
) -> None:
    server = shared(**run)
    certificate, found, _ = seen(plain_address(server), authority.trusting(version=version))
    tls = found["tls"]
    assert found["scheme"] == "https"
    if run["interface"] == "asgi":
        assert x509.load_pem_x509_certificate(tls["server_cert"].encode()) == certificate
        assert tls["tls_version"] == int(version)
        assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303, 0xC02B, 0xC02C, 0xCCA9)
        assert tls["client_cert_chain"] == []
        assert tls["client_cert_name"] is None
        assert tls["client_cert_error"] is None
    else:
        assert tls["HTTPS"] == "on"
        assert tls["SSL_PROTOCOL"].replace("v1.", "v1_") == version.name
        assert re.match(r"TLS_|ECDHE-ECDSA-", tls["SSL_CIPHER"])
        assert tls["SSL_TLS_SNI"] == "localhost"
        assert tls["SSL_CLIENT_VERIFY"] == "NONE"
        assert "SSL_CLIENT_CERT" not in tls


def test_plain_requests_have_nothing_of_it(shared: Factory, run: dict[str, Any]) -> None:
    server = shared(**{**run, "tls": False})
    found = json.loads(server.get())
    assert found["scheme"] == "http"
    assert not found["tls"]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "http/1.1"),
        (["http/1.1"], "http/1.1"),
        (["http/1.0", "http/1.1"], "http/1.1"),
        (["http/1.0"], "http/1.0"),  # as curl --http1.0
        ([], None),
    ],
)
def test_alpn(
    shared: Factory, authority: Authority, offered: list[str], chosen: str | None
) -> None:
    server = shared("tls_asgi:app", tls=True)
    context = authority.trusting(alpn=offered)
    with context.wrap_socket(connect(plain_address(server)).socket, server_hostname="localhost") as client:  # fmt: skip
        assert client.selected_alpn_protocol() == chosen


def test_alpn_without_anything_in_common(shared: Factory, authority: Authority) -> None:
    """RFC 7301, 3.2: no guess at what the client would make of it."""
    server = shared("tls_asgi:app", tls=True)
    context = authority.trusting(alpn=["h2"])
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        context.wrap_socket(connect(plain_address(server)).socket, server_hostname="localhost")


@pytest.mark.parametrize("where", ["uds", "fd", "port", "ipv6"])
def test_kinds_of_sockets(serve: Factory, authority: Authority, tmp_path: Path, where: str) -> None:
    path = tmp_path / "s"
    options: dict[str, Any] = {
        "uds": {"uds": path}, "fd": {}, "port": {"port_option": True}, "ipv6": {"bind": "::1"},
    }[where]  # fmt: skip
    server = serve("tls_asgi:app", tls=True, **options)
    assert seen(plain_address(server), authority.trusting())[1]["scheme"] == "https"
    wanted = f"unix:{path} (TLS)" if where == "uds" else f"https://{server.authority}"
    assert f"Listening at {wanted}" in server.log()


def test_big_bodies_both_ways(shared: Factory, backend: Any) -> None:
    server = shared(f"probe_{backend.interface}:app", **{**backend.options, "tls": True})
    body = os.urandom(3_000_000)
    with server.raw(30) as client:
        for _ in range(2):
            client.post("/digest", body)
            assert client.recv_response().text.startswith("3000000 ")
            client.get("/stream?n=30&size=100000&length=1")
            assert len(client.recv_response().body) == 3_000_000


# --- options ---------------------------------------------------------------------------------------------


def test_certificate_and_key(serve: Factory, authority: Authority, tmp_path: Path) -> None:
    """In two files, and in one."""
    here = authority.here
    both = tmp_path / "both.pem"
    both.write_bytes(here.certfile.read_bytes() + here.keyfile.read_bytes())
    for words in (
        ["--ssl-certfile", str(here.certfile), "--ssl-keyfile", str(here.keyfile)],
        ["--ssl-certfile", str(both)],
    ):
        server = serve("tls_asgi:app", *words, tls=True)
        assert serial(server) == here.serial


def test_rsa_and_a_chain(serve: Factory, authority: Authority, tmp_path: Path) -> None:
    """The certificates between are sent as well."""
    between = Authority(tmp_path, "Between", above=authority)
    pair = between.issue("chained", *HERE, use_rsa=True)
    server = serve("tls_asgi:app", *pair.words, tls=True)
    assert serial(server) == pair.serial
    assert x509.load_pem_x509_certificates(pair.certfile.read_bytes())[1:]


def test_an_encrypted_key(serve: Factory, authority: Authority) -> None:
    pair = authority.issue("locked", *HERE, password="open sesame")
    server = serve("tls_asgi:app", *pair.words, "--ssl-keyfile-password", "open sesame", tls=True)
    assert serial(server) == pair.serial
    secret = {"ASGISERVER_SSL_KEYFILE_PASSWORD": "open sesame"}
    server = serve("tls_asgi:app", *pair.words, "--workers", "2", env=secret, tls=True)
    assert serial(server) == pair.serial
    done = command("--print-config", *pair.words, env=secret)
    assert done.returncode == 0
    assert "sesame" not in done.stdout
    assert (
        "# ssl_keyfile_password is set, and not shown: environment variable "
        "ASGISERVER_SSL_KEYFILE_PASSWORD" in done.stdout
    )


def test_oldest_version(serve: Factory, authority: Authority) -> None:
    server = serve("tls_asgi:app", "--ssl-min-version", "TLSv1.3", tls=True)
    old = authority.trusting(version=ssl.TLSVersion.TLSv1_2)
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        seen(plain_address(server), old)
    assert seen(plain_address(server), authority.trusting())[1]["tls"]["tls_version"] == 0x0304


def test_ciphers(serve: Factory, authority: Authority) -> None:
    server = serve("tls_asgi:app", "--ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384", tls=True)
    old = authority.trusting(version=ssl.TLSVersion.TLSv1_2)
    assert seen(plain_address(server), old)[1]["tls"]["cipher_suite"] == 0xC02C
    old.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        seen(plain_address(server), old)


def test_a_file_of_settings(serve: Factory, authority: Authority, tmp_path: Path) -> None:
    here, file = authority.here, tmp_path / "a.toml"
    file.write_text(
        f"ssl_certfile = '{here.certfile}'\nssl-keyfile = '{here.keyfile}'\n"
        f"ssl_cert_reqs = 'optional'\nssl_ca_certs = '{authority.path}'\n"
    )
    server = serve("tls_asgi:app", "--config", str(file), tls=False)
    assert f"https://{server.authority}" in server.log()
    assert seen((server.host, server.port), authority.trusting())[0].serial_number == here.serial
    done = command("--check-config", "--config", str(file), "tls_asgi:app")
    assert done.stdout == "OK: tls_asgi:app (ASGI 3)\n"


# --- names -----------------------------------------------------------------------------------------------


def folder_of_names(authority: Authority, folder: Path) -> dict[str, Pair]:
    """With a certificate each for a name, for a wildcard, and for two names in one file."""
    exact = authority.issue("exact", "a.example").copy(folder, "a.example")
    wild = authority.issue("wild", "*.b.example").copy(folder, "wildcard")
    several = authority.issue("several", "c.example", "www.c.example")
    (folder / "c.crt").write_bytes(several.certfile.read_bytes() + several.keyfile.read_bytes())
    return {"exact": exact, "wild": wild, "several": several, "": authority.here}


@pytest.fixture
def names(authority: Authority, tmp_path: Path) -> dict[str, Pair]:
    return folder_of_names(authority, tmp_path)


@pytest.fixture(scope="session")
def lasting_names(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Pair]:
    """Which no test changes."""
    return folder_of_names(authority, tmp_path_factory.mktemp("names"))


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("a.example", "exact"),
        ("A.EXAMPLE", "exact"),
        ("x.b.example", "wild"),
        ("www.c.example", "several"),
        ("b.example", ""),
        ("x.y.b.example", ""),
        ("other.example", ""),
        ("localhost", ""),
        (None, ""),
    ],
)
def test_the_name_chooses(
    shared: Factory, authority: Authority, lasting_names: dict[str, Pair], version: ssl.TLSVersion,
    asked: str | None, shown: str,
) -> None:  # fmt: skip
    server = shared(
        "tls_asgi:app", "--ssl-sni-dir", str(lasting_names["exact"].certfile.parent), tls=True
    )
    context = authority.trusting(version=version)
    context.check_hostname = False
    found = seen(plain_address(server), context, asked)[0]
    assert found.serial_number == lasting_names[shown].serial


def test_names_come_and_go(serve: Factory, authority: Authority, names: dict[str, Pair]) -> None:
    folder = names["exact"].certfile.parent
    server = serve(
        "tls_asgi:app", "--ssl-sni-dir", str(folder), "--ssl-reload-interval", "0.1", tls=True
    )
    context = authority.trusting()
    context.check_hostname = False
    new = authority.issue("new", "new.example").copy(folder, "new")

    def is_shown(pair: Pair) -> bool:
        found = seen(plain_address(server), context, "new.example")[0].serial_number
        return found == pair.serial

    wait_until(lambda: is_shown(new), what="for the new certificate")
    new.certfile.unlink()
    new.keyfile.unlink()
    wait_until(lambda: is_shown(names[""]), what="for the default one")


def test_a_bad_one_of_several_is_left_out(serve: Factory, authority: Authority, names: dict[str, Pair]) -> None:  # fmt: skip
    names["wild"].keyfile.write_text("rubbish")
    server = serve("tls_asgi:app", "--ssl-sni-dir", str(names["exact"].certfile.parent), tls=True)
    assert server.log().count("Left out: ") == 1
    assert "wildcard" in re.search(r"WARNING: +Left out: (.*)", server.log())[1]
    context = authority.trusting()
    assert (
        seen(plain_address(server), context, "a.example")[0].serial_number == names["exact"].serial
    )


# --- certificates of clients -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("clients"), "Clients")


@pytest.fixture(scope="session")
def shown(clients: Authority) -> Pair:
    return clients.issue("shown", common_name="Somebody", client=True)


@pytest.mark.parametrize("reqs", ["optional", "required", "2"])
def test_a_client_that_shows_one(
    shared: Factory, run: dict[str, Any], authority: Authority, clients: Authority, shown: Pair,
    version: ssl.TLSVersion, reqs: str,
) -> None:  # fmt: skip
    app = run.pop("app")
    server = shared(app, "--ssl-cert-reqs", reqs, "--ssl-ca-certs", str(clients.path), **run)
    _, found, _ = seen(plain_address(server), authority.trusting(shown, version))
    tls, certificate = found["tls"], x509.load_pem_x509_certificate(shown.certfile.read_bytes())
    if run["interface"] == "asgi":
        assert x509.load_pem_x509_certificate(tls["client_cert_chain"][0].encode()) == certificate
        assert tls["client_cert_name"] == "CN=Somebody"
        assert tls["client_cert_error"] is None
    else:
        assert x509.load_pem_x509_certificate(tls["SSL_CLIENT_CERT"].encode()) == certificate
        assert tls["SSL_CLIENT_VERIFY"] == "SUCCESS"
        assert tls["SSL_CLIENT_S_DN"] == "CN=Somebody"
        assert tls["SSL_CLIENT_I_DN"] == "CN=Clients"
        assert int(tls["SSL_CLIENT_M_SERIAL"], 16) == certificate.serial_number


def test_a_client_that_shows_none(
    shared: Factory, run: dict[str, Any], authority: Authority, clients: Authority,
    version: ssl.TLSVersion,
) -> None:  # fmt: skip
    app, context = run.pop("app"), authority.trusting(version=version)
    words = ("--ssl-ca-certs", str(clients.path))
    server = shared(app, "--ssl-cert-reqs", "optional", *words, **run)
    _, found, _ = seen(plain_address(server), context)
    if run["interface"] == "asgi":
        assert found["tls"]["client_cert_chain"] == []
    else:
        assert found["tls"]["SSL_CLIENT_VERIFY"] == "NONE"
    server = shared(app, "--ssl-cert-reqs", "required", *words, **run)
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        seen(plain_address(server), context)


@pytest.mark.parametrize("reqs", ["optional", "required"])
@pytest.mark.parametrize("fault", ["a stranger's", "expired", "a server's"])
def test_a_client_that_shows_a_bad_one(
    shared: Factory, authority: Authority, clients: Authority, reqs: str, fault: str,
    version: ssl.TLSVersion,
) -> None:  # fmt: skip
    if fault == "expired":
        bad = clients.issue("old", common_name="Old", client=True, days=(-9, -1))
    elif fault == "a server's":
        bad = clients.issue("wrong", "wrong.example")
    else:
        bad = authority.issue("stranger", common_name="Somebody", client=True)
    server = shared(
        "tls_asgi:app", "--ssl-cert-reqs", reqs, "--ssl-ca-certs", str(clients.path), tls=True
    )
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        seen(plain_address(server), authority.trusting(bad, version))


def test_sessions_do_not_get_around_it(
    serve: Factory, authority: Authority, clients: Authority, tmp_path: Path,
    version: ssl.TLSVersion,
) -> None:  # fmt: skip
    """One that was made when no certificate was asked for is not taken up when one is."""
    file = tmp_path / "a.toml"
    file.write_text("workers = 2\n")
    server = serve("tls_asgi:app", "--config", str(file), tls=True)
    context = authority.trusting(version=version)
    session = seen(plain_address(server), context)[2].ended_with[0]
    assert seen(plain_address(server), context, session=session)[2].ended_with[1]
    file.write_text(f"workers = 2\nssl_cert_reqs = 'required'\nssl_ca_certs = '{clients.path}'\n")
    server.wait_log("Worker 2 is ready")
    old = children(server.pid)
    server.signal(signal.SIGHUP)
    server.wait_log("Reloaded")
    await_end(*old)  # until then, one of them may accept
    session = seen_or_none(server, context, session)
    assert session is None


def seen_or_none(server: Server, context: ssl.SSLContext, session: ssl.SSLSession | None) -> Any:
    try:
        return seen(plain_address(server), context, session=session)
    except (ssl.SSLError, ConnectionResetError):
        return None


# --- renewal ---------------------------------------------------------------------------------------------


def load(server: Server, **options: Any) -> Load:
    return Load(server.address, **options)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_renewed_under_load(
    serve: Factory, run: dict[str, Any], pair: Pair, fresh: Callable[[], Pair], workers: str
) -> None:
    """No connection and no request fails while the files are replaced, again and again."""
    app = run.pop("app")
    words = [*pair.words, "--ssl-reload-interval", "0.1", "--workers", workers]
    server = serve(app, *words, "--no-access-log", **run)
    with load(server, connections=2) as kept, load(server, connections=2, fields=("Connection: close",)) as new:  # fmt: skip
        for _ in range(3):
            renewed = fresh()
            pair.become(renewed)
            wait_until(
                lambda renewed=renewed: {serial(server) for _ in range(4)} == {renewed.serial},
                what="for the new certificate",
            )
            kept.wait(20)
            new.wait(20)
    assert kept.failures == []
    assert new.failures == []
    assert kept.connects == 2, "connections that were open stay so"
    assert len(re.findall(r"TLS: reloaded", server.log())) >= 3


def test_a_bad_renewal_changes_nothing(
    serve: Factory, run: dict[str, Any], authority: Authority, pair: Pair,
    fresh: Callable[[], Pair], tmp_path: Path,
) -> None:  # fmt: skip
    server = serve(run.pop("app"), *pair.words, "--ssl-reload-interval", "0.1", **run)
    before = pair.serial
    gone, rubbish = authority.issue("gone", *HERE, days=(-9, -1)), tmp_path / "rubbish"
    rubbish.write_text("rubbish")
    for bad, said in (
        (Pair(rubbish, pair.keyfile), "no certificate in PEM form"),
        (Pair(fresh().certfile, pair.keyfile), "does not belong to the certificate"),
        (gone, "expired"),
    ):
        server.mark()
        pair.become(bad)
        server.wait_log(f"ERROR: .*the old certificates stay: .*{said}")
        assert serial(server) == before
    renewed = fresh()
    pair.become(renewed)
    wait_until(lambda: serial(server) == renewed.serial)


def test_files_that_are_gone_change_nothing(serve: Factory, pair: Pair) -> None:
    server = serve("tls_asgi:app", *pair.words, "--ssl-reload-interval", "0.1", tls=True)
    before = pair.serial
    pair.certfile.unlink()
    server.wait_log("the old certificates stay: .*No such file")
    assert serial(server) == before


@pytest.mark.usefixtures("pair")  # the folder has a certificate
def test_reading_them_holds_up_nobody(serve: Factory, run: dict[str, Any], tmp_path: Path) -> None:
    """However long that takes: here as long as nobody writes to a pipe."""
    words = ("--ssl-sni-dir", str(tmp_path), "--ssl-reload-interval", "0.1")
    server = serve(run.pop("app"), *words, **run)
    before, pipe = serial(server), tmp_path / "slow.pem"
    ends: list[int] = []
    os.mkfifo(pipe)

    def is_read() -> bool:
        with contextlib.suppress(OSError):  # ENXIO: nobody has opened it yet
            ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    wait_until(is_read, what="for the pipe to be read")
    assert serial(server) == before
    pipe.unlink()
    os.close(ends[0])
    server.wait_log("TLS: (reloaded|left out)")


def test_looking_at_them_is_all_that_wakes(serve: Factory, run: dict[str, Any]) -> None:
    server = serve(run.pop("app"), "--ssl-reload-interval", "1", **run)
    assert serial(server) is not None
    await_quiet(server.pid, most=4, seconds=3)


def test_hangup_reads_them_again(
    serve: Factory, run: dict[str, Any], pair: Pair, fresh: Callable[[], Pair]
) -> None:
    """In a server without workers, too; 0 turns the look at the files off."""
    app = run.pop("app")
    server = serve(app, *pair.words, "--ssl-reload-interval", "0", **run)
    before = pair.serial
    renewed = fresh()
    with load(server, connections=2) as requests:
        requests.wait(5)
        pair.become(renewed)
        assert serial(server) == before
        server.signal(signal.SIGHUP)
        server.wait_log("The certificates were read again")
        assert serial(server) == renewed.serial
        requests.wait(5)
        pair.certfile.write_text("rubbish")
        server.signal(signal.SIGHUP)
        server.wait_log(
            "ERROR: .*certificates stay as they were: TLS: .*no certificate in PEM form"
        )
        assert serial(server) == renewed.serial
        requests.wait(5)
    assert requests.failures == []
    assert requests.connects == 2


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["import", "preload"])
def test_hangup_with_workers(
    serve: Factory, pair: Pair, fresh: Callable[[], Pair], preload: list[str]
) -> None:
    server = serve(
        "tls_asgi:app", *pair.words, "--ssl-reload-interval", "0", "--workers", "2", *preload,
        "--no-access-log", tls=True,
    )  # fmt: skip
    server.wait_log("Worker 2 is ready")
    renewed, old = fresh(), children(server.pid)
    with load(server, fields=("Connection: close",)) as requests:
        requests.wait(20)
        pair.become(renewed)
        server.signal(signal.SIGHUP)
        server.wait_log("Reloaded")
        await_end(*old)  # until then, one of them may accept
        assert {serial(server) for _ in range(4)} == {renewed.serial}
        server.mark()
        pair.certfile.write_text("rubbish")
        server.signal(signal.SIGHUP)
        server.wait_log("ERROR: .*Nothing is reloaded: TLS: .*no certificate in PEM form")
        requests.wait(20)
        assert {serial(server) for _ in range(4)} == {renewed.serial}
    assert requests.failures == []


def test_a_new_worker_has_the_newest(serve: Factory, pair: Pair, fresh: Callable[[], Pair]) -> None:
    """One that takes over from a dead one, with no signal; and the last good ones where the files are
    bad by then."""
    server = serve(
        "tls_asgi:app", *pair.words, "--ssl-reload-interval", "0", "--workers", "2", tls=True
    )
    server.wait_log("Worker 2 is ready")

    def kill_all() -> None:
        before = children(server.pid)
        server.mark()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.log().count("is ready") == 2)

    renewed = fresh()
    pair.become(renewed)
    kill_all()
    assert {serial(server) for _ in range(4)} == {renewed.serial}
    pair.certfile.write_text("rubbish")
    kill_all()
    assert server.log().count("The certificates stay as they were") == 2
    serial(server)


@ROOT
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_key_that_only_root_can_read(
    serve: Factory, authority: Authority, pair: Pair, workers: str
) -> None:
    pair.keyfile.chmod(0o600)
    server = serve(
        "tls_wsgi:app", *pair.words, "--user", "nobody", "--workers", workers, tls=True
    )  # fmt: skip
    assert serial(server) == pair.serial


# --- sessions --------------------------------------------------------------------------------------------


def test_workers_take_up_each_others_sessions(
    serve: Factory, authority: Authority, version: ssl.TLSVersion
) -> None:
    server = serve("tls_asgi:app", "--workers", "2", tls=True)
    server.wait_log("Worker 2 is ready")
    context = authority.trusting(version=version)
    _, _, client = seen(plain_address(server), context)
    session, reused = client.ended_with
    assert not reused

    def resume() -> int:
        nonlocal session
        _, found, client = seen(plain_address(server), context, session=session)
        session, reused = client.ended_with
        assert reused
        return found["pid"]

    pids: set[int] = set()
    wait_until(lambda: pids.add(resume()) or len(pids) == 2)
    server.signal(signal.SIGHUP)
    server.wait_log("Reloaded")
    wait_until(lambda: pids.add(resume()) or len(pids) >= 3)


# --- what is wrong at the start --------------------------------------------------------------------------


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


Bad = Callable[[Authority, Path], list[str]]

BAD: dict[str, tuple[Bad, str, int]] = {
    "missing certificate": (
        lambda a, t: ["--ssl-certfile", str(t / "none.pem")], "none.pem: there is no such file.", 1,
    ),
    "missing key": (
        lambda a, t: ["--ssl-certfile", str(a.here.certfile), "--ssl-keyfile", str(t / "none.key")],
        "none.key: there is no such file.", 1,
    ),
    "a folder": (lambda a, t: ["--ssl-certfile", str(t)], "this is a folder, not a file.", 1),
    "no key in it": (
        lambda a, t: ["--ssl-certfile", str(a.here.certfile)], "no usable private key in PEM form", 2,
    ),
    "no certificate": (
        lambda a, t: ["--ssl-certfile", str(a.here.keyfile)], "no certificate in PEM form in it.", 2,
    ),
    "rubbish": (
        lambda a, t: ["--ssl-certfile", write(t / "x.pem", "rubbish")], "no certificate in PEM form", 2,
    ),
    "cut": (
        lambda a, t: ["--ssl-certfile", write(t / "x.pem", a.here.certfile.read_text()[:300])],
        "x.pem: ", 2,
    ),
    "another's key": (
        lambda a, t: [*a.here.words[:3], str(a.issue("another", *HERE).keyfile)],
        "the private key does not belong to the certificate in ", 2,
    ),
    "expired": (
        lambda a, t: a.issue("expired", *HERE, days=(-9, -1)).words, "the certificate has expired at 20", 2,
    ),
    "not yet": (
        lambda a, t: a.issue("early", *HERE, days=(1, 9)).words, "the certificate is not valid before 20", 2,
    ),
    "no password": (
        lambda a, t: a.issue("no-password", *HERE, password="x").words,
        "the private key is encrypted, and no password is given.", 2,
    ),
    "wrong password": (
        lambda a, t: [*a.issue("wrong-password", *HERE, password="x").words, "--ssl-keyfile-password", "y"],
        "wrong password for the private key.", 2,
    ),
    "unknown cipher": (
        lambda a, t: [*a.here.words, "--ssl-ciphers", "ROT13"], "unknown cipher: ROT13.", 2,
    ),
    "no authorities": (
        lambda a, t: [*a.here.words, "--ssl-cert-reqs", "2", "--ssl-ca-certs", write(t / "ca.pem", "")],
        "ca.pem: no certificate in PEM form in it.", 2,
    ),
    "missing authorities": (
        lambda a, t: [*a.here.words, "--ssl-cert-reqs", "2", "--ssl-ca-certs", str(t / "ca.pem")],
        "ca.pem: there is no such file.", 1,
    ),
    "missing folder": (
        lambda a, t: [*a.here.words, "--ssl-sni-dir", str(t / "none")], "none: there is no such folder.", 1,
    ),
    "empty folder": (
        lambda a, t: [*a.here.words, "--ssl-sni-dir", str(t)], "no usable pair of certificate and key", 2,
    ),
    "old version": (
        lambda a, t: [*a.here.words, "--ssl-min-version", "TLSv1.1"], "'TLSv1.1' is not one of", 2,
    ),
    "key alone": (
        lambda a, t: a.here.words[2:], "--ssl-keyfile: does nothing without --ssl-certfile.", 2,
    ),
    "nobody to trust": (
        lambda a, t: [*a.here.words, "--ssl-cert-reqs", "required"], "without --ssl-ca-certs.", 2,
    ),
    "nobody asked": (
        lambda a, t: [*a.here.words, "--ssl-ca-certs", str(a.path)], "does nothing without --ssl-cert-reqs.", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "workers"),
    [*((name, "1") for name in BAD), *((name, "2") for name in ("missing key", "expired"))],
)
def test_what_is_wrong_is_said_in_a_line(
    authority: Authority, tmp_path: Path, name: str, workers: str
) -> None:
    """Before anything is bound, and before the application is imported."""
    make, text, status = BAD[name]
    path = tmp_path / "socket"
    words = make(authority, tmp_path)
    done = command(*words, "--workers", workers, "--uds", str(path), "there_is_no_such_module:app")
    if name == "old version":
        assert done.returncode == status
        assert text in done.stdout
    else:
        assert_line(done, text, status)
    assert not path.exists()


def test_check_config_says_it_too(authority: Authority) -> None:
    done = command("--check-config", "--ssl-certfile", str(authority.here.keyfile), "tls_asgi:app")
    assert_line(done, "no certificate in PEM form in it.", 2)


# --- from Python, and under gunicorn ---------------------------------------------------------------------


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


def test_a_server_in_a_program(authority: Authority) -> None:
    here = authority.here
    files = {"ssl_certfile": str(here.certfile), "ssl_keyfile": str(here.keyfile)}
    with asgiserver.Server(hello, port=0, quiet=True, **files) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        assert httpx.get(server.url, verify=authority.trusting()).text == "https"
    with pytest.raises(asgiserver.StartError, match="no certificate in PEM form"):
        asgiserver.Server(hello, port=0, ssl_certfile=str(here.keyfile)).run()


def test_the_plugin(authority: Authority, serve_app: Any) -> None:
    here = authority.here
    served = serve_app(hello, ssl_certfile=str(here.certfile), ssl_keyfile=str(here.keyfile))
    assert httpx.get(served.url, verify=authority.trusting()).text == "https"


@pytest.fixture
def gunicorn(
    tmp_path: Path, authority: Authority, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Gunicorn]]:
    started: list[Gunicorn] = []

    def begin(kind: str, conf: str, wait: bool = True) -> Gunicorn:
        worker, app = {"asgi": ("ASGIWorker", "tls_asgi:app"), "wsgi": ("WSGIWorker", "tls_wsgi:app")}[kind]  # fmt: skip
        server = Gunicorn(worker, app, conf, tmp_path, tls=authority)
        started.append(server)
        if wait:
            server.await_ready()
        return server

    yield begin
    end_all(request.node, started)


def files_of(pair: Pair) -> str:
    return f"certfile = {str(pair.certfile)!r}\nkeyfile = {str(pair.keyfile)!r}\n"


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_gunicorn(
    gunicorn: Callable[..., Gunicorn], authority: Authority, clients: Authority, shown: Pair,
    pair: Pair, fresh: Callable[[], Pair], kind: str,
) -> None:  # fmt: skip
    conf = (
        f"{files_of(pair)}workers = 2\nca_certs = {str(clients.path)!r}\ncert_reqs = 2\n"
        "import ssl\nssl_version = ssl.PROTOCOL_TLS_SERVER\ndo_handshake_on_connect = True\n"
    )
    server = gunicorn(kind, conf)
    server.context = authority.trusting(shown)
    certificate, found, client = seen(plain_address(server), server.context)
    assert certificate.serial_number == pair.serial
    assert "CN=Somebody" in (
        found["tls"].get("client_cert_name"),
        found["tls"].get("SSL_CLIENT_S_DN"),
    )
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        seen(plain_address(server), authority.trusting())
    session, pids = client.ended_with[0], set()

    def resume() -> bool:
        nonlocal session
        _, found, client = seen(plain_address(server), server.context, session=session)
        session, reused = client.ended_with
        assert reused
        pids.add(found["pid"])
        return len(pids) > 1

    wait_until(resume)
    renewed = fresh()
    pair.become(renewed)
    server.signal(signal.SIGHUP)
    wait_until(lambda: serial(server) == renewed.serial)


def test_gunicorn_with_bad_files(gunicorn: Callable[..., Gunicorn], pair: Pair) -> None:
    server = gunicorn("asgi", files_of(pair))
    before = pair.serial
    pair.certfile.write_text("rubbish")
    server.signal(signal.SIGHUP)
    server.wait_log(
        r"\[ERROR\] The certificates stay as they were: TLS: .*no certificate in PEM form"
    )
    wait_until(lambda: len(server.workers()) > 1)
    assert serial(server) == before
    server = gunicorn("asgi", files_of(pair), wait=False)
    assert server.wait() == 1
    assert re.search(
        r"^Error: TLS: .*no certificate in PEM form in it\.$", server.log(), re.MULTILINE
    )
    assert not server.workers()
