"""asgiserver.gunicorn.settings: every setting of gunicorn has a row, and what the rows make of values."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import KNOWN_SETTINGS, Config

from asgiserver.gunicorn.settings import SETTINGS, Refused, table, to_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gunicorn.md"
BOTH = ("asgi", "wsgi")


def configured(**values: Any) -> Config:
    cfg = Config()
    for name, value in values.items():
        cfg.set(name, value)
    return cfg


def test_every_setting_has_a_row():
    assert set(SETTINGS) == {setting.name for setting in KNOWN_SETTINGS}


def test_what_is_refused_has_a_reason():
    assert not [name for name, rule in SETTINGS.items() if rule.how == "refused" and not rule.note]


def test_the_page_has_the_table():
    assert table() in PAGE.read_text("utf-8"), "run tools/gen_gunicorn_docs.py"


@pytest.mark.parametrize("interface", BOTH)
def test_defaults_are_honoured(interface):
    config = to_config(Config(), interface, {})
    assert config.timeout_keep_alive == 2
    assert config.limit_connections == 1000
    assert config.limit_request_line == 4094
    assert config.limit_request_fields == 100
    assert config.limit_request_field_size == 8190
    assert config.limit_request_head == 4094 + 100 * 8192 + 4
    assert config.timeout_graceful_shutdown == 28
    assert config.threads == 0


# setting, value, our option, what it becomes
MAPPED = [
    ("keepalive", 0, "timeout_keep_alive", 0),
    ("keepalive", 75, "timeout_keep_alive", 75),
    ("worker_connections", 7, "limit_connections", 7),
    ("graceful_timeout", 3, "timeout_graceful_shutdown", 2),
    ("graceful_timeout", 0, "timeout_graceful_shutdown", 0),
    ("graceful_timeout", 120, "timeout_graceful_shutdown", 118),
    ("limit_request_line", 0, "limit_request_line", 1 << 20),
    ("limit_request_line", 100, "limit_request_line", 100),
    ("limit_request_line", 9999, "limit_request_line", 8190),
    ("limit_request_fields", 0, "limit_request_fields", 32768),
    ("limit_request_fields", 5, "limit_request_fields", 5),
    ("limit_request_field_size", 0, "limit_request_field_size", 0),
    ("limit_request_field_size", 0, "limit_request_head", 1 << 24),
    ("limit_request_field_size", 50, "limit_request_field_size", 50),
    ("limit_request_field_size", 50, "limit_request_head", 4094 + 100 * 52 + 4),
    ("forwarded_allow_ips", "10.0.0.0/8, ::1", "forwarded_allow_ips", "10.0.0.0/8,::1,unix"),
    ("forwarded_allow_ips", "*", "forwarded_allow_ips", "*,unix"),
    ("proxy_protocol", "v2", "proxy_protocol", "v2"),
    ("proxy_protocol", True, "proxy_protocol", "auto"),
    ("reload", True, "reload", True),
    ("workers", 3, "workers", 3),
]


@pytest.mark.parametrize("interface", BOTH)
@pytest.mark.parametrize(("setting", "value", "option", "wanted"), MAPPED)
def test_mapped(interface, setting, value, option, wanted):
    assert getattr(to_config(configured(**{setting: value}), interface, {}), option) == wanted


@pytest.mark.parametrize(
    ("interface", "setting", "value", "option", "wanted"),
    [
        ("wsgi", "threads", 1, "threads", 0),
        ("wsgi", "threads", 4, "threads", 4),
        ("asgi", "asgi_loop", "asyncio", "loop", "asyncio"),
        ("asgi", "asgi_lifespan", "on", "lifespan", "on"),
        ("asgi", "asgi_disconnect_grace_period", 7, "timeout_cancel", 7),
        ("asgi", "asgi_disconnect_grace_period", 0, "timeout_cancel", 0.001),
        ("asgi", "websocket_max_message_size", 1000, "ws_max_size", 1000),
    ],
)
def test_mapped_for_one_interface(interface, setting, value, option, wanted):
    config = to_config(configured(**{setting: value}), interface, {})
    assert getattr(config, option) == wanted
    if value != 1:
        other = "asgi" if interface == "wsgi" else "wsgi"
        with pytest.raises(Refused, match=rf"\b{setting} \(it has no meaning for"):
            to_config(configured(**{setting: value}), other, {})


def own_context(config, factory):
    return factory()


REFUSED: dict[str, Any] = {
    "ssl_version": ssl.PROTOCOL_TLSv1_2,
    "ssl_context": own_context,
    "http_protocols": "h1,h2",
    "http2_cleartext": "upgrade",
    "http2_max_concurrent_streams": 7,
    "http2_initial_window_size": 70000,
    "http2_max_frame_size": 20000,
    "http2_max_header_list_size": 7000,
    "protocol": "uwsgi",
    "uwsgi_allow_ips": "10.0.0.1",
    "tmp_upload_dir": "/tmp",
    "permit_obsolete_folding": True,
    "strip_header_spaces": True,
    "permit_unconventional_http_method": True,
    "permit_unconventional_http_version": True,
    "casefold_http_method": True,
    "header_map": "dangerous",
    "forwarder_headers": "REMOTE_USER",
    "http_parser": "python",
}


def test_every_refusal_is_tried():
    assert set(REFUSED) == {name for name, rule in SETTINGS.items() if rule.how == "refused"}


TLS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"certfile": "a", "keyfile": "b"}, {"ssl_certfile": "a", "ssl_keyfile": "b"}),
    ({"certfile": "a", "ciphers": "HIGH"}, {"ssl_ciphers": "HIGH"}),
    (
        {"certfile": "a", "ca_certs": "c", "cert_reqs": ssl.CERT_REQUIRED},
        {"ssl_ca_certs": "c", "ssl_cert_reqs": 2},
    ),
    ({"certfile": "a", "ssl_version": ssl.PROTOCOL_TLS_SERVER}, {"ssl_min_version": "TLSv1.2"}),
    ({"certfile": "a", "ssl_version": "TLS_SERVER"}, {}),
    ({"certfile": "a", "suppress_ragged_eofs": False, "do_handshake_on_connect": True}, {}),
]


@pytest.mark.parametrize("interface", BOTH)
@pytest.mark.parametrize(("values", "wanted"), TLS)
def test_tls(interface, values, wanted):
    config = to_config(configured(**values), interface, {"ssl_reload_interval": 1})
    assert {name: getattr(config, name) for name in wanted} == wanted
    assert config.ssl_reload_interval == 1


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"keyfile": "b"}, "keyfile: does nothing without certfile"),
        ({"certfile": "a", "cert_reqs": 2}, "cert_reqs: .* without ca_certs"),
        ({"certfile": "a", "ca_certs": "b"}, "ca_certs: .* without cert_reqs"),
        ({"certfile": "a", "cert_reqs": 3}, "cert_reqs: 3 is more than 2"),
    ],
)
def test_tls_that_does_not_go_together(values, text):
    with pytest.raises(Refused, match=rf"^asgiserver cannot honour: {text}\.$"):
        to_config(configured(**values), "asgi", {})


@pytest.mark.parametrize("interface", BOTH)
@pytest.mark.parametrize("setting", REFUSED)
def test_refused(interface, setting):
    with pytest.raises(Refused, match=rf"^asgiserver cannot honour: {setting} \(\w.*\)\.$"):
        to_config(configured(**{setting: REFUSED[setting]}), interface, {})


def test_all_refusals_are_in_one_line():
    with pytest.raises(Refused) as caught:
        to_config(configured(protocol="uwsgi", header_map="refuse"), "wsgi", {"frobnicate": 1})
    text = str(caught.value)
    assert "\n" not in text
    assert all(name in text for name in ("protocol", "header_map", "CONFIG_KWARGS['frobnicate']"))


def test_a_setting_of_a_newer_gunicorn_is_refused_unless_default():
    cfg = Config()
    fresh = cfg.settings["brand_new"] = type(cfg.settings["proc_name"])()
    to_config(cfg, "wsgi", {})
    fresh.set("something")
    with pytest.raises(Refused, match=r"brand_new \(it is newer"):
        to_config(cfg, "wsgi", {})


def test_a_value_that_we_cannot_have_is_refused():
    with pytest.raises(Refused, match="timeout_keep_alive: 100000 is more than"):
        to_config(configured(keepalive=100_000), "wsgi", {})


OVERRIDES = [
    ({"loop": "asyncio"}, "loop", "asyncio"),
    ({"lifespan": "off"}, "lifespan", "off"),
    ({"root_path": "/x"}, "root_path", "/x"),
    ({"headers": [("X-One", "1")]}, "headers", [("X-One", "1")]),
    ({"timeout_keep_alive": 9}, "timeout_keep_alive", 9),
    ({"proxy_headers": False}, "proxy_headers", False),
]


@pytest.mark.parametrize(("overrides", "option", "wanted"), OVERRIDES)
def test_config_kwargs_win(overrides, option, wanted):
    value = getattr(to_config(Config(), "asgi", overrides), option)
    assert (list(value) if option == "headers" else value) == wanted


@pytest.mark.parametrize(
    "name", ["http", "h11_max_incomplete_event_size", "workers", "port", "log_config"]
)
def test_config_kwargs_that_are_none_of_ours(name):
    with pytest.raises(Refused, match=rf"CONFIG_KWARGS\['{name}'\] \("):
        to_config(Config(), "asgi", {name: 1})


def test_config_kwargs_are_checked():
    with pytest.raises(Refused, match="lifespan: 'maybe' is not one of"):
        to_config(Config(), "asgi", {"lifespan": "maybe"})


def test_script_name_of_the_environment(monkeypatch):
    monkeypatch.setenv("SCRIPT_NAME", "/app")
    assert to_config(Config(), "wsgi", {}).root_path == "/app"
    assert to_config(Config(), "asgi", {}).root_path == ""
