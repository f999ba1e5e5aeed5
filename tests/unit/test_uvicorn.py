"""uvicorn's names: each of its settings is understood or refused by name, also those of its next version."""

from __future__ import annotations

import asyncio
import configparser
import dataclasses
import inspect
import io
import logging
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn as original
from support.client import SLOWNESS, connect
from support.server import APPS, child_environment

import asgiserver
from asgiserver import StartError, uvicorn
from asgiserver.uvicorn import Config, Server

SECONDS = 20 * SLOWNESS


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(name, raising=False)


# --- against the real one ---


def test_every_setting_of_uvicorn_is_known() -> None:
    theirs = inspect.signature(original.Config).parameters
    ours = inspect.signature(Config).parameters
    assert list(ours) == [*theirs, "app_dir"], "same names, same order"
    defaults = {name: theirs[name].default for name in theirs if name != "log_config"}
    assert {name: ours[name].default for name in defaults} == defaults


def test_run_takes_what_uvicorns_takes() -> None:
    theirs = set(inspect.signature(original.run).parameters)
    assert theirs <= set(inspect.signature(uvicorn.run).parameters)


def test_the_table_has_no_other_names() -> None:
    names = {item.name for item in dataclasses.fields(Config)}
    ours = {item.name for item in dataclasses.fields(asgiserver.Config)}
    assert set(uvicorn._TRANSLATED) <= names
    assert set(uvicorn._REFUSED) <= names
    assert {name for name, _ in uvicorn._TRANSLATED.values()} <= ours
    same = names - set(uvicorn._TRANSLATED) - set(uvicorn._REFUSED)
    assert same <= ours, "each has a meaning here, or a reason why not"


@pytest.mark.parametrize("name", ["started", "should_exit", "force_exit", "config"])
def test_attributes_of_a_server(name: str) -> None:
    assert hasattr(original.Server(original.Config(app)), name)
    assert hasattr(Server(Config(app)), name)


@pytest.mark.parametrize(
    "name", ["run", "serve", "startup", "main_loop", "shutdown", "capture_signals"]
)
def test_methods_of_a_server(name: str) -> None:
    assert callable(getattr(original.Server, name))
    assert callable(getattr(Server, name))


# --- what becomes of values ---


