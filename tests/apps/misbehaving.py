"""Applications that do what none should; the path says what. ``asgi`` and ``wsgi`` misbehave alike."""

import asyncio
import builtins
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

ballast = []


def say(text):
    """A line by one write."""
    os.write(1, f"{text}\n".encode())


class Odd(BaseException):
    """No Exception, and none of Python's own."""


def recurse(_):
    return recurse(_)


def exhaust(_):
    return b"x" * (1 << 60)


def throw(name):
    raise {**vars(builtins), "Odd": Odd, "CancelledError": asyncio.CancelledError}[name](
        "on purpose"
    )


def crash(_):
    ctypes.string_at(1)


def leave(status):
    os._exit(int(status))


def fork(seconds):
    """A child that lives on, with all that this process has open."""
    pid = os.fork()
    if pid == 0:
        time.sleep(float(seconds))
        os._exit(0)
    return pid


def fork_briefly(_):
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork_and_return(_):
    """The child does not end: it goes on as if it were the server."""
    return os.fork()


def fork_and_raise(_):
    """The child leaves by an exception, which is for the server to catch."""
    pid = os.fork()
    if pid == 0:
        raise ValueError("in the child")
    return pid


def program(seconds):
    """Another program, which has nothing of this one's."""
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", f"import time; time.sleep({seconds})"], close_fds=False
    )
    return child.pid


def thread(_):
    """One that works on when the request is over."""
    threading.Thread(
        target=lambda: (time.sleep(0.3), say("the thread is done")), daemon=True
    ).start()


def close_all(_):
    os.closerange(3, 1024)


def handlers(_):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: say("the application's handler"))


def policy(_):
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())


def loops(_):
    """A loop of its own, where there is none; else Python says that there is one."""

    async def inner():
        await asyncio.sleep(0.01)
        return "inner"

    coroutine = inner()
    try:
        return asyncio.run(coroutine)
    except RuntimeError as error:
        coroutine.close()
        return error


def umask(_):
    """Things that belong to the whole process."""
    os.chdir("/")
    sys.setrecursionlimit(400)
    sys.stdout = sys.stderr = None


def grow(size):
    ballast.append(b"x" * int(size))
    return os.getpid()


def ok(_):
    return os.getpid()


def swallow(_):
    """Not to be ended by any exception that comes from outside."""
    say("swallowing")
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            say("swallowed")


DEEDS = {
    one.__name__: one
    for one in (
        recurse, exhaust, throw, crash, leave, fork, fork_briefly, fork_and_return, fork_and_raise,
        program, thread, close_all, handlers, policy, loops, umask, grow, ok, swallow,
    )
}  # fmt: skip


async def swallow_cancellation():
    say("swallowing")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            say("swallowed")


def stop_loop():
    asyncio.get_running_loop().stop()


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    name, argument = scope["path"].strip("/"), scope["query_string"].decode()
    late = name.startswith("late_")
    if late:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        name = name.removeprefix("late_")
    if name == "swallow_cancellation":
        await swallow_cancellation()
    elif name == "stop_loop":
        stop_loop()
    body = str(DEEDS[name](argument) if name in DEEDS else name).encode()
    if not late:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})  # fmt: skip
    await send({"type": "http.response.body", "body": body})


def pieces(name, argument):
    yield b"part"
    yield str(DEEDS[name](argument)).encode()


class Closing:
    """Misbehaves in __iter__, __next__ or close."""

    def __init__(self, where, argument):
        self.where, self.argument, self.items = where, argument, iter((b"one", b"two"))

    def __iter__(self):
        return self.do("iter") or self

    def __next__(self):
        return self.do("next") or next(self.items)

    def close(self):
        self.do("close")

    def do(self, where):
        if self.where == where:
            throw(self.argument)


def wsgi(environ, start_response):
    name, argument = environ["PATH_INFO"].strip("/"), environ["QUERY_STRING"]
    if name in ("iter", "next", "close"):
        start_response("200 OK", [])
        return Closing(name, argument)
    if name.startswith("late_"):
        start_response("200 OK", [])
        return pieces(name.removeprefix("late_"), argument)
    body = str(DEEDS[name](argument)).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
