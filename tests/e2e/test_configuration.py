"""Settings from files, and what bad use gets: one line, before anything is bound."""

from __future__ import annotations

import signal
import socket
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.command import assert_line, command
from support.server import APPS, Server

Factory = Callable[..., Server]
APP, WSGI = "cli_apps:app", "cli_wsgi:app"


def get(server: Server) -> tuple[str, bytes | None]:
    with server.raw() as client:
        client.get("/")
        response = client.recv_response()
    return response.text, response.get("x-from")


@pytest.mark.parametrize("how", ["-c", "--config", "environment", "project"])
def test_a_file_configures(serve: Factory, tmp_path: Path, how: str) -> None:
    """The application of these tests answers with its root path."""
    text = (
        f"app = '{APP}'\nroot-path = '/file'\nheaders = {{ X-From = 'file' }}\naccess_log = false\n"
    )
    file = tmp_path / ("pyproject.toml" if how == "project" else "a.toml")
    file.write_text(f"[tool.asgiserver]\n{text}" if how == "project" else text)
    args = [how, str(file)] if how.startswith("-") else []
    env = {"ASGISERVER_CONFIG": str(file)} if how == "environment" else {}
    server = serve(None, *args, env=env, cwd=tmp_path)
    assert get(server) == ("/file", b"file")
    server.stop()
    assert "GET" not in server.log()


