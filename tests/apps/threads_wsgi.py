"""What an application sees of the threads that run it; the first part of the path chooses."""

import json
import os
import sys
import threading
import time
from urllib.parse import unquote

PLAIN = [("Content-Type", "text/plain")]
PIECE = b"x" * 65536
LARGE = os.urandom(3_000_000)
barrier = threading.Barrier(4)
local = threading.local()


def say(text):
    sys.stdout.write(f"app: {text}\n")
    sys.stdout.flush()


def argument(environ):
    return unquote(environ["QUERY_STRING"])


def hello(environ, start_response):
    start_response("200 OK", PLAIN)
    return [b"hello"]


def meet(environ, start_response):
    """Only four requests at a time come through."""
    barrier.wait(20)
    return hello(environ, start_response)


def thread(environ, start_response):
    here = threading.current_thread()
    local.requests = getattr(local, "requests", 0) + 1
    start_response("200 OK", PLAIN)
    return [
        json.dumps(
            {
                "name": here.name,
                "class": type(here).__name__,
                "daemon": here.daemon,
                "main": here is threading.main_thread(),
                "requests": local.requests,
                "multithread": environ["wsgi.multithread"],
            }
        ).encode()
    ]


def nap(environ, start_response):
    seconds = argument(environ)
    time.sleep(float(seconds))
    start_response("200 OK", PLAIN)
    return [seconds.encode()]


def hold(environ, start_response):
    """Until somebody has written to a named pipe, and closed it."""
    say("holds")
    with open(argument(environ)) as pipe:
        text = pipe.read()
    start_response("200 OK", PLAIN)
    return [text.encode()]


def write(environ, start_response):
    """As much as the client takes."""
    send = start_response("200 OK", PLAIN)
    try:
        while True:
            send(PIECE)
    except OSError as error:
        say(f"write: {type(error).__name__}: {error}")
        raise


class Pieces:
    def __iter__(self):
        return self

    def __next__(self):
        return PIECE

    def close(self):
        say("closed")


def pieces(environ, start_response):
    start_response("200 OK", PLAIN)
    return Pieces()


def large(environ, start_response):
    start_response("200 OK", PLAIN)
    return [LARGE]


def references(environ, start_response):
    start_response("200 OK", PLAIN)
    return [str(sys.getrefcount(LARGE)).encode()]


def stuck(environ, start_response):
    """For ever: in a call that lets go of the GIL, or in Python."""
    say("is stuck")
    if argument(environ) == "asleep":
        while True:
            time.sleep(60)
    while True:
        pass


def spawn(environ, start_response):
    """start_response belongs to the thread that was given it."""
    problems = []

    def call():
        try:
            start_response("200 OK", PLAIN)
        except RuntimeError as error:
            problems.append(str(error))

    other = threading.Thread(target=call)
    other.start()
    other.join()
    start_response("200 OK", PLAIN)
    return ["".join(problems).encode()]


def app(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    return globals()[name](environ, start_response)
