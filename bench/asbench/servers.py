"""Whom the benchmarks ask: how each server is started, and which version it has."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from asbench import harness, load, peers
from asbench.harness import APPS, HOST

KEEP = "600"  # seconds that a kept connection may be idle: longer than any scenario takes
BUILD = peers.FOLDER
FLOOR, BARE, OURS = "floor", "bare", "asgiserver"


@dataclass(frozen=True)
class Entry:
    """A way to serve. The command's words may have {python} {app} {module} {attribute} {port}."""

    name: str
    interface: str  # asgi, wsgi, threads (WSGI in four threads), or own: a constant answer
    command: str
    peer: str = ""  # the environment, of bench/peers.toml; "": the one that this runs in
    main: bool = False  # takes part without being asked for
    also: tuple[str, ...] = ()  # environments whose packages it needs, too
    growing: bool = False  # takes part only where something grows


AT = f"--host {HOST} --port {{port}}"
BIND = f"-b {HOST}:{{port}}"
OUR_OPTIONS = f"{AT} --no-access-log --log-level warning --timeout-keep-alive {KEEP}"
ASGISERVER = f"{{python}} -m asgiserver {{app}} {OUR_OPTIONS}"
UVICORN = (
    f"{{python}} -m uvicorn {{app}} {AT} --interface asgi3 --loop uvloop --http httptools "
    f"--lifespan off --no-access-log --log-level warning --timeout-keep-alive {KEEP}"
)
GRANIAN = f"{{python}} -m granian {{app}} {AT} --http 1 --log-level warning --backlog 4096 --backpressure 20000"
GUNICORN = (
    f"{{python}} -m gunicorn {{app}} {BIND} --log-level warning --keep-alive {KEEP} "
    "--worker-connections 20000 --no-control-socket"
)
HYPERCORN = f"{{python}} -m hypercorn {BIND} --backlog 4096 --log-level warning --keep-alive {KEEP} -k uvloop"
SOCKETIFY = f"{{python}} -m socketify {{app}} {AT} --disable-listen-log True"
LAUNCH = f"{{python}} {APPS / 'launch.py'}"
UWSGI = (
    f"{{bin}}/uwsgi --http-socket {HOST}:{{port}} --module {{module}} --callable {{attribute}} "
    "--disable-logging --need-app --die-on-term --listen 1024"
)
WAITRESS = (
    f"{{python}} -m waitress --listen={HOST}:{{port}} --connection-limit=20000 "
    f"--asyncore-use-poll --channel-timeout={KEEP} --threads=4 {{app}}"
)

SERVERS = [
    Entry(OURS, "asgi", f"{ASGISERVER} --interface asgi3 --lifespan off", main=True),
    Entry("uvicorn", "asgi", UVICORN, "uvicorn", main=True),
    Entry("granian", "asgi", f"{GRANIAN} --interface asginl --loop uvloop", "granian", main=True),
    Entry("freastal", "asgi", f"{LAUNCH} freastal asgi {{app}} {{port}}", "freastal", main=True),
    Entry("fastpysgi", "asgi", f"{LAUNCH} fastpysgi asgi {{app}} {{port}}", "fastpysgi", main=True),
    Entry("socketify", "asgi", f"{SOCKETIFY} --interface asgi --lifespan off", "socketify"),
    Entry("hypercorn", "asgi", f"{HYPERCORN} {{app}}", "hypercorn"),
    Entry("gunicorn asgi", "asgi", f"{GUNICORN} -k asgi", "gunicorn"),
    Entry("gunicorn uvicorn", "asgi", f"{GUNICORN} -k uvicorn_worker.UvicornWorker", "gunicorn"),
    Entry(
        "gunicorn asgiserver",
        "asgi",
        f"{GUNICORN} -k asgiserver.gunicorn.ASGIWorker",
        also=("gunicorn",),
    ),
    Entry(OURS, "wsgi", f"{ASGISERVER} --interface wsgi", main=True),
    Entry("granian", "wsgi", f"{GRANIAN} --interface wsgi --blocking-threads 1", "granian", True),
    Entry("freastal", "wsgi", f"{LAUNCH} freastal wsgi {{app}} {{port}}", "freastal", main=True),
    Entry("fastwsgi", "wsgi", f"{LAUNCH} fastwsgi wsgi {{app}} {{port}}", "fastwsgi", main=True),
    Entry("fastpysgi", "wsgi", f"{LAUNCH} fastpysgi wsgi {{app}} {{port}}", "fastpysgi", main=True),
    Entry("bjoern", "wsgi", f"{LAUNCH} bjoern wsgi {{app}} {{port}}", "bjoern", main=True),
    Entry("socketify", "wsgi", f"{SOCKETIFY} --interface wsgi", "socketify"),
    Entry("hypercorn", "wsgi", f"{HYPERCORN} wsgi:{{app}}", "hypercorn"),
    Entry("gunicorn sync", "wsgi", f"{GUNICORN} -k sync", "gunicorn"),
    Entry(
        "gunicorn asgiserver",
        "wsgi",
        f"{GUNICORN} -k asgiserver.gunicorn.WSGIWorker",
        also=("gunicorn",),
    ),
    Entry("uwsgi", "wsgi", UWSGI, "uwsgi"),
    Entry("waitress", "wsgi", WAITRESS, "waitress"),
    Entry(OURS, "threads", f"{ASGISERVER} --interface wsgi --threads 4", main=True),
    Entry(
        "granian", "threads", f"{GRANIAN} --interface wsgi --blocking-threads 4", "granian", True
    ),
    Entry("gunicorn gthread", "threads", f"{GUNICORN} -k gthread --threads 4", "gunicorn", True),
    Entry("waitress", "threads", WAITRESS, "waitress", True),
    Entry("uwsgi", "threads", f"{UWSGI} --threads 4", "uwsgi"),
    Entry(FLOOR, "own", f"{{floor}} {AT} --timeout-keep-alive {KEEP}", main=True),
    Entry(BARE, "own", f"{{bare}} {AT}", growing=True),
    Entry("robyn", "own", f"{{python}} {APPS / 'hello_robyn.py'} {{port}}", "robyn"),
    Entry("nginx", "own", "{nginx} {port}"),
    Entry("go", "own", "{go} {port}"),
    Entry("node", "own", f"{{node}} {APPS / 'hello.js'} {{port}}"),
]

