"""One small application for each rule of PEP 3333; the first part of the path chooses it.

What must be seen from outside of a response (that ``close()`` was called, say) is printed, and so is in
the server's log.
"""

import ast
import gc
import gzip
import io
import json
import os
import sys
import tempfile
import threading
from urllib.parse import unquote
from wsgiref.validate import validator

PLAIN = [("Content-Type", "text/plain")]
BLOCK = b"x" * 65536
kept = []


def say(*words):
    """In one write: the server's own lines may come from another thread."""
    sys.stdout.write(f"app: {' '.join(map(str, words))}\n")
    sys.stdout.flush()


def argument(environ):
    """The query: a Python literal, percent-encoded."""
    text = unquote(environ["QUERY_STRING"])
    return ast.literal_eval(text) if text else None


def answer(start_response, value):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(value).encode()]


class Closing:
    """An iterable that tells of its end."""

    def __init__(self, items, fail=False):
        self.items = iter(items)
        self.fail = fail

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.items)

    def close(self):
        say("closed")
        if self.fail:
            raise ValueError("close failed")


# --- requests --------------------------------------------------------------------------------------


def environ(environ, start_response):
    return answer(
        start_response,
        {
            "strings": {key: value for key, value in environ.items() if type(value) is str},
            "others": {
                key: type(value).__name__
                for key, value in environ.items()
                if type(value) is not str
            },
            "type": type(environ).__name__,
            "version": environ["wsgi.version"],
            "flags": [
                environ["wsgi.multithread"],
                environ["wsgi.multiprocess"],
                environ["wsgi.run_once"],
                environ["wsgi.input_terminated"],
            ],
        },
    )


def changed(environ, start_response):
    """An environ is the application's own: what it does to one is not seen by the next."""
    seen = sorted(key for key in environ if key.startswith("changed."))
    environ["changed.by"] = "the application"
    del environ["wsgi.version"], environ["REQUEST_METHOD"]
    return answer(start_response, seen)


def body(environ, start_response):
    """Calls the methods that the query lists on wsgi.input."""
    results = []
    for name, *args in argument(environ):
        try:
            stream = environ["wsgi.input"]
            value = list(stream) if name == "list" else getattr(stream, name)(*args)
        except Exception as error:
            value = type(error).__name__
        results.append(value)
    start_response("200 OK", PLAIN)
    return [repr(results).encode()]


def drain(environ, start_response):
    """Reads the body in parts; tells its length and where it was."""
    total, sizes = 0, set()
    while data := environ["wsgi.input"].read(100_000):
        total += len(data)
        sizes.update(data)
    unlinked = sum("(deleted)" in os.readlink(f"/proc/self/fd/{fd}") for fd in open_descriptors())
    return answer(start_response, [total, environ["CONTENT_LENGTH"], len(sizes), unlinked])


def open_descriptors():
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]


def errors(environ, start_response):
    stream = environ["wsgi.errors"]
    stream.write("app: written \u2713\n")
    stream.writelines(["app: first ", "second\n"])
    stream.flush()
    return answer(start_response, None)


# --- start_response and write ----------------------------------------------------------------------