def test_the_command_line_wins_over_environment_and_file(serve: Factory, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("root_path = '/file'\n[headers]\nX-From = 'file'\n")
    env = {"ASGISERVER_ROOT_PATH": "/environment", "ASGISERVER_HEADER": "X-From: environment"}
    server = serve(APP, "-c", str(tmp_path / "a.toml"), "--root-path", "/word", env=env)
    assert get(server) == ("/word", b"environment")


def test_a_reload_reads_the_file_again(serve: Factory, tmp_path: Path) -> None:
    """And one that is bad changes nothing. What the command line says stays."""
    file = tmp_path / "a.toml"
    file.write_text("workers = 2\nroot_path = '/one'\n[headers]\nX-From = 'one'\n")
    server = serve(APP, "-c", str(file), "--root-path", "/word")
    assert get(server) == ("/word", b"one")
    for text, said in (
        ("wokers = 2\n", rf"wokers \({file}:1\): there is no such setting. Did you mean workers\?"),
        ("reload = true\nworkers = 2\n", rf"reload \({file}:1\): not together with workers"),
        ("env_file = 'none'\n", "--env-file none: there is no such file"),
    ):
        server.mark()
        file.write_text(text)
        server.signal(signal.SIGHUP)
        server.wait_log(f"ERROR:    Nothing is reloaded: {said}")
        assert get(server) == ("/word", b"one")
    file.write_text("workers = 2\nroot_path = '/two'\n[headers]\nX-From = 'two'\n")
    server.signal(signal.SIGHUP)
    server.wait_log("Reloaded")
    while (answer := get(server)) == ("/word", b"one"):
        pass  # The old workers serve whom they had accepted before they left.
    assert answer == ("/word", b"two")


# --- checking and printing ---


@pytest.fixture
def busy_port() -> Iterator[int]:
    """Whoever tries to bind it hears that it is in use."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


def test_check_config(busy_port: int) -> None:
    done = command("--check-config", "--port", str(busy_port), APP)
    assert (done.returncode, done.stdout) == (0, f"OK: {APP} (ASGI 3)\n")
    done = command("--check-config", WSGI)
    assert (done.returncode, done.stdout) == (0, f"OK: {WSGI} (WSGI)\n")


@pytest.mark.parametrize(
    ("args", "text", "status"),
    [
        (
            ["--check-config", "cli_apps:apq"],
            '"cli_apps" has no attribute "apq". Did you mean app?',
            1,
        ),
        (
            ["--check-config", "--env-file", "none", APP],
            "--env-file none: there is no such file.",
            1,
        ),
        (
            ["--check-config", "--threads", "2", APP],
            f"--threads: is for WSGI applications; {APP} is ASGI 3.",
            2,
        ),
        (
            ["--check-config", "--reload", "-w", "2", APP],
            "--reload: not together with --workers.",
            2,
        ),
        (
            ["--print-config", "--reload", "-w", "2", APP],
            "--reload: not together with --workers.",
            2,
        ),
    ],
)
def test_check_config_of_a_bad_one(args: list[str], text: str, status: int) -> None:
    assert_line(command(*args), text, status)


def test_print_config(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("port = 9\nlifespan = 'off'\n")
    env = {
        "ASGISERVER_ROOT_PATH": "/a", "WEB_CONCURRENCY": "3", "ASGISERVER_CONFIG": "a.toml",
        "ASGISERVER_LIFESPAN": "on", "FORWARDED_ALLOW_IPS": "*",
        "ASGISERVER_RELOAD_INCLUDE": "*.html, *.txt *.j2",
    }  # fmt: skip
    args = ["--uds-mode", "600", "--header", "A: b", "--no-access-log", "main:app"]
    done = command("--print-config", *args, env=env, cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    for line in (
        'app = "main:app"  # command line',
        "uds_mode = 0o600  # command line",
        'headers = ["A: b"]  # command line',
        "access_log = false  # command line",
        'root_path = "/a"  # environment variable ASGISERVER_ROOT_PATH',
        'lifespan = "on"  # environment variable ASGISERVER_LIFESPAN',
        "workers = 3  # environment variable WEB_CONCURRENCY",
        'forwarded_allow_ips = "*"  # environment variable FORWARDED_ALLOW_IPS',
        'reload_include = ["*.html", "*.txt", "*.j2"]  # environment variable ASGISERVER_RELOAD_INCLUDE',
        "port = 9  # a.toml:1",
        "backlog = 2048  # default",
        "# pid is not set",
    ):
        assert line in lines

    (tmp_path / "b.toml").write_text(done.stdout)
    again = command("--print-config", "-c", "b.toml", cwd=tmp_path)
    assert tomllib.loads(again.stdout) == tomllib.loads(done.stdout)


def test_print_and_check(tmp_path: Path) -> None:
    done = command("--print-config", "--check-config", APP)
    assert done.returncode == 0
    assert done.stdout.startswith(f'app = "{APP}"  # command line\n')
    assert done.stdout.endswith(f"\nOK: {APP} (ASGI 3)\n")


# --- what bad use gets ---

FILES = {
    "workers.toml": "workers = 2\n",
    "typo.toml": "port = 1\nwokers = 2\n",
    "range.toml": "port = 70000\n",
    "broken.toml": "port =\n",
    "a.py": "",
}

BAD_USE = {
    "--reload --workers 2": ("--reload: not together with --workers.", 2),
    "--reload -w auto": ("--reload: not together with --workers.", 2),
    "--reload -c workers.toml": ("--reload: not together with workers (workers.toml:1).", 2),
    "WEB_CONCURRENCY=2 --reload": ("--reload: not together with WEB_CONCURRENCY.", 2),
    "ASGISERVER_RELOAD=1 -w 2": ("ASGISERVER_RELOAD: not together with --workers.", 2),
    "--reload --preload": ("--reload: not together with --preload.", 2),
    "--reload-dir src": ("--reload-dir: does nothing without --reload.", 2),
    "--reload-include *.html": ("--reload-include: does nothing without --reload.", 2),
    "--reload-exclude src --no-reload": ("--reload-exclude: does nothing without --reload.", 2),
    "--reload --reload-dir none": ("--reload-dir none: there is no such folder.", 1),
    "--reload --reload-dir a.py": ("--reload-dir a.py: there is no such folder.", 1),
    "--reload --reload-dir /": ("--reload-dir /: / is the whole machine. Name a folder by --reload-dir.", 1),
    "--threads 2 --interface asgi": ("--threads: is for WSGI applications; ASGI is asked for by --interface.", 2),
    "--threads 2 --interface asgi3": ("--threads: is for WSGI applications; ASGI is asked for by --interface.", 2),
    "ASGISERVER_THREADS=2 --interface asgi2": ("ASGISERVER_THREADS: is for WSGI applications;", 2),
    "--limit-max-requests-jitter 5": (
        "--limit-max-requests-jitter: does nothing without --limit-max-requests.", 2,
    ),
    "--bind a:1 --uds s": ("--bind: not together with --uds.", 2),
    "--bind a:1 --port 5": ("--bind: not together with --port.", 2),
    "--uds s --fd 3": ("--uds: not together with --fd.", 2),
    "--uds s --host ::1": ("--uds: not together with --host.", 2),
    "--reuse-port --fd 3": ("--reuse-port: not together with --fd.", 2),
    "--reuse-port --uds s": ("--reuse-port: not together with --uds.", 2),
    "--bind ::1:80": ("--bind: '::1:80': an IPv6 address needs brackets, as in [::1]:8000.", 2),
    "--bind a/b": ("--bind: 'a/b' is not HOST:PORT, unix:PATH or fd://N.", 2),
    "--root-path api": ("--root-path: 'api' does not begin with /.", 2),
    "--health-path up": ("--health-path: 'up' does not begin with /.", 2),
    "--env-file none": ("--env-file none: there is no such file.", 1),
    "--env-file .": ("--env-file .: this is a folder, not a file.", 1),
    "--log-config none.ini": ("--log-config none.ini: there is no such file.", 1),
    "--app-dir none": ("--app-dir none: there is no such folder.", 1),
    "-c none.toml": ("--config none.toml: No such file or directory.", 1),
    "ASGISERVER_CONFIG=. --quiet": ("--config .: Is a directory.", 1),
    "-c broken.toml": ("broken.toml: Invalid value (at line 1, column 7).", 2),
    "-c typo.toml": ("wokers (typo.toml:2): there is no such setting. Did you mean workers?", 2),
    "-c range.toml": ("port (range.toml:1): 70000 is more than 65535.", 2),
}  # fmt: skip


@pytest.mark.parametrize("given", BAD_USE)
def test_bad_use(tmp_path: Path, busy_port: int, given: str) -> None:
    """The port is taken and the application prints: neither is got to."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.py").write_text("print('imported', flush=True)\n")
    words = given.split()
    env = dict(word.split("=", 1) for word in words if word[0].isupper() and "=" in word)
    args = [word for word in words if word.split("=")[0] not in env]
    # Where the address is not the matter, binding one would be refused.
    if not any(word in given for word in ("--bind", "--uds", "--fd", "--port", "range.toml")):
        args += ["--port", str(busy_port)]
    expected, status = BAD_USE[given]
    done = command(*args, "main:app", env=env, cwd=tmp_path)
    assert_line(done, f"ERROR:    {expected}", status)
    assert "imported" not in done.stdout


def test_threads_for_an_asgi_application() -> None:
    done = command("--threads", "2", "--port", "0", APP)
    assert_line(done, f"--threads: is for WSGI applications; {APP} is ASGI 3.", 2)


def test_an_address_in_a_file_gives_way(serve: Factory, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("bind = ['192.0.2.1:1']\n")
    assert get(serve(APP, "-c", str(tmp_path / "a.toml")))[0] == ""
    done = command("-c", str(tmp_path / "a.toml"), APP, cwd=APPS)
    assert_line(done, "192.0.2.1:1: it is no address of")