def translated(**settings: Any) -> dict[str, Any]:
    """What differs from this server's defaults."""
    found = Config("module:app", **settings).translated()
    assert type(found) is asgiserver.Config
    defaults = asgiserver.Config("module:app")
    return {
        item.name: getattr(found, item.name)
        for item in dataclasses.fields(found)
        if getattr(found, item.name) != getattr(defaults, item.name)
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"host": "::1", "port": 1}, {"host": "::1", "port": 1}),
        ({"uds": Path("/run/a")}, {"uds": "/run/a"}),
        ({"fd": 3}, {"fd": 3}),
        ({"loop": "asyncio"}, {"loop": "asyncio"}),
        ({"lifespan": "off"}, {"lifespan": "off"}),
        ({"env_file": Path(".env")}, {"env_file": ".env"}),
        ({"log_level": "WARNING"}, {"log_level": "warning"}),
        ({"log_level": logging.ERROR}, {"log_level": "error"}),
        ({"log_level": 5}, {"log_level": "trace"}),
        ({"log_config": Path("x.ini")}, {"log_config": "x.ini"}),
        ({"log_config": {"version": 1}}, {"log_config": {"version": 1}}),
        ({"log_config": None}, {"log_config": {"version": 1, "incremental": True}}),
        ({"access_log": False, "use_colors": True}, {"access_log": False, "use_colors": True}),
        ({"interface": "wsgi"}, {"interface": "wsgi"}),
        (
            {"reload": True, "reload_dirs": "a", "reload_includes": ["*.css"], "reload_excludes": "b"},
            {"reload": True, "reload_dir": ("a",), "reload_include": ("*.css",), "reload_exclude": ("b",)},
        ),
        ({"workers": 3}, {"workers": 3}),
        ({"proxy_headers": False}, {"proxy_headers": False}),
        ({"forwarded_allow_ips": ["10.0.0.1", "::1"]}, {"forwarded_allow_ips": "10.0.0.1,::1"}),
        ({"forwarded_allow_ips": "*"}, {"forwarded_allow_ips": "*"}),
        ({"server_header": False, "date_header": False}, {"server_header": False, "date_header": False}),
        ({"root_path": "/a"}, {"root_path": "/a"}),
        ({"limit_concurrency": 5, "backlog": 7}, {"limit_concurrency": 5, "backlog": 7}),
        (
            {"limit_max_requests": 9, "limit_max_requests_jitter": 2},
            {"limit_max_requests": 9, "limit_max_requests_jitter": 2},
        ),
        ({"timeout_keep_alive": 7}, {"timeout_keep_alive": 7.0}),
        ({"timeout_graceful_shutdown": 7}, {"timeout_graceful_shutdown": 7.0}),
        ({"timeout_worker_healthcheck": 7}, {"timeout_worker_healthcheck": 7.0}),
        ({"headers": [("A", "b")]}, {"headers": (("A", "b"),)}),
        ({"factory": True, "app_dir": "/tmp"}, {"factory": True, "app_dir": "/tmp"}),
        ({"h11_max_incomplete_event_size": 4096}, {"limit_request_head": 4096}),
        ({"http": "h11", "ws": "wsproto", "reset_contextvars": True}, {}),
        ({"ws": "none"}, {"ws": "off"}),
        ({"ws_max_size": 9, "ws_max_queue": 2}, {"ws_max_size": 9, "ws_max_queue": 2}),
        (
            {"ws_ping_interval": None, "ws_ping_timeout": 3},
            {"ws_ping_interval": 0.0, "ws_ping_timeout": 3.0},
        ),
        ({"ws_per_message_deflate": False}, {"ws_per_message_deflate": False}),
        ({"http": "httptools", "ws": "auto", "ssl_keyfile": None, "ssl_version": 2}, {}),
        (
            {"ssl_certfile": Path("a.pem"), "ssl_keyfile": "b.pem", "ssl_keyfile_password": "c"},
            {"ssl_certfile": "a.pem", "ssl_keyfile": "b.pem", "ssl_keyfile_password": "c"},
        ),
        (
            {
                "ssl_certfile": "a",
                "ssl_ca_certs": Path("b"),
                "ssl_cert_reqs": ssl.CERT_REQUIRED,
                "ssl_ciphers": "HIGH",
            },
            {"ssl_certfile": "a", "ssl_ca_certs": "b", "ssl_cert_reqs": 2, "ssl_ciphers": "HIGH"},
        ),
    ],
)  # fmt: skip
def test_what_a_setting_becomes(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert translated(**given) == expected


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("http", object, "HTTP/1.1 has one implementation here"),
        ("http2", True, "no HTTP/2 yet"),
        ("ws", object, "WebSocket has one implementation here"),
        ("ws", "wsprotocol", "WebSocket has one implementation here"),
        ("ws_max_queue", 0, "less than 1"),
        ("reload_delay", 1.0, "no delay to set"),
        ("timeout_notify", 1, "a task of your own"),
        ("callback_notify", app, "a task of your own"),
        ("ssl_version", 5, "TLS 1.2 and 1.3 are spoken"),
        ("ssl_context_factory", app, "made in Python cannot be used"),
        ("loop", "zuvloop", "not one of auto, uvloop, asyncio"),
        ("log_level", 11, "none of 5, 10"),
        ("port", 65536, "65535"),
    ],
)
def test_what_is_refused_by_name(name: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*{text}") as caught:
        Config("module:app", **{name: value})
    assert "secret" not in str(caught.value)


def test_every_refusal_is_tested() -> None:
    (parameters,) = (
        mark.args[1]
        for mark in test_what_is_refused_by_name.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    )
    assert set(uvicorn._REFUSED) - {"reset_contextvars"} <= {name for name, *_ in parameters}


@pytest.mark.parametrize("value", [configparser.RawConfigParser(), io.StringIO()])
def test_logging_is_set_up_from_a_path_or_a_dict(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^log_config: "):
        Config(app, log_config=value)


def test_an_unknown_setting() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'prot'"):
        Config(app, prot=1)  # type: ignore[call-arg]


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.0/8")
    assert translated() == {"forwarded_allow_ips": "10.0.0.0/8"}
    assert translated(forwarded_allow_ips="::1") == {"forwarded_allow_ips": "::1"}


@pytest.mark.parametrize(
    ("settings", "expected"), [({}, 3), ({"workers": 2}, 2), ({"reload": True}, 1)]
)
def test_workers_from_the_environment(
    settings: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[asgiserver.Config] = []
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    monkeypatch.setattr(uvicorn, "run_in_program", seen.append)
    uvicorn.run("module:app", **settings)
    assert seen[0].workers == expected
    assert Server(Config(app)).config.workers == 1


def test_a_config_may_be_changed_before_it_is_used() -> None:
    config = Config(app, port=1)
    config.port = 2
    assert Server(config).config.port == Server(config=config).config.port == 2


# --- serving ---


def test_serve_is_stopped_by_a_signal_which_the_program_gets_too() -> None:
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(interrupted(Server(Config(app, port=0, log_level="error"))))


async def interrupted(server: Server) -> None:
    async with asyncio.timeout(SECONDS):
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        await task
        await asyncio.sleep(SECONDS)  # What SIGINT then interrupts.


def test_signals_may_be_left_to_the_program() -> None:
    class Quiet(Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    async def main() -> None:
        server = Quiet(Config(app, port=0, log_level="error"))
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        assert signal.getsignal(signal.SIGTERM) == before
        server.should_exit = True
        await task

    before = signal.getsignal(signal.SIGTERM)
    asyncio.run(main())


def test_step_by_step() -> None:
    async def main() -> None:
        server = Server(Config(app, port=0, log_level="error"))
        await server.startup()
        loop = asyncio.create_task(server.main_loop())
        server.should_exit = True
        await loop
        await server.shutdown()
        assert server.started

    asyncio.run(main())


def test_run_in_a_thread() -> None:
    server = Server(Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.001)
    server.should_exit = True
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_start_that_fails() -> None:
    with pytest.raises(StartError, match="There is no module"):
        asyncio.run(Server(Config("no_such_module_here:app", port=0)).serve())
    with pytest.raises(SystemExit) as caught:
        uvicorn.run("no_such_module_here:app", port=0)
    assert caught.value.code == 1


def test_a_program_that_calls_run(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    code = (
        "import asgiserver.uvicorn as uvicorn, cli_apps\n"
        f"uvicorn.run(cli_apps.app, uds={str(path)!r}, http='h11', ws='none')\n"
        "print('behind run', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=APPS,
        env=child_environment({}),
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "CTRL+C" in line:
                break
        with connect(str(path)) as client:
            client.get("/")
            assert client.recv_response().status == 200
        process.terminate()
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert output.endswith("INFO:     Stopped\nbehind run\n")
