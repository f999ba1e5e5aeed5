"""``Config``: checks, and what the core gets from it."""

import re
import ssl
from typing import Any

import pytest

from asgiserver import Config


def test_defaults() -> None:
    config = Config()
    assert config.app is None
    assert (config.host, config.port, config.lifespan) == ("127.0.0.1", 8000, "auto")


@pytest.mark.parametrize("text", ["uvicorn", "common", "combined", "json", '%(h)s "%(r)s"'])
def test_formats_of_the_access_log(text: str) -> None:
    assert Config(access_log_format=text).access_log_format == text


def test_settings_are_keywords() -> None:
    with pytest.raises(TypeError):
        Config("main:app", "127.0.0.1")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"port": 70000}, ValueError, "port: 70000 is more than 65535"),
        ({"port": "80"}, TypeError, "port: int expected, not str"),
        ({"uds": "/tmp/x", "fd": 3}, ValueError, "uds: not together with fd"),
        ({"root_path": "api"}, ValueError, "root_path: 'api' does not begin with /"),
        ({"headers": [("X Y", "1")]}, ValueError, "headers: 'X Y' is not a header name"),
        ({"headers": [("X", "a\r\nb: c")]}, ValueError, "headers: 'a\\r\\nb: c' cannot be"),
        ({"headers": [("X", " a")]}, ValueError, "headers: ' a' cannot be"),
        ({"headers": [("X", "€")]}, ValueError, "headers: '€' cannot be"),
        ({"headers": [("Content-Length", "1")]}, ValueError, "headers: Content-Length is set by"),
        ({"headers": "X:1"}, TypeError, "headers: list or tuple expected, not str"),
        (
            {"log_file": "x", "log_config": "y"},
            ValueError,
            "log_file: not together with log_config",
        ),
        (
            {"access_log_format": "combind"},
            ValueError,
            "access_log_format: combind is none of uvicorn, common, combined and json, and has no",
        ),
        ({"access_log_format": ""}, ValueError, "access_log_format: "),
        ({"access_log_format": "%(x)s"}, ValueError, "access_log_format: there is no %(x)s"),
        (
            {"access_log_format": "%({PATH_INFO}e)s"},
            ValueError,
            "access_log_format: %({PATH_INFO}e)s: the access log knows only HTTP_",
        ),
        ({"access_log_format": "%(s)s \ud800"}, ValueError, "access_log_format: "),
        ({"ssl_keyfile": "k"}, ValueError, "ssl_keyfile: does nothing without ssl_certfile"),
        ({"ssl_min_version": "TLSv1.3"}, ValueError, "ssl_min_version: does nothing without ssl_c"),
        (
            {"ssl_certfile": "c", "ssl_cert_reqs": "required"},
            ValueError,
            "ssl_cert_reqs: nobody could show a certificate without ssl_ca_certs",
        ),
        (
            {"ssl_certfile": "c", "ssl_ca_certs": "a", "ssl_cert_reqs": "none"},
            ValueError,
            "it does nothing without ssl_cert_reqs",
        ),
        ({"ssl_certfile": "c", "ssl_cert_reqs": "must"}, TypeError, "ssl_cert_reqs: int expected"),
        (
            {"ssl_certfile": "c", "ssl_min_version": "1.1"},
            ValueError,
            "'1.1' is not one of TLSv1.2",
        ),
        ({"log_config": 3}, TypeError, "log_config: str expected, not int"),
    ],
)
def test_refused(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        Config("main:app", **settings)


@pytest.mark.parametrize(
    ("value", "number"),
    [(0, 0), (ssl.CERT_OPTIONAL, 1), (2, 2), ("optional", 1), ("required", 2)],
)
def test_certificates_of_clients(value: Any, number: int) -> None:
    ca = "ca" if number else None
    config = Config(ssl_certfile="c", ssl_cert_reqs=value, ssl_ca_certs=ca)
    assert config.client_certificates == number


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(Config(ssl_certfile="c", ssl_keyfile_password="secret"))


@pytest.mark.parametrize(
    ("body", "spool", "expected"),
    [
        (None, None, 4 << 30),
        (1 << 20, None, 4 << 30),
        (2 << 30, None, 8 << 30),  # one that is allowed has room
        (0, None, 0),
        (0, 1000, 1000),
        (2 << 30, 1 << 30, 1 << 30),
        (1 << 20, 0, 0),
    ],
)
def test_room_for_bodies(body: int | None, spool: int | None, expected: int) -> None:
    given = {"limit_request_body": body, "limit_body_spool": spool}
    config = Config(**{name: value for name, value in given.items() if value is not None})
    assert config.core_limits()["limit_body_spool"] == expected


def test_limits_for_the_core() -> None:
    limits = Config(timeout_keep_alive=0, timeout_write=1.5, limit_request_line=100).core_limits()
    assert limits["timeout_keep_alive"] == 0
    assert limits["timeout_write"] == 1500
    assert limits["limit_request_line"] == 100
    assert limits["server_header"] == 1
    assert all(type(value) is int for value in limits.values())
    assert "timeout_graceful_shutdown" not in limits


def test_headers_for_the_core() -> None:
    config = Config(headers=[("X-Name", "café"), ("X-Empty", "")])
    assert config.core_headers() == [(b"X-Name", b"caf\xe9"), (b"X-Empty", b"")]


def test_a_given_header_replaces_the_servers_own() -> None:
    limits = Config(headers=[("server", "mine")]).core_limits()
    assert (limits["server_header"], limits["date_header"]) == (0, 1)


def test_logging_from_python_may_be_a_dict() -> None:
    assert Config(log_config={"version": 1}).log_config == {"version": 1}
