"""soak_asgi.py for WSGI."""

import atexit
import os
import time

from leaks_common import counts
from soak_common import make_file, numbers, pattern

path = make_file()
atexit.register(os.unlink, path)
BLOCK = 20_000


def hello(environ, query):
    return [b"hello " + query.encode()]


def echo(environ, query):
    return [environ["wsgi.input"].read()]


def flow(environ, query):
    while piece := environ["wsgi.input"].read(BLOCK):
        yield piece


def unread(environ, query):
    return [b"unread"]


def stream(environ, query):
    number, size, count = numbers(query)
    for _ in range(count):
        yield pattern(number, size)


def file(environ, query):
    return environ["wsgi.file_wrapper"](open(path, "rb"))


def sleep(environ, query):
    time.sleep(int(query) / 1000)
    return [b"slept"]


def fail(environ, query):
    raise RuntimeError("on purpose")


def tell(environ, query):
    return [counts()]


PATHS = {f"/{one.__name__}": one for one in (hello, echo, flow, unread, stream, file, sleep, fail, tell)}  # fmt: skip


def app(environ, start_response):
    body = PATHS[environ["PATH_INFO"]](environ, environ["QUERY_STRING"])
    fields = [("X-Pid", str(os.getpid()))]
    if isinstance(body, list):
        fields.append(("Content-Length", str(len(body[0]))))
    start_response("200 OK", fields)
    return body
