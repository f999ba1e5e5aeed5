"""The WSGI half of workers_asgi.py."""

import os
import signal
import time


def say(text):
    """A line by one write: what several workers say at once stays apart."""
    os.write(1, f"{text}\n".encode())


say(f"imported by {os.getpid()}")

ballast = []


def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = str(os.getpid())
    if path == "/sleep":
        say("waiting")
        time.sleep(60)
    elif path == "/spin":
        say("waiting")
        spin()
    elif path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif path == "/grow":
        ballast.append(b"x" * 1_000_000)
    elif path.startswith("/until/"):
        say("waiting")
        while not os.path.exists(path.removeprefix("/until")):
            time.sleep(0.01)
    elif path == "/who":
        body = who()
    elif path == "/multi":
        body = f"{environ['wsgi.multiprocess']} {environ['wsgi.multithread']}"
    start_response("200 OK", [("Content-Length", str(len(body))), ("Content-Type", "text/plain")])
    return [body.encode()]


def who():
    mask = os.umask(0)
    os.umask(mask)
    return f"{os.getuid()} {os.geteuid()} {os.getegid()} {mask:o} {sorted(os.getgroups())}"


def spin():
    while True:
        pass
