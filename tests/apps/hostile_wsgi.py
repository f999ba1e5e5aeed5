"""An application that does what its query string says, be it ever so wrong; "/ok" answers."""

import io

from hostile import Maker, in_thread, program

kept = []  # start_response, write, environ of earlier requests
NOT_MORE = 20


class Result:
    """An iterable that misbehaves at one of its calls."""

    def __init__(self, items, bad, deed):
        self.items, self.bad, self.deed = iter(items), bad, deed

    def at(self, name):
        if self.bad == name:
            raise ZeroDivisionError(name)
        self.deed()

    def __iter__(self):
        self.at("iter")
        return self

    def __next__(self):
        self.at("next")
        return next(self.items)

    def close(self):
        self.at("close")


class File(io.BytesIO):
    """For wsgi.file_wrapper."""

    def __init__(self, result):
        super().__init__(b"abc")
        self.result, self.fd = result, result.bad

    def read(self, *args):
        self.result.at("read")
        return next(self.result.items, b"")

    def fileno(self):
        self.result.at("fileno")
        return {"bad-fd": 10**9, "no-int": "x"}.get(self.fd, -1)


class Actor(Maker):
    def __init__(self, environ, start_response):
        super().__init__(
            {
                "start": lambda: start_response("200 OK", []),
                "send": self.write_deed,
                "receive": lambda: environ["wsgi.input"].read(1),
                "scope": environ.clear,
            }
        )
        self.environ, self.start_response = environ, start_response
        self.input, self.wrapper = environ["wsgi.input"], environ["wsgi.file_wrapper"]
        self.write = None

    def write_deed(self):
        if self.write is not None:
            self.write(b"deed")

    def act(self, name, *specs):
        values = [self.make(spec) for spec in specs]
        if name == "start":
            self.write = self.start_response(*values)
        elif name == "thread-start":
            in_thread(lambda: self.start_response(*values))
        elif name == "stale-start" and kept:
            kept[0][0](*values)
        elif name == "write" and self.write is not None:
            self.write(*values)
        elif name == "thread-write" and self.write is not None:
            in_thread(lambda: self.write(*values))
        elif name == "stale-write" and kept and kept[0][1] is not None:
            kept[0][1](*values)
        elif name == "input":
            for call in (
                self.input.read,
                self.input.readline,
                self.input.readlines,
                self.input.__getattribute__,
            ):
                try:
                    call(*values)
                except Exception:
                    pass
        elif name == "thread-input":
            in_thread(self.input.read)
        elif name == "stale-input" and kept:
            kept[0][2].read()
        elif name == "errors":
            self.environ["wsgi.errors"].write(*values)
        elif name == "keep":
            kept.insert(0, (self.start_response, self.write, self.input))
            del kept[NOT_MORE:]

    def result(self, kind, bad, deed, items):
        values = [self.make(item) for item in items]
        if kind == "list":
            return values
        if kind == "value":
            return values[0] if values else None
        result = Result(values, bad, self.deed(deed))
        if kind == "file":
            return self.wrapper(File(result))
        return result


def app(environ, start_response):
    if environ["PATH_INFO"] == "/ok":
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    actor = Actor(environ, start_response)
    for act in program(environ["QUERY_STRING"]):
        if act[0] == "raise":
            raise ZeroDivisionError("on purpose")
        if act[0] == "result":
            return actor.result(*act[1:])
        try:
            actor.act(*act)
        except SystemError:
            raise
        except Exception as error:
            error.__traceback__ = None
    return []
