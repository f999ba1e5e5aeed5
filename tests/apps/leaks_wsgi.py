"""The WSGI half of leaks_asgi.py."""

import os
import sys
import tempfile

from leaks_common import END, counts

file_descriptor, file_name = tempfile.mkstemp()
os.write(file_descriptor, b"x" * 1000)
left = []


def hello(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def body(environ, start_response):
    source = environ["wsgi.input"]
    source.readline()
    source.read(1)
    for _ in source:
        pass
    source.readlines()
    return hello(environ, start_response)


def unread(environ, start_response):
    return hello(environ, start_response)


def headers(environ, start_response):
    environ["cycle"] = environ
    start_response("200 OK", [("X-A", environ["HTTP_HOST"]), ("Content-Length", "2")])
    return [b"ok"]


def stream(environ, start_response):
    start_response("200 OK", [])
    for _ in range(5):
        yield b"x" * 100


def large(environ, start_response):
    start_response("200 OK", [("Content-Length", "100000")])
    return [b"x" * 100_000]


def several(environ, start_response):
    start_response("200 OK", [])
    return [b"a", b"", b"b"]


def write(environ, start_response):
    writer = start_response("200 OK", [])
    writer(b"x" * 100)
    writer(b"y")
    return []


class Iterable:
    def __init__(self):
        self.parts = [b"a", b"b"]

    def __iter__(self):
        return self

    def __next__(self):
        if not self.parts:
            raise StopIteration
        return self.parts.pop()

    def close(self):
        self.cycle = self


def closing(environ, start_response):
    start_response("200 OK", [])
    return Iterable()


def file(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open(file_name, "rb"))


def again(environ, start_response):
    """start_response twice, with exc_info."""
    start_response("500 Sorry", [])
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        start_response("200 OK", [("X-A", "b")], sys.exc_info())
    return [b"ok"]


def wrong(environ, start_response):
    try:
        start_response("200 OK", [("X-A", "b"), ("bad\n", "b")])
    except Exception:
        start_response("200 OK", [], sys.exc_info())
    return [b"ok"]


def fail(environ, start_response):
    raise RuntimeError("on purpose")


def fail_late(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    yield b"ok"
    raise RuntimeError("on purpose")


def endless(environ, start_response):
    start_response("200 OK", [])
    try:
        while True:
            yield b"x" * 60_000
    finally:
        left.append(1)


def plain(start_response, text):
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]


def app(environ, start_response):
    name = environ["PATH_INFO"][1:]
    if name == "end":
        return plain(start_response, END)
    if name == "tell_counts":
        left.clear()
        return plain(start_response, counts())
    if name == "departed":
        return plain(start_response, b"%d" % len(left))
    return globals()[name](environ, start_response)
