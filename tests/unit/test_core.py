"""The core's Server on its own: what it refuses to be made of, and to do; and under loops that are not usual."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
import subprocess
import sys
import traceback
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
    figures = (
        "connections", "connections_total", "requests", "requests_total", "overloaded_total",
        "spool_full_total", "spooled",
    )  # fmt: skip
    assert [getattr(core, name) for name in figures] == [0] * 7
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


def test_threads_run_once() -> None:
    core = _core.Server(wsgi, interface="wsgi", threads=2)
    with pytest.raises(RuntimeError, match="for the threads that run"):
        core._work()
    core.stop()
    core.run()
    assert core._work() is None  # a thread that begins too late
    with pytest.raises(RuntimeError, match="runs once"):
        core.run()
    core.close()


def test_no_standard_error(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    """wsgi.errors is a stream all the same."""
    monkeypatch.setattr(sys, "stderr", None)
    told: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["wsgi.errors"].write("nobody hears it")
        environ["wsgi.errors"].flush()
        told.append(core.stop())
        return wsgi(environ, start_response)

    core = _core.Server(app, interface="wsgi")
    core.listen(listener.fileno())
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        core.run()
    core.close()
    assert told == [None]


def test_never_made() -> None:
    """An object of the type alone, without __init__, is a closed server."""
    empty = _core.Server.__new__(_core.Server)
    with pytest.raises(RuntimeError, match="is closed"):
        empty.set_tls(None)  # type: ignore[arg-type]
    empty.poll()
    empty.close()


@pytest.mark.parametrize("name", ["drain", "call_at"])
def test_closed_by_the_end_of_a_callback(core: _core.Server, name: str) -> None:
    """What takes its place is for a server that is closed now."""

    class Closes:
        def __call__(self) -> None: ...

        def __del__(self) -> None:
            core.close()

    call = {"drain": core.drain, "call_at": lambda what: core.call_at(1000, what)}[name]
    call(Closes())
    call(lambda: None)
    with pytest.raises(RuntimeError, match="is closed"):
        core.run()


def test_closed_while_it_runs(core: _core.Server) -> None:
    """By the tick, which is called between two polls; nor does it run twice."""
    said = []

    def tick() -> None:
        for call in (core.close, core.run):
            with pytest.raises(RuntimeError) as caught:
                call()
            said.append(str(caught.value))
        core.stop()

    core.run(tick, 0.01)
    assert said == [
        "close() from inside the server's own poll",
        "run() is for WSGI, once; ASGI runs in its asyncio loop",
    ]


ASKED = """
import sys, threading
from asgiserver import _core

def app(environ, start_response):
    raise AssertionError

def ask(core, over, said):
    while not over.is_set():
        said.add(core.connections)

sys.setswitchinterval(1e-6)
for _ in range(100):
    core = _core.Server(app, interface="wsgi", threads=1)
    core.drain()
    over, said = threading.Event(), set()
    asking = threading.Thread(target=ask, args=(core, over, said))
    asking.start()
    core.run()
    core.close()
    over.set()
    asking.join()
    assert said <= {0}, said
"""


def test_asked_while_it_ends() -> None:
    """By another thread, just when that of the loop ends and the server is closed."""
    env = {**os.environ, "MALLOC_PERTURB_": "165"}  # what was freed is nothing that could be right
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        check=False,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")


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
        try:
            return [await self._answer() for _ in range(n)]
        finally:
            self.core.close()

    async def _answer(self) -> bytes:
        reader, writer = await asyncio.open_connection(*self._listener.getsockname())
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()


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


def test_an_application_steps_itself(listener: socket.socket) -> None:
    """By its task's coroutine, in the first step and in a later one."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        coro: Any = asyncio.current_task().get_coro()  # type: ignore[union-attr]
        for later in (False, True):
            for step in ("throw", "close", "send", "__next__")[: 4 if later else 2]:
                with pytest.raises(ValueError, match="already executing"):
                    getattr(coro, step)(*{"throw": (KeyError,), "send": (None,)}.get(step, ()))
            await asyncio.sleep(0)
        await answer(send, b"by itself")

    served = Served(listener)
    for text in served.ask(app, 2):
        assert text.endswith(b"by itself")
    assert served.logged == []


def test_a_send_that_awaits_itself(listener: socket.socket) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        def pairs() -> Iterator[tuple[bytes, bytes]]:
            with pytest.raises(ValueError, match="already executing"):
                sending.send(None)
            yield b"a", b"b"

        sending = send({"type": "http.response.start", "status": 200, "headers": pairs()})
        await sending
        await send({"type": "http.response.body", "body": b"once"})

    (text,) = Served(listener).ask(app)
    assert b"\r\na: b\r\n" in text
    assert text.endswith(b"\r\n\r\nonce")


def test_closed_by_its_access_log(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised then is told of the callable, though the log has let go of it."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: unraisable.append(what.object))

    def lines(records: Any) -> None:
        served.core.close()
        raise ValueError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"the last one")

    served = Served(listener, access_log=lines)
    (text,) = served.ask(app)
    assert text.endswith(b"the last one")
    assert unraisable == [lines]


