"""The certificates that a server shows: loaded before anything is bound, and again on SIGHUP.

While it serves, the core looks at the files itself (``ssl_reload_interval``). Where processes are
started one after the other, each reads the files before it gives up its rights, and keeps what its
parent had read where they are bad by then.
"""

import os
import threading
from typing import TYPE_CHECKING

from . import importer, logs
from .config import Config
from .errors import USAGE, StartError

if TYPE_CHECKING:
    from . import _core

_TICKET_KEY = 80  # bytes: a name, a key to encrypt with, and one to sign with
_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def new_ticket_key() -> bytes:
    """Processes that have one in common take up each other's sessions."""
    return os.urandom(_TICKET_KEY)


class Certificates:
    """What is spoken TLS with. ``context`` is for the core. Raises StartError."""

    def __init__(self, config: Config, ticket_key: bytes) -> None:
        self._config, self._ticket_key = config, ticket_key
        self._lock = threading.Lock()
        self.context = _load(config, ticket_key)

    def read_again(self) -> None:
        """The files as they are now. Raises StartError for bad ones, and stays as it was."""
        with self._lock:
            self.context = _load(self._config, self._ticket_key)

    def warn(self) -> None:
        """Logs which certificates of the folder cannot be used, and why."""
        for line in self.context.warnings:
            logs.error.warning("Left out: %s", line)

    def refresh(self) -> bool:
        """The same; bad files are logged. Whether they were good."""
        try:
            self.read_again()
        except StartError as problem:
            logs.error.error("The certificates stay as they were: %s", problem)
            return False
        return True


def load(config: Config, ticket_key: bytes) -> Certificates | None:
    """None where TLS is not spoken. Logs what of a folder cannot be used. Raises StartError."""
    if config.ssl_certfile is None:
        return None
    certificates = Certificates(config, ticket_key)
    certificates.warn()
    return certificates


def check_files(config: Config) -> None:
    """Raises StartError for files that are missing or cannot be read."""
    for word, path in (
        ("--ssl-certfile", config.ssl_certfile),
        ("--ssl-keyfile", config.ssl_keyfile),
        ("--ssl-ca-certs", config.ssl_ca_certs),
    ):
        if path is not None:
            importer.check_readable(word, path)
    if config.ssl_sni_dir is not None and not os.path.isdir(config.ssl_sni_dir):
        raise StartError(f"--ssl-sni-dir {config.ssl_sni_dir}: there is no such folder.")


def _load(config: Config, ticket_key: bytes) -> "_core.TLSContext":
    from . import _core  # noqa: PLC0415 (a process without TLS need not have it)

    check_files(config)
    assert config.ssl_certfile is not None
    try:
        return _core.TLSContext(
            config.ssl_certfile,
            config.ssl_keyfile,
            password=config.ssl_keyfile_password,
            ca_certs=config.ssl_ca_certs,
            cert_reqs=config.client_certificates,
            ciphers=config.ssl_ciphers,
            min_version=_VERSIONS[config.ssl_min_version],
            sni_dir=config.ssl_sni_dir,
            ticket_key=ticket_key,
            reload_interval=config.ssl_reload_interval,
        )
    except _core.TLSError as error:
        raise StartError(f"TLS: {error}.", exit_code=USAGE) from None
