"""Certificates for tests: an authority, and what it signs, as PEM files of a folder of its own."""

from __future__ import annotations

import functools
import ipaddress
import os
import shutil
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = ("localhost", "127.0.0.1", "::1")
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Pair:
    """A certificate (with those behind it) and its key, each in a file."""

    certfile: Path
    keyfile: Path

    @property
    def words(self) -> list[str]:
        """The options for a server that shows it."""
        return ["--ssl-certfile", str(self.certfile), "--ssl-keyfile", str(self.keyfile)]

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.certfile.read_bytes()).serial_number

    def copy(self, folder: Path, stem: str = "server") -> Pair:
        """The same under names of its own, for a test that replaces it."""
        copied = Pair(folder / f"{stem}.pem", folder / f"{stem}.key")
        copied.become(self)
        return copied

    def become(self, other: Pair) -> None:
        """Replaces the files as a tool for renewal does: each at once."""
        for mine, its in ((self.keyfile, other.keyfile), (self.certfile, other.certfile)):
            fresh = mine.with_suffix(".new")
            shutil.copyfile(its, fresh)
            os.replace(fresh, mine)


class Authority:
    """Signs certificates, into ``folder``. ``path`` is its own, which clients trust."""

    def __init__(self, folder: Path, name: str = "Test authority", above: Authority | None = None):
        self._folder = folder
        self._key: _Key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._chain: list[x509.Certificate] = []
        issuer, key = (above._name, above._key) if above is not None else (self._name, self._key)
        now = datetime.now(UTC)
        self._certificate = (
            _builder(self._name, issuer, self._key, now - timedelta(days=1), now + timedelta(30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(_identifier(self._key), critical=False)
            .add_extension(_identifier(key, of_issuer=True), critical=False)
            .sign(key, hashes.SHA256())
        )
        if above is not None:
            self._chain = [self._certificate, *above._chain]
        self.path = folder / f"{name.replace(' ', '-')}.pem"
        self.path.write_bytes(_pem(self._certificate))

    def issue(
        self,
        stem: str,
        *names: str,
        common_name: str = "",
        client: bool = False,
        use_rsa: bool = False,
        days: tuple[float, float] = (-1, 20),
        password: str | None = None,
    ) -> Pair:
        """A certificate for ``names`` (host names, also with ``*``, and addresses), good from and to
        so many days from now. ``password`` encrypts the key."""
        key: _Key = rsa.generate_private_key(65537, 2048) if use_rsa else ec.generate_private_key(ec.SECP256R1())  # fmt: skip
        now = datetime.now(UTC)
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            _builder(
                _name(common_name or (names[0] if names else stem)), self._name, key,
                now + timedelta(days[0]), now + timedelta(days[1]),
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(_identifier(self._key, of_issuer=True), critical=False)
        )  # fmt: skip
        if names:
            builder = builder.add_extension(_alternatives(names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        pair = Pair(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        pair.certfile.write_bytes(b"".join(map(_pem, [signed, *self._chain])))
        pair.keyfile.write_bytes(_key_pem(key, password))
        return pair

    @functools.cached_property
    def here(self) -> Pair:
        """For this machine's own names."""
        return self.issue("here", *HERE)

    def trusting(
        self,
        shown: Pair | None = None,
        version: ssl.TLSVersion | None = None,
        alpn: Sequence[str] = (),
    ) -> ssl.SSLContext:
        """What clients connect with; ``shown`` is their certificate, ``version`` the only one."""
        context = ssl.create_default_context(cafile=str(self.path))
        if shown is not None:
            context.load_cert_chain(shown.certfile, shown.keyfile)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: _Key, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _identifier(key: _Key, of_issuer: bool = False) -> x509.ExtensionType:
    kind = x509.AuthorityKeyIdentifier.from_issuer_public_key if of_issuer else x509.SubjectKeyIdentifier.from_public_key  # fmt: skip
    return kind(key.public_key())


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: _Key, password: str | None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode())
        if password is not None
        else serialization.NoEncryption(),
    )
