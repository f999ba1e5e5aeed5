"""A client of TLS that makes its records by hand once it is connected: what no library lets a client send.

The handshake is Python's, which tells the keys (the format of SSLKEYLOGFILE); from there on each record is sealed here,
in AES-GCM, as RFC 5246 and RFC 5288, or RFC 8446 say.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
import struct
import tempfile
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HANDSHAKE, DATA = 22, 23
CLIENT_HELLO = b"\1\0\0\0"  # its header: a server that renegotiates not looks no further
KEY_UPDATE = b"\x18\0\0\1\1"  # and the peer shall do the same (RFC 8446, 4.6.3)
SUITES = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"


class Records:
    """One connection, over a socket that is connected. ``seal`` makes the next record, which must be sent."""

    def __init__(self, sock: socket.socket, version: ssl.TLSVersion) -> None:
        self.sock, self._sequence = sock, 0
        with tempfile.NamedTemporaryFile("r") as told:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.minimum_version = context.maximum_version = version
            context.set_ciphers(SUITES)
            context.keylog_filename = told.name
            seen, suite = self._shake_hands(context)
            lines = dict(line.split(" ", 1) for line in told.read().splitlines() if " " in line)
        self._is_13 = version == ssl.TLSVersion.TLSv1_3
        self._hash = "sha384" if suite.endswith("SHA384") else "sha256"
        if self._is_13:
            self._size = 16 if "AES_128" in suite else 32
            self._take(bytes.fromhex(lines["CLIENT_TRAFFIC_SECRET_0"].split()[1]))
            return
        client, master = (bytes.fromhex(word) for word in lines["CLIENT_RANDOM"].split())
        server = seen[11:43]  # of the ServerHello, the first that comes: record, message, version
        keys = self._prf(master, b"key expansion" + server + client, 40)
        self._cipher, self._iv, self._sequence = (
            AESGCM(keys[:16]),
            keys[32:36],
            1,
        )  # behind Finished

    def _shake_hands(self, context: ssl.SSLContext) -> tuple[bytes, str]:
        """The bytes of the server, and the suite."""
        incoming, outgoing, seen = ssl.MemoryBIO(), ssl.MemoryBIO(), b""
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(outgoing.read())
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionResetError("the handshake was cut") from None
                seen += data
                incoming.write(data)
        self.sock.sendall(outgoing.read())
        cipher: Any = tls.cipher()
        return seen, cipher[0]

    def _prf(self, secret: bytes, seed: bytes, n: int) -> bytes:
        """RFC 5246, 5."""
        out, at = b"", seed
        while len(out) < n:
            at = hmac.digest(secret, at, self._hash)
            out += hmac.digest(secret, at + seed, self._hash)
        return out[:n]

    def _expand(self, secret: bytes, label: bytes, n: int) -> bytes:
        """HKDF-Expand-Label (RFC 8446, 7.1) of no more than one block."""
        info = struct.pack("!HB", n, 6 + len(label)) + b"tls13 " + label + b"\0"
        return hmac.digest(secret, info + b"\1", self._hash)[:n]

    def _take(self, secret: bytes) -> None:
        self._secret, self._sequence = secret, 0
        self._cipher = AESGCM(self._expand(secret, b"key", self._size))
        self._iv = self._expand(secret, b"iv", 12)

    def seal(self, kind: int, data: bytes) -> bytes:
        number = struct.pack("!Q", self._sequence)
        self._sequence += 1
        if not self._is_13:
            about = number + struct.pack("!BHH", kind, 0x0303, len(data))
            sealed = number + self._cipher.encrypt(self._iv + number, data, about)
            return struct.pack("!BHH", kind, 0x0303, len(sealed)) + sealed
        head = struct.pack("!BHH", DATA, 0x0303, len(data) + 17)
        nonce = bytes(a ^ b for a, b in zip(self._iv, b"\0\0\0\0" + number, strict=True))
        return head + self._cipher.encrypt(nonce, data + bytes([kind]), head)

    def renegotiation(self) -> bytes:
        """A client that wants to shake hands anew, in TLS 1.2."""
        return self.seal(HANDSHAKE, CLIENT_HELLO)

    def key_update(self) -> bytes:
        """In TLS 1.3."""
        record = self.seal(HANDSHAKE, KEY_UPDATE)
        self._take(self._expand(self._secret, b"traffic upd", hashlib.new(self._hash).digest_size))
        return record
