"""The core's Server on its own: what it refuses to be made of, and to do; and under loops that are not usual."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asgiserver import _core


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


@pytest.fixture
def core() -> Iterator[_core.Server]:
    made = _core.Server(wsgi, interface="wsgi")
    yield made
    made.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, TypeError, "needs the keyword interface"),
        ({"interface": "asgi"}, ValueError, "interface"),
        ({"interface": "wsgi", "loop": object()}, ValueError, "interface"),
        ({"interface": "fcgi"}, ValueError, "interface"),
        ({"interface": "wsgi", "state": []}, TypeError, "state must be a dict"),
        ({"interface": "wsgi", "proxy": []}, TypeError, "proxy must be a dict"),
        ({"interface": "wsgi", "limits": {"no_such": 1}}, ValueError, "no such limit: no_such"),
        ({"interface": "wsgi", "limits": 1}, (TypeError, AttributeError), "items"),
        ({"interface": "wsgi", "headers": 1}, TypeError, "iterable"),
        ({"interface": "wsgi", "headers": [b"x"]}, (TypeError, SystemError), "."),
        ({"interface": "wsgi", "headers": [(b"a b", b"x")]}, ValueError, "header: a b"),
        ({"interface": "wsgi", "headers": [(b"a", b"x\r\ny: z")]}, ValueError, "header: a"),
    ],
)
def test_wrong_arguments(arguments: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        _core.Server(wsgi, **arguments)


def test_made_once(core: _core.Server) -> None:
    with pytest.raises(TypeError, match="made once"):
        core.__init__(wsgi, interface="wsgi")  # type: ignore[misc]


def test_figures_of_a_new_one(core: _core.Server, listener: socket.socket) -> None:
    figures = ("connections", "connections_total", "requests", "requests_total", "overloaded_total")
    assert [getattr(core, name) for name in figures] == [0] * 5
    core.listen(listener.fileno())
    assert core.accepting
    core.drain()
    assert not core.accepting


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda core: core.listen(12345), OSError, "cannot accept on descriptor 12345"),
        (lambda core: core.listen(0, tls=object()), TypeError, "a TLSContext expected, not object"),
        (lambda core: core.set_tls(None), TypeError, "a TLSContext expected, not NoneType"),
        (lambda core: core.start(), RuntimeError, "is for ASGI"),
        (lambda core: core.run(None, 0.001), ValueError, "interval"),
        (lambda core: core.run(None, float("nan")), ValueError, "interval"),
        (lambda core: core.drain(idle=-1.0), ValueError, "idle"),
        (lambda core: core.drain(idle=86401.0), ValueError, "idle"),
        (lambda core: core._work(), RuntimeError, "for the threads that run"),
        (lambda core: core.balance(b"x" * 64), BufferError, "writable"),
        (lambda core: core.balance(memoryview(mmap.mmap(-1, 4096))[1:]), ValueError, "cache line"),
        (lambda core: core.balance(mmap.mmap(-1, 4096)[:0]), (BufferError, OSError), "."),
    ],
)
def test_wrong_calls(
    core: _core.Server, call: Callable[[Any], None], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(core)


def test_balance_once(core: _core.Server) -> None:
    core.balance(mmap.mmap(-1, 4096))
    with pytest.raises(RuntimeError, match="once"):
        core.balance(mmap.mmap(-1, 4096))


@pytest.mark.parametrize("name", ["listen", "balance", "run", "start", "set_tls"])
def test_closed(core: _core.Server, name: str) -> None:
    arguments = {"listen": (0,), "balance": (None,), "set_tls": (None,)}.get(name, ())
    core.close()
    core.close()
    with pytest.raises((RuntimeError, TypeError), match=r"is closed|TLSContext"):
        getattr(core, name)(*arguments)


def test_reopening_the_access_log_on_nothing() -> None:
    reader, writer = os.pipe()
    core = _core.Server(wsgi, interface="wsgi", access_log=writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        core.reopen_access_log(12345)
    core.close()
    os.close(reader)
    os.close(writer)


def test_a_format_that_is_no_text() -> None:
    with pytest.raises(TypeError, match="str expected"):
        _core.check_access_log_format(b"common")  # type: ignore[arg-type]


# --- ASGI in a loop of the test's -------------------------------------------------------------------------


class Served:
    """The answers to ``requests``, each on a connection that closes, and what was to be logged."""

    def __init__(self, listener: socket.socket, **options: Any) -> None:
        self.logged: list[tuple[str, BaseException | None]] = []
        self._listener, self._options = listener, options
        self.core: _core.Server

    def ask(self, app: Any, n: int = 1, debug: bool = False) -> list[bytes]:
        with asyncio.Runner(debug=debug) as runner:
            return runner.run(self._ask(app, n))

    async def _ask(self, app: Any, n: int) -> list[bytes]:
        self.core = _core.Server(
            app,
            interface="asgi",
            loop=asyncio.get_running_loop(),
            on_error=lambda level, message, exception: self.logged.append((message, exception)),
            **self._options,
        )
        self.core.listen(self._listener.fileno())
        self.core.start()
        answers = []
        for _ in range(n):
            reader, writer = await asyncio.open_connection(*self._listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answers.append(await asyncio.wait_for(reader.read(), 20))
            writer.close()
        self.core.close()
        return answers


async def answer(send: Any, text: bytes) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send(message={"type": "http.response.body", "body": text})


@pytest.mark.parametrize("debug", [False, True])
def test_tasks_in_python(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    """Some programs have asyncio use its tasks in Python: those ask other things of a coroutine."""
    for module in (asyncio, asyncio.tasks):
        monkeypatch.setattr(module, "Task", asyncio.tasks._PyTask)  # type: ignore[attr-defined]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert type(task).__module__ == "asyncio.tasks"
        assert repr(task)
        await asyncio.sleep(0.001)
        await answer(send, b"in Python")

    served = Served(listener)
    answers = served.ask(app, 3, debug)
    assert served.logged == []
    for text in answers:
        assert text.endswith(b"in Python")


@pytest.mark.parametrize("result", [None, 5, "text"])
def test_an_application_that_is_no_coroutine(listener: socket.socket, result: Any) -> None:
    served = Served(listener)
    (text,) = served.ask(lambda scope, receive, send: result)
    assert text.startswith(b"HTTP/1.1 500 ")
    ((_, exception),) = served.logged
    assert isinstance(exception, TypeError)
    assert "not an awaitable" in str(exception)


def test_closed_from_within(listener: socket.socket) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(RuntimeError, match="inside the server's own poll"):
            served.core.close()
        await answer(send, b"still open")

    served = Served(listener)
    (text,) = served.ask(app)
    assert text.endswith(b"still open")


@pytest.mark.parametrize(
    "misuse",
    [
        lambda receive, send: receive(1),
        lambda receive, send: receive(how=1),
        lambda receive, send: send(),
        lambda receive, send: send({}, {}),
        lambda receive, send: send({}, message={}),
        lambda receive, send: send(event={}),
        lambda receive, send: receive().throw(),
        lambda receive, send: receive().throw(5),
        lambda receive, send: receive().throw(ValueError, None, None, None),
        lambda receive, send: receive().add_done_callback(),
        lambda receive, send: receive().add_done_callback(print, loop=None),
    ],
)
def test_wrong_calls_of_an_application(listener: socket.socket, misuse: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(TypeError):
            misuse(receive, send)
        await answer(send, b"fine")

    (text,) = Served(listener).ask(app)
    assert text.endswith(b"fine")


def test_an_awaitable_out_of_turn(listener: socket.socket) -> None:
    """What is the task's to ask, asked by somebody else."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        early = receive()
        for method in ("result", "add_done_callback"):
            with pytest.raises(RuntimeError, match="is not waiting"):
                getattr(early, method)(*([print] if method != "result" else []))
        await early
        waiting = receive()
        waiting.send(None)
        with pytest.raises(RuntimeError, match="still waits"):
            waiting.result()
        waiting.add_done_callback(print)
        with pytest.raises(RuntimeError, match="being awaited already"):
            waiting.add_done_callback(print)
        with pytest.raises(AttributeError):
            waiting.anything = 1
        waiting.close()
        with pytest.raises(ValueError, match="thrown"):
            receive().throw(ValueError, ValueError("thrown"), None)
        await answer(send, b"fine")

    (text,) = Served(listener).ask(app)
    assert text.endswith(b"fine")