NGINX_FILES = 20_000  # more than any scenario's connections
NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
    access_log off;
    keepalive_timeout 600;
    keepalive_requests 1000000000;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port}{tls};
        location / {{ default_type text/plain; return 200 "Hello, World!"; }}
    }}
}}
"""
# The certificate is the folder's; each session begins with a handshake of its own.
NGINX_TLS = """ ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;
        ssl_ecdh_curve X25519:prime256v1:secp384r1;
        ssl_session_cache off;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem"""
PATHS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


class Absent(harness.BenchError):
    """A server cannot be run here: its message says why."""


def program(name: str) -> str:
    """An executable of the system."""
    if not (path := shutil.which(name, path=PATHS)):
        raise Absent(f"no {name} on this machine")
    return path


def python(entry: Entry) -> str:
    """The interpreter that runs it."""
    if not entry.peer:
        return sys.executable
    if why := peers.absent(entry.peer):
        raise Absent(why)
    return str(peers.python(entry.peer))


def go_program() -> str:
    """The server in Go, compiled."""
    compiler, path = program("go"), BUILD / "hello-go"
    done = subprocess.run(
        [compiler, "build", "-o", str(path), str(APPS / "hello.go")],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Absent(f"go build: {done.stderr.strip()}")
    return str(path)


def nginx(folder: Path, port: int, files: int, tls: bool = False) -> list[str]:
    """The command of one with `files` descriptors, whose configuration is written into the folder."""
    config = folder / "nginx.conf"
    speaks = NGINX_TLS.format(folder=folder) if tls else ""
    config.write_text(NGINX.format(folder=folder, port=port, files=files, tls=speaks))
    return [program("nginx"), "-c", str(config), "-p", str(folder)]


def command_of(entry: Entry, app: str, port: int) -> list[str]:
    """The words of its command line."""
    module, _, attribute = app.partition(":")
    if entry.name == "nginx":
        folder = BUILD / "nginx"
        folder.mkdir(parents=True, exist_ok=True)
        return nginx(folder, port, NGINX_FILES)
    words = {"app": app, "module": module, "attribute": attribute, "port": str(port)}
    if "{python}" in entry.command or "{bin}" in entry.command:
        words |= {"python": python(entry), "bin": str(Path(python(entry)).parent)}
    elif entry.name == FLOOR:
        words[FLOOR] = str(harness.find_floor())
    elif entry.name == BARE:
        words[BARE] = str(load.find(BARE))
    else:
        words[entry.name] = go_program() if entry.name == "go" else program(entry.name)
    return [word.format(**words) for word in entry.command.split()]


def environment(entry: Entry) -> dict[str, str]:
    """What is set for the server: where the applications, and what they import, are."""
    for name in entry.also:
        if why := peers.absent(name):
            raise Absent(why)
    folders = [APPS, *(peers.site_packages(name) for name in entry.also)]
    folders.append(peers.site_packages("frameworks"))
    # An editable install looks whether it is up to date whenever it is imported: not while starts are timed.
    return {"PYTHONPATH": os.pathsep.join(map(str, folders)), "NO_REBUILD": "1"}


@contextlib.contextmanager
def running(entry: Entry, app: str, core: int) -> Iterator[harness.Server]:
    """The server, listening, until the block ends."""
    port = harness.free_port()
    command, settings = command_of(entry, app, port), environment(entry)
    with harness.serving(entry.name, command, port, core, settings) as server:
        yield server


def version(entry: Entry) -> str:
    """Of a server that can be run here."""
    asked: dict[str, Callable[[], str]] = {
        "nginx": lambda: said_by("nginx", "-v"),
        "node": lambda: said_by("node", "--version"),
        "go": lambda: said_by("go", "version"),
    }
    if entry.name in asked:
        return f"{entry.name} {asked[entry.name]()}"
    if not entry.peer:
        from asgiserver import __version__

        return f"asgiserver {__version__}"
    return peers.versions(entry.peer)


def said_by(name: str, option: str) -> str:
    """The version number in what a program prints."""
    done = subprocess.run([program(name), option], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def available(wanted: list[Entry]) -> tuple[list[Entry], dict[str, str]]:
    """Those that can be run here, and the others with the reason."""
    found, absent = [], {}
    for entry in wanted:
        try:
            command_of(entry, "hello:asgi", 1)
            environment(entry)
        except harness.BenchError as error:
            absent[entry.name] = str(error)
        else:
            found.append(entry)
    return found, absent