def test_headers_that_end_the_request(listener: socket.socket) -> None:
    outcome = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        coro: Any = asyncio.current_task().get_coro()  # type: ignore[union-attr]

        def pairs() -> Iterator[tuple[bytes, bytes]]:
            yield b"a", b"b"
            coro.close()

        message = {"type": "http.response.start", "status": 200, "headers": pairs()}
        outcome.append(asyncio.ensure_future(send(message)))
        await asyncio.Event().wait()

    with pytest.raises(ConnectionResetError):
        Served(listener).ask(app)
    assert isinstance(outcome[0].exception(), _core.ClientDisconnected)


def test_a_body_whose_end_runs_code(listener: socket.socket) -> None:
    """It is not kept until the client has taken it: its end would come in the middle of the core."""

    class Body(bytes):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = Body(32 * 1024 * 1024)
        held = sys.getrefcount(body)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})
        assert sys.getrefcount(body) == held

    served = Served(listener)
    (text,) = served.ask(app)
    assert text.endswith(bytes(32 * 1024 * 1024))
    assert served.logged == []


class Short(asyncio.SelectorEventLoop):
    """Has no memory for a future of the core's, once."""

    failed = False

    def create_future(self) -> Any:
        task = asyncio.current_task(self)
        if not self.failed and task is not None and type(task.get_coro()).__name__ == "Driver":
            self.failed = True
            raise MemoryError
        return super().create_future()


def test_a_task_that_could_not_wait(listener: socket.socket) -> None:
    """It is no place for the next request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if loop.failed:
            await asyncio.sleep(0)
        await answer(send, b"somewhere")

    served, loop = Served(listener), Short()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        answers = runner.run(served._ask(app, 3))
    assert loop.failed
    for text in answers:
        assert text.endswith(b"somewhere")


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_a_message_that_changes_while_it_is_read(listener: socket.socket) -> None:
    class Key(str):
        def __hash__(self) -> int:
            return hash("text")

        def __eq__(self, other: object) -> bool:
            message.pop("bytes", None)
            return False

    message: dict[str, Any] = {"type": "websocket.send", "bytes": bytes(1 << 20)}
    message[Key("other")] = None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send(message)

    async def main() -> bytes:
        core = _core.Server(app, interface="asgi", loop=asyncio.get_running_loop())
        core.listen(listener.fileno())
        core.start()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        frame = await asyncio.wait_for(reader.readexactly(10 + (1 << 20)), 20)
        writer.close()
        core.close()
        return frame

    assert asyncio.run(main()) == b"\x82\x7f" + (1 << 20).to_bytes(8, "big") + bytes(1 << 20)


def test_links_that_go_while_they_are_read(listener: socket.socket) -> None:
    """The message held the only reference. (Memory that is freed shows with PYTHONMALLOC=debug.)"""
    message: dict[str, Any] = {"type": "http.response.early_hint"}

    class Links:
        def __iter__(self) -> Iterator[bytes]:
            message.pop("links")
            return iter((b"</style.css>",))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message["links"] = Links()
        await send(message)
        await answer(send, b"hinted")

    served = Served(listener)
    (text,) = served.ask(app)
    assert b"link: </style.css>\r\n" in text
    assert text.endswith(b"hinted")
    assert served.logged == []


class Ending(asyncio.SelectorEventLoop):
    """Ends a request in the middle of being told of it, as any code that runs there could."""

    driver: Any = None
    ended = 0

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        driver, self.driver = self.driver, None
        if driver is None:
            return super().call_soon(callback, *args, context=context)
        self.ended += 1
        driver.close()
        return asyncio.Handle(int, (), self)


@pytest.mark.parametrize("timeout_cancel", [0, 1000])
def test_a_request_that_ends_while_it_hears_that_its_client_left(
    listener: socket.socket, timeout_cancel: int
) -> None:
    """Nothing holds it then but what tells it. (The sanitizers see what is read afterwards.)"""
    loop = Ending()
    tasks: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        tasks.append(asyncio.current_task())
        await receive()

    def waits() -> bool:
        return bool(tasks) and type(tasks[0]._fut_waiter).__name__ == "Awaitable"

    async def main() -> None:
        core = _core.Server(
            app, interface="asgi", loop=loop, limits={"timeout_cancel": timeout_cancel}
        )
        core.listen(listener.fileno())
        core.start()
        reset = struct.pack("ii", 1, 0)
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while not waits():
                await asyncio.sleep(0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        loop.driver = tasks.pop().get_coro()
        core.poll()
        loop.driver = None
        assert loop.ended == 1
        assert core.requests == 0
        core.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


def test_an_exception_that_is_thrown_keeps_its_traceback(listener: socket.socket) -> None:
    """As it does where it is thrown into a coroutine of Python's."""
    found = []

    def fail() -> None:
        raise LookupError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            fail()
        except LookupError as error:
            problem = error
        try:
            receive().throw(problem)
        except LookupError as error:
            found.extend(frame.name for frame in traceback.extract_tb(error.__traceback__))
        await answer(send, b"fine")

    Served(listener).ask(app)
    assert found == ["app", "app", "fail"]
