"""Every option has a test that shows its effect: the table says which."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from asgiserver import options
from asgiserver.cli import main as command

TESTS = Path(__file__).resolve().parent.parent

EFFECTS = {
    "interface": "e2e/test_cli.py::test_kinds_of_applications",
    "factory": "e2e/test_lifespan.py::test_factory",
    "app_dir": "e2e/test_cli.py::test_the_application_is_found",
    "env_file": "e2e/test_cli.py::test_env_file",
    "lifespan": "e2e/test_lifespan.py::test_lifespan_off",
    "root_path": "e2e/test_cli.py::test_a_file_is_an_application",
    "loop": "e2e/test_options.py::test_loop",
    "bind": "e2e/test_options.py::test_bind",
    "host": "e2e/test_options.py::test_host_and_port",
    "port": "e2e/test_options.py::test_host_and_port",
    "uds": "e2e/test_options.py::test_uds",
    "uds_mode": "e2e/test_cli.py::test_a_unix_socket_comes_and_goes",
    "fd": "e2e/test_cli.py::test_quiet",
    "backlog": "e2e/test_options.py::test_backlog",
    "reuse_port": "e2e/test_options.py::test_reuse_port",
    "workers": "e2e/test_workers.py::test_several_serve",
    "threads": "e2e/test_threads.py::test_they_are_threads_like_others",
    "preload": "e2e/test_options.py::test_preload",
    "reload": "e2e/test_options.py::test_reload",
    "reload_dir": "e2e/test_options.py::test_reload_dir",
    "reload_include": "e2e/test_options.py::test_reload_include",
    "reload_exclude": "e2e/test_options.py::test_reload_exclude",
    "ssl_certfile": "e2e/test_tls.py::test_certificate_and_key",
    "ssl_keyfile": "e2e/test_tls.py::test_certificate_and_key",
    "ssl_keyfile_password": "e2e/test_tls.py::test_an_encrypted_key",
    "ssl_sni_dir": "e2e/test_tls.py::test_the_name_chooses",
    "ssl_ca_certs": "e2e/test_tls.py::test_a_client_that_shows_one",
    "ssl_cert_reqs": "e2e/test_tls.py::test_a_client_that_shows_one",
    "ssl_ciphers": "e2e/test_tls.py::test_ciphers",
    "ssl_min_version": "e2e/test_tls.py::test_oldest_version",
    "ssl_reload_interval": "e2e/test_tls.py::test_names_come_and_go",
    "server_header": "e2e/test_http1.py::test_no_date_no_server",
    "date_header": "e2e/test_http1.py::test_no_date_no_server",
    "headers": "e2e/test_http1.py::test_added_headers",
    "health_path": "e2e/test_workers.py::test_shutdown_delay",
    "ws": "e2e/test_websocket.py::test_off",
    "ws_max_size": "e2e/test_websocket.py::test_max_size",
    "ws_max_queue": "e2e/test_websocket.py::test_max_queue",
    "ws_ping_interval": "e2e/test_websocket.py::test_ping_interval",
    "ws_ping_timeout": "e2e/test_websocket.py::test_ping_timeout",
    "ws_close_timeout": "e2e/test_websocket.py::test_close_timeout",
    "ws_per_message_deflate": "e2e/test_websocket.py::test_per_message_deflate",
    "proxy_headers": "e2e/test_proxy.py::test_not_believed",
    "forwarded_allow_ips": "e2e/test_proxy.py::test_lists",
    "proxy_protocol": "e2e/test_proxy.py::test_proxy_header_at_a_unix_socket",
    "limit_request_line": "e2e/test_http1.py::test_limit_request_line",
    "limit_request_head": "e2e/test_http1.py::test_limit_request_head",
    "limit_request_fields": "e2e/test_http1.py::test_limit_request_fields",
    "limit_request_field_size": "e2e/test_http1.py::test_limit_request_field_size",
    "limit_request_body": "e2e/test_http1.py::test_limit_request_body",
    "limit_concurrency": "e2e/test_http1.py::test_limit_concurrency",
    "limit_connections": "e2e/test_http1.py::test_limit_connections",
    "limit_tls_handshakes": "e2e/test_tls_wire.py::test_stalled_handshakes_hold_nobody_up",
    "limit_pipeline": "e2e/test_connections.py::test_what_waits_behind_a_request_is_bounded",
    "limit_body_buffer": "e2e/test_asgi.py::test_upload_goes_on_when_it_is_read",
    "limit_write_buffer": "e2e/test_options.py::test_limit_write_buffer",
    "limit_body_memory": "e2e/test_wsgi.py::test_input_from_a_file",
    "limit_body_spool": "e2e/test_body_spool.py::test_no_limit",
    "limit_body_discard": "e2e/test_connections.py::test_unread_body_above_the_limit_closes",
    "min_body_rate": "e2e/test_http1.py::test_rate_of_the_body",
    "min_write_rate": "e2e/test_http1.py::test_rate_of_reading",
    "limit_max_requests": "e2e/test_workers.py::test_max_requests",
    "limit_max_requests_jitter": "e2e/test_workers.py::test_max_requests",
    "limit_max_age": "e2e/test_workers.py::test_max_age",
    "limit_max_rss": "e2e/test_workers.py::test_max_rss",
    "timeout_tls_handshake": "e2e/test_tls_wire.py::test_timeout_of_the_handshake",
    "timeout_request_head": "e2e/test_http1.py::test_timeout_of_the_head",
    "timeout_request_body": "e2e/test_http1.py::test_timeout_of_the_body",
    "timeout_keep_alive": "e2e/test_http1.py::test_timeout_of_keep_alive",
    "timeout_write": "e2e/test_http1.py::test_timeout_of_writing",
    "timeout_linger": "e2e/test_options.py::test_timeout_linger",
    "timeout_graceful_shutdown": "e2e/test_cli.py::test_requests_are_cut_when_the_time_is_over",
    "timeout_disconnect": "e2e/test_workers.py::test_streams_do_not_hold_the_end",
    "timeout_cancel": "e2e/test_options.py::test_timeout_cancel",
    "timeout_worker_healthcheck": "e2e/test_workers.py::test_a_hung_worker_is_replaced",
    "shutdown_delay": "e2e/test_workers.py::test_shutdown_delay",
    "log_level": "e2e/test_options.py::test_log_level",
    "log_config": "e2e/test_cli.py::test_log_config_gets_access_records",
    "log_file": "e2e/test_access_log.py::test_messages_in_a_file",
    "access_log": "e2e/test_options.py::test_no_access_log",
    "access_log_file": "e2e/test_access_log.py::test_a_file",
    "access_log_format": "e2e/test_access_log.py::test_presets",
    "use_colors": "e2e/test_options.py::test_use_colors",
    "quiet": "e2e/test_cli.py::test_quiet",
    "pid": "e2e/test_process.py::test_pid_file",
    "user": "e2e/test_process.py::test_user_and_group",
    "group": "e2e/test_process.py::test_user_and_group",
    "umask": "e2e/test_process.py::test_user_and_group",
    # Not rows of the table.
    "config": "e2e/test_configuration.py::test_a_file_configures",
    "check_config": "e2e/test_configuration.py::test_check_config",
    "print_config": "e2e/test_configuration.py::test_print_config",
    "version": "e2e/test_cli.py::test_version",
    "help": "e2e/test_cli.py::test_help_is_grouped_and_fits_a_terminal",
}


@functools.cache
def functions(path: Path) -> dict[str, str]:
    """The sources of a file's tests, with their parameters."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def test_every_option_is_in_the_table() -> None:
    words = {option.name for option in options.OPTIONS}
    words |= {str(parameter.name) for parameter in command.params} | {"help"}
    assert EFFECTS.keys() == words - {"app"}


@pytest.mark.parametrize("name", EFFECTS)
def test_the_test_exists_and_gives_the_option(name: str) -> None:
    file, _, test = EFFECTS[name].partition("::")
    source = functions(TESTS / file)[test]
    word = options.BY_NAME[name].word if name in options.BY_NAME else name.replace("_", "-")
    assert re.search(rf"--(no-)?{word}(?![\w-])", source), f"{EFFECTS[name]} has no --{word}"