def start(environ, start_response):
    """Calls start_response with what the query holds; what that raises is the answer."""
    args = argument(environ)
    try:
        start_response(*args)
    except Exception as error:
        start_response("200 OK", PLAIN, sys.exc_info())
        return [f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")]
    return [b"accepted"]


STATUSES = ("200 OK", "200 Fine", "404 OK", "200  OK ", "599 ")


def constant_status(environ, start_response):
    start_response(STATUSES[int(environ["QUERY_STRING"])], PLAIN)
    return [b"fine"]


class Text(str):
    """What some frameworks give instead of a str."""


def subclasses(environ, start_response):
    start_response(Text("200 OK"), [(Text("X-One"), Text("1"))])
    return [b"fine"]


def twice(environ, start_response):
    start_response("200 OK", PLAIN)
    try:
        start_response("404 Not Found", PLAIN)
    except AssertionError as error:
        return [str(error).encode()]
    return [b"accepted"]


def replaced(environ, start_response):
    start_response("200 OK", [("X-First", "1"), ("Content-Length", "3")])
    try:
        raise KeyError("oops")
    except KeyError:
        start_response("503 Not Now", [("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


def too_late(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b"first"
    try:
        raise KeyError("the original")
    except KeyError:
        try:
            start_response("500 Oops", PLAIN, sys.exc_info())
        except KeyError as error:
            say("raised again", error.args[0], error.__traceback__ is not None)
            raise


def too_late_for_nothing(environ, start_response):
    """exc_info that is none, once the head has left."""
    start_response("200 OK", PLAIN)
    yield b"first"
    try:
        start_response("500 Oops", PLAIN, ("no", "exception"))
    except AssertionError as error:
        say("refused:", error)
        raise


def keyword(environ, start_response):
    try:
        start_response("200 OK", PLAIN, information=None)
    except TypeError as error:
        start_response("200 OK", PLAIN, exc_info=None)
        return [str(error).encode()]


def late(environ, start_response):
    """start_response is called in the first step of the iteration."""
    yield b""
    start_response("200 OK", PLAIN)
    yield b"late"


def never(environ, start_response):
    return [b"no head"]


def never_empty(environ, start_response):
    return []


def swallowed(environ, start_response):
    try:
        start_response("200 OK", [("Bad\n", "x")])
    except ValueError:
        pass
    return [b"body"]


def write(environ, start_response):
    put = start_response("200 OK", PLAIN)
    put(b"one ")
    put(b"")
    put(b"two ")
    return [b"three ", b"four"]


def write_only(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])(b"only")
    return []


def write_much(environ, start_response):
    put = start_response("200 OK", PLAIN)
    for _ in range(argument(environ)):
        put(BLOCK)
    say("all written")
    return [b"end"]


def write_wrong(environ, start_response):
    put = start_response("200 OK", [("Content-Length", "4")])
    results = []
    for args in [("text",), (bytearray(b"x"),), (), (b"a", b"b"), (b"too long",)]:
        try:
            put(*args)
            results.append("accepted")
        except Exception as error:
            results.append(type(error).__name__)
    say("write:", *results)
    return [b"four"]


def write_then_fail(environ, start_response):
    start_response("200 OK", PLAIN)(b"some")
    raise ValueError("after write")


def keep(environ, start_response):
    kept[:] = [start_response, start_response("200 OK", PLAIN), environ, environ["wsgi.input"]]
    return [b"kept"]


def use_kept(environ, start_response):
    results = []
    for function, args in [(kept[0], ("200 OK", [])), (kept[1], (b"late",))]:
        try:
            function(*args)
            results.append("accepted")
        except Exception as error:
            results.append(f"{type(error).__name__}: {error}")
    results.append(kept[2]["PATH_INFO"])
    results.append(kept[3].read().decode())
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    return answer(start_response, results)


def other_thread(environ, start_response):
    results = []

    def call():
        try:
            start_response("200 OK", [])
        except Exception as error:
            results.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return answer(start_response, results)


# --- responses -------------------------------------------------------------------------------------


class Odd(list):
    """A list that is more than a list: it is iterated, not looked into."""

    def __iter__(self):
        yield b"odd"


def respond(environ, start_response):
    """(headers, items, kind) of the query as a response."""
    headers, items, kind = argument(environ)
    start_response("200 OK", headers)
    return make_iterable(items, kind)


def respond_runs(environ, start_response):
    """The same for (byte, length, times) triples."""
    runs, kind = argument(environ)
    start_response("200 OK", [])
    return make_iterable(
        [byte * length for byte, length, times in runs for _ in range(times)], kind
    )


def make_iterable(items, kind):
    kinds = {
        "list": list,
        "tuple": tuple,
        "generator": lambda items: (item for item in items),
        "closing": Closing,
        "failing": lambda items: Closing(items, fail=True),
        "odd": Odd,
        "bytes": lambda items: b"".join(items),
        "none": lambda items: None,
    }
    return kinds[kind](items)


def status(environ, start_response):
    """A status that bears no body, with one."""
    line, headers = argument(environ)
    start_response(line, headers)
    return [b"a body"]


def raises(environ, start_response):
    """Fails before start_response, behind it, in the first, or in a later step of the iteration."""
    where = argument(environ)
    if where == "before":
        raise RuntimeError("before")
    start_response("200 OK", [("Content-Length", "10")] if where == "length" else PLAIN)
    if where == "behind":
        raise RuntimeError("behind")

    def steps():
        if where == "first":
            raise RuntimeError("first")
        yield b"12345"
        raise RuntimeError(where)

    return Closing(steps())


def wrong_item(environ, start_response):
    start_response("200 OK", PLAIN)
    return Closing(argument(environ))


def stepwise(environ, start_response):
    """Each item is made only when the test writes into a FIFO."""
    path = argument(environ)
    start_response("200 OK", PLAIN)
    yield b"first"
    with open(path) as fifo:
        yield fifo.read().encode()


def endless(environ, start_response):
    """Never ends; tells how far it came."""
    start_response("200 OK", PLAIN)

    def blocks():
        n = 0
        try:
            while True:
                n += 1
                yield BLOCK
        finally:
            say("blocks", n)

    return Closing(blocks())


def endless_generator(environ, start_response):
    start_response("200 OK", PLAIN)
    try:
        while True:
            yield BLOCK
    finally:
        say("generator closed")


def endless_drops(environ, start_response):
    """Never ends, in bytes so few that a client can take them all at once."""
    start_response("200 OK", PLAIN)
    while True:
        yield argument(environ)


def stream(environ, start_response):
    """So many blocks, each of another letter."""
    start_response("200 OK", PLAIN)
    return Closing(bytes([97 + i % 26]) * 65536 for i in range(argument(environ)))


def exits(environ, start_response):
    raise SystemExit(argument(environ))


# --- files -----------------------------------------------------------------------------------------


class NoClose:
    def __init__(self, data):
        self.stream = io.BytesIO(data)

    def read(self, size):
        return self.stream.read(size)


class Upper:
    """Changes what it reads: its descriptor must not be sent."""

    def __init__(self, file):
        self.file = file

    def read(self, size):
        return self.file.read(size).upper()

    def fileno(self):
        return self.file.fileno()

    def tell(self):
        return self.file.tell()

    def close(self):
        say("closed")
        self.file.close()


class NamedFile(io.FileIO):
    """Not the built-in type: what its read() does is not known."""

    def read(self, size=-1):
        return super().read(size).swapcase()


def open_kind(kind, path):
    if kind == "bytesio":
        with open(path, "rb") as file:
            return io.BytesIO(file.read())
    if kind == "buffered":
        file = open(path, "rb")
        file.read(10)
        return file
    if kind == "random":
        return open(path, "r+b")
    if kind == "temporary":
        file = tempfile.NamedTemporaryFile()
        with open(path, "rb") as source:
            file.write(source.read())
        file.seek(0)
        return file
    if kind == "noclose":
        with open(path, "rb") as file:
            return NoClose(file.read())
    if kind == "closed":
        file = open(path, "rb")
        file.close()
        return file
    kinds = {
        "plain": lambda: open(path, "rb"),
        "raw": lambda: open(path, "rb", buffering=0),
        "text": lambda: open(path),
        "gzip": lambda: gzip.open(path, "rb"),
        "upper": lambda: Upper(open(path, "rb")),
        "subclass": lambda: NamedFile(path),
        "proc": lambda: open("/proc/self/cmdline", "rb"),
    }
    return kinds[kind]()


def file(environ, start_response):
    kind, path, headers = argument(environ)
    start_response("200 OK", headers)
    return environ["wsgi.file_wrapper"](open_kind(kind, path), 4096)


def file_closed(environ, start_response):
    """The file is closed and removed as soon as the server calls close()."""
    path = argument(environ)
    opened = open(path, "rb")

    class Wrapped:
        def __init__(self, inner):
            self.inner = inner

        def __iter__(self):
            return iter(self.inner)

        def close(self):
            self.inner.close()
            say("closed", opened.closed)

    start_response("200 OK", PLAIN)
    wrapper = environ["wsgi.file_wrapper"](opened)
    assert wrapper.filelike is opened and wrapper.blksize > 0
    return Wrapped(wrapper)


# --- the server itself -----------------------------------------------------------------------------


def blocks(environ, start_response):
    """Blocks of memory that Python has in use."""
    gc.collect()
    return answer(start_response, sys.getallocatedblocks())


# --- the validator ---------------------------------------------------------------------------------


@validator
def validated(environ, start_response):
    data = environ["wsgi.input"].read(1 << 20)
    environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Length", str(len(data)))])
    return [environ["REQUEST_METHOD"].encode(), b" ", data]


def app(environ, start_response):
    name = environ["PATH_INFO"].split("/")[1]
    return globals()[name.replace("-", "_")](environ, start_response)
