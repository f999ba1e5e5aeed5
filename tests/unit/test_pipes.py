"""support/tls.py: what is done with the test's socket happens to the TLS connection, and back."""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.client import TLSAddress, connect

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def shown_by(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.here.certfile, authority.here.keyfile)
    return context


class Ends:
    """A client, and the server's end of its connection, made by Python's ssl."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        context = authority.trusting(version=version)
        self.client = connect(TLSAddress(self.listener.getsockname(), context, "localhost"), 10)
        plain, self.peer = self.listener.accept()
        plain.settimeout(10)
        self.server = shown_by(authority).wrap_socket(
            plain, server_side=True, suppress_ragged_eofs=False
        )


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def ends(authority: Authority, request: pytest.FixtureRequest) -> Iterator[Ends]:
    made = Ends(authority, request.param)
    yield made
    made.client.close()
    made.server.close()
    made.listener.close()


def test_bytes_both_ways(ends: Ends) -> None:
    assert ends.client.socket.getsockname() == ends.peer
    data = bytes(range(256)) * 2000
    ends.client.send(data[:100_000])
    got = b""
    while len(got) < 100_000:
        got += ends.server.recv(65536)
    assert got == data[:100_000]
    ends.client.send("go on")
    assert ends.server.recv(100) == b"go on"
    assert not select.select([ends.client.socket], [], [], 0.1)[0], "tickets are no data"
    ends.server.sendall(data)
    assert ends.client.recv_exactly(len(data)) == data


def test_half_close_of_the_client(ends: Ends) -> None:
    ends.client.send("question")
    ends.client.shutdown()
    assert ends.server.recv(100) == b"question"
    assert ends.server.recv(100) == b"", "close_notify"
    ends.server.sendall(b"answer")
    assert ends.client.recv_exactly(6) == b"answer"
    ends.server.unwrap()
    assert ends.client.at_end()


def test_half_close_of_the_server(ends: Ends) -> None:
    ends.server.sendall(b"answer")
    ends.server.settimeout(0)
    with pytest.raises(ssl.SSLWantReadError):
        ends.server.unwrap()
    ends.server.settimeout(10)
    assert ends.client.recv_all() == b"answer"
    ends.client.send("later")
    assert ends.server.recv(100) == b"later"


def test_reset_by_the_client(ends: Ends) -> None:
    ends.client.send("question")
    assert ends.server.recv(100) == b"question"
    ends.client.reset()
    with socket.socket(fileno=os.dup(ends.server.fileno())) as below:
        below.settimeout(10)
        with pytest.raises(ConnectionResetError):
            below.recv(1)


def test_an_end_without_close_notify_is_a_reset(ends: Ends) -> None:
    ends.server.sendall(b"answ")
    assert ends.client.recv_exactly(4) == b"answ"
    ends.server.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionResetError):
        ends.client.recv_all()
    assert isinstance(ends.client.socket.pipe.error, ssl.SSLEOFError)


def test_a_certificate_that_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = TLSAddress(listener.getsockname(), stranger.trusting(), "localhost")
        with connect(address, 10) as client:
            plain, _ = listener.accept()
            plain.settimeout(10)
            with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
                shown_by(authority).wrap_socket(plain, server_side=True).recv(1)
            with pytest.raises(ConnectionResetError):
                client.recv_all()
            assert isinstance(client.socket.pipe.error, ssl.SSLCertVerificationError)
            plain.close()
