"""ASGI as an application sees it: each check asserts inside the server and answers 200 "ok", or 500 with the trace.

tests/e2e/test_asgi.py asks for /<name of the check>, with the request that the check wants.
"""

import asyncio
import collections.abc
import contextvars
import copy
import functools
import gc
import http
import inspect
import pickle
import tempfile
import traceback
import types
import weakref
from dataclasses import dataclass

import anyio
import anyio.to_thread
import sniffio

variable = contextvars.ContextVar("variable", default="unset")
kept = {}  # from one request to the next


@dataclass(frozen=True)
class Check:
    function: object
    method: str = "GET"
    query: str = ""
    fields: tuple[str, ...] = ()
    body: bytes | None = None
    version: str = "1.1"
    times: int = 1  # requests on one connection, pipelined


CHECKS: dict[str, Check] = {}


def check(**wanted):
    def register(function):
        CHECKS[function.__name__] = Check(function, **wanted)
        return function

    return register


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    name = scope["path"].rpartition("/")[2]
    started = []

    async def watched_send(message):
        started.append(message["type"])
        await send(message)

    function = CHECKS[name].function
    watching = "send_" not in name
    status, text = 200, "ok"
    try:
        await function(scope, receive, watched_send if watching else send)
    except BaseException:
        status, text = 500, traceback.format_exc()
        if started or not watching:
            print(text, flush=True)
            raise
    if not started and watching:
        body = text.encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def lifespan(scope, receive, send):
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    scope["state"].update(answer=42, shared=[])
    assert await receive() == {"type": "lifespan.startup"}
    await send({"type": "lifespan.startup.complete"})
    assert await receive() == {"type": "lifespan.shutdown"}
    await send({"type": "lifespan.shutdown.complete"})


# --- the scope -------------------------------------------------------------------------------------------


@check(query="?a=%20b", fields=("X-A: b",))
async def scope_keys(scope, receive, send):
    assert type(scope) is dict
    assert set(scope) == {
        "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path",
        "headers", "client", "server", "extensions", "state",
    }  # fmt: skip
    kinds = {key: type(scope[key]) for key in scope if key != "headers"}
    text = dict.fromkeys(["type", "http_version", "method", "scheme", "path", "root_path"], str)
    pairs = {"client": tuple, "server": tuple}
    assert kinds == {
        **text, **pairs, "asgi": dict, "raw_path": bytes, "query_string": bytes, "extensions": dict, "state": dict,
    }  # fmt: skip
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert scope["http_version"] == "1.1"
    assert scope["method"] == "GET"
    assert scope["scheme"] == ("https" if "tls" in scope["extensions"] else "http")
    assert scope["path"] == "/scope_keys"
    assert scope["raw_path"] == b"/scope_keys"
    assert scope["query_string"] == b"a=%20b"
    assert scope["root_path"] == ""
    assert all(type(key) is str for key in scope)


@check()
async def scope_addresses(scope, receive, send):
    host, port = scope["client"]
    assert (host, type(port)) == ("127.0.0.1", int)
    assert (b"x-port", b"%d" % port) in [*scope["headers"], (b"x-port", b"%d" % port)]
    host, port = scope["server"]
    assert (host, type(port)) == ("127.0.0.1", int)
    assert port > 0


def without_tls(extensions):
    """tests/e2e/test_tls.py is about that one."""
    return {name: value for name, value in extensions.items() if name != "tls"}


@check()
async def scope_extensions(scope, receive, send):
    assert without_tls(scope["extensions"]) == {
        "http.response.pathsend": {},
        "http.response.trailers": {},
        "http.response.early_hint": {},
    }


@check(version="1.0")
async def scope_of_1_0(scope, receive, send):
    """Chunks, and with them trailers, and interim answers are not there."""
    assert scope["http_version"] == "1.0"
    assert without_tls(scope["extensions"]) == {"http.response.pathsend": {}}


@check(method="OPTIONS")
async def scope_method(scope, receive, send):
    assert scope["method"] == "OPTIONS"


@check(times=3)
async def scope_is_the_requests_own(scope, receive, send):
    """Whatever an application changes in it stays in its request."""
    for key in ("asgi", "extensions", "state"):
        assert "touched" not in scope[key], key
        scope[key]["touched"] = True
    for extension in scope["extensions"].values():
        if isinstance(extension, dict):
            assert "touched" not in extension
            extension["touched"] = True
    assert "touched" not in scope
    scope["touched"] = scope["path"] = scope["method"] = "touched"
    scope["headers"] = []


def change_asgi_value(scope):
    scope["asgi"]["version"] = "2.0"


def change_asgi_key(scope):
    del scope["asgi"]["version"]


def change_extension(scope):
    scope["extensions"]["http.response.trailers"]["touched"] = True


def drop_extension(scope):
    del scope["extensions"]["http.response.early_hint"]


def swap_extensions(scope):
    extensions = scope["extensions"]
    extensions["http.response.trailers"] = extensions["http.response.pathsend"]


def replace_extension(scope):
    scope["extensions"]["http.response.trailers"] = None


def keep_extension(scope):
    kept.setdefault("dicts", []).append(scope["extensions"]["http.response.trailers"])


def change_state(scope):
    scope["state"]["answer"] = 0


def extend_state(scope):
    scope["state"]["more"] = 1


def change_headers(scope):
    scope["headers"].append((b"x-more", b"1"))


def empty_headers(scope):
    scope["headers"].clear()


def keep_all(scope):
    kept.setdefault("dicts", []).extend([scope, *scope.values()])


CHANGES = (
    *(change_asgi_value, change_asgi_key, change_extension, drop_extension, swap_extensions),
    *(replace_extension, keep_extension, change_state, extend_state, change_headers),
    *(empty_headers, keep_all),
)


@check(times=2 * len(CHANGES) + 1, fields=("X-One: 1",))
async def scope_is_as_new_behind_each_change(scope, receive, send):
    """What is lent from request to request is lent only when it is as it was made, and nobody has it."""
    number = kept.setdefault("changes", 0)
    kept["changes"] += 1
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert without_tls(scope["extensions"]) == {
        "http.response.pathsend": {},
        "http.response.trailers": {},
        "http.response.early_hint": {},
    }
    assert len({id(extension) for extension in scope["extensions"].values()}) >= 3
    assert scope["state"]["answer"] == 42
    assert "more" not in scope["state"]
    assert list(scope["headers"]) == [(b"host", b"test"), (b"x-one", b"1")]
    mutable = (dict, list, type(scope["headers"]))
    held = {id(value) for value in kept.get("dicts", []) if isinstance(value, mutable)}
    assert not held & {id(scope), *map(id, scope.values()), *map(id, scope["extensions"].values())}
    CHANGES[number // 2 % len(CHANGES)](scope)


@check(times=16)
async def callables_that_are_kept_are_of_their_request(scope, receive, send):
    """Some requests keep all, or one: those objects are not given to another request, nor answer for one."""
    number = kept.setdefault("callables", 0)
    kept["callables"] += 1
    real_send = inspect.getclosurevars(send).nonlocals["send"]  # behind watched_send
    for old in kept.setdefault("of_requests", []):
        assert not {id(each) for each in old.values()} & set(
            map(id, (receive, real_send, scope["headers"]))
        )
        if "receive" in old:
            assert await old["receive"]() == {"type": "http.disconnect"}
        if "headers" in old:
            assert old["headers"][0] == (b"host", b"test")
        if "send" in old:
            try:
                await old["send"]({"type": "http.response.start", "status": 500})
            except (RuntimeError, OSError):
                pass
            else:
                raise AssertionError("a request that has ended took a message")
    all_three = {"receive": receive, "send": real_send, "headers": scope["headers"]}
    which = [list(all_three), ["receive"], ["send"], ["headers"]][number // 2 % 4]
    if number % 2:
        kept["of_requests"].append({key: all_three[key] for key in which})


@check(times=4)
async def awaitables_that_are_kept_stay_done(scope, receive, send):
    """Their memory is used again, but only when nobody has them."""
    old = kept.setdefault("awaitables", [])
    for awaitable in old:
        try:
            awaitable.send(None)
        except RuntimeError:
            pass
        else:
            raise AssertionError("awaited twice")
    message = receive()
    assert all(message is not awaitable for awaitable in old)
    assert (await message)["type"] == "http.request"
    old.append(message)


@check(times=3)
async def state_is_copied(scope, receive, send):
    """A shallow copy for each request: names are its own, objects are shared."""
    state = scope["state"]
    assert state["answer"] == 42
    state["answer"] = 43
    assert len(state["shared"]) == kept.setdefault("requests", 0)
    state["shared"].append(1)
    kept["requests"] += 1


@check()
async def scope_can_be_copied(scope, receive, send):
    """Starlette mounts copy it."""
    again = dict(scope)
    again["path"] = "/other"
    assert scope["path"] == "/scope_can_be_copied"
    assert copy.copy(scope) == scope
    deep = copy.deepcopy({key: value for key, value in scope.items() if key != "state"})
    assert deep["headers"] == scope["headers"]


# --- headers ---------------------------------------------------------------------------------------------

FIELDS = ("X-One: 1", "x-two: 2", "X-One: 3", "Accept: */*")
PAIRS = [
    (b"host", b"test"),
    (b"x-one", b"1"),
    (b"x-two", b"2"),
    (b"x-one", b"3"),
    (b"accept", b"*/*"),
]


def header_check(function):
    return check(fields=FIELDS)(function)


@header_check
async def headers_iterate(scope, receive, send):
    headers = scope["headers"]
    assert [pair for pair in headers] == PAIRS  # noqa: C416
    assert [pair for pair in headers] == PAIRS, "a second time"  # noqa: C416
    assert list(headers) == PAIRS
    assert tuple(headers) == tuple(PAIRS)
    for name, value in headers:
        assert type(name) is bytes
        assert type(value) is bytes
    assert all(len(pair) == 2 for pair in headers)
    assert list(zip(headers, headers, strict=True)) == list(zip(PAIRS, PAIRS, strict=True))


@header_check
async def headers_iterators(scope, receive, send):
    headers = scope["headers"]
    first, second = iter(headers), iter(headers)
    assert next(first) == PAIRS[0]
    assert next(first) == PAIRS[1]
    assert next(second) == PAIRS[0]
    assert list(first) == PAIRS[2:]
    assert list(first) == []
    assert next(first, None) is None
    assert iter(second) is second
    assert list(reversed(headers)) == PAIRS[::-1]


@header_check
async def headers_len_and_truth(scope, receive, send):
    headers = scope["headers"]
    assert len(headers) == 5
    assert headers
    assert bool(headers) is True


@header_check
async def headers_index(scope, receive, send):
    headers = scope["headers"]
    assert headers[0] == PAIRS[0]
    assert headers[-1] == PAIRS[-1]
    assert headers[4] == PAIRS[4]
    for bad in (5, -6, 10**20):
        try:
            headers[bad]
        except IndexError:
            pass
        else:
            raise AssertionError(bad)
    for bad in ("host", b"host", None, 1.0):
        try:
            headers[bad]
        except TypeError:
            pass
        else:
            raise AssertionError(bad)
    assert headers[True] == PAIRS[1]


@header_check
async def headers_slice(scope, receive, send):
    headers = scope["headers"]
    assert headers[1:3] == PAIRS[1:3]
    assert headers[:] == PAIRS
    assert headers[::-1] == PAIRS[::-1]
    assert headers[10:] == []
    assert headers[-2:] == PAIRS[-2:]
    assert type(headers[1:3]) is list


@header_check
async def headers_equal(scope, receive, send):
    headers = scope["headers"]
    assert headers == PAIRS
    assert PAIRS == headers  # noqa: SIM300
    assert headers == headers  # noqa: PLR0124
    assert not headers != PAIRS  # noqa: SIM202
    assert headers != PAIRS[:-1]
    assert headers != []
    assert headers != [list(pair) for pair in PAIRS]
    assert headers != 5
    assert headers != None  # noqa: E711
    assert headers == list(headers)


@header_check
async def headers_contain(scope, receive, send):
    headers = scope["headers"]
    assert (b"x-one", b"1") in headers
    assert (b"x-one", b"3") in headers
    assert (b"x-one", b"2") not in headers
    assert b"x-one" not in headers
    assert None not in headers


@header_check
async def headers_add(scope, receive, send):
    headers = scope["headers"]
    more = [(b"a", b"b")]
    assert headers + more == PAIRS + more
    assert more + headers == more + PAIRS
    assert headers + [] == PAIRS
    assert type(headers + more) is list
    assert headers * 2 == PAIRS * 2
    assert 2 * headers == PAIRS * 2
    assert [*headers, *more] == PAIRS + more
    both = list(headers)
    both += headers
    assert both == PAIRS * 2
    both.extend(headers)
    assert len(both) == 15
    assert headers == PAIRS


@header_check
async def headers_count_and_index(scope, receive, send):
    headers = scope["headers"]
    assert headers.count((b"x-one", b"1")) == 1
    assert headers.index((b"x-two", b"2")) == 2
    try:
        headers.index((b"no", b"no"))
    except ValueError:
        pass
    else:
        raise AssertionError


@header_check
async def headers_copy(scope, receive, send):
    headers = scope["headers"]
    for copied in (copy.copy(headers), copy.deepcopy(headers), headers.copy(), list(headers)):
        assert copied == PAIRS
        copied.append((b"a", b"b"))
        assert headers == PAIRS
    assert sorted(headers) == sorted(PAIRS)
    assert dict(headers) == dict(PAIRS)
    assert {name for name, _ in headers} == {name for name, _ in PAIRS}
    assert max(headers) == max(PAIRS)


@header_check
async def headers_pickle(scope, receive, send):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(scope["headers"], protocol)) == PAIRS


@header_check
async def headers_repr(scope, receive, send):
    assert repr(PAIRS) in repr(scope["headers"])


@header_check
async def headers_abstract_types(scope, receive, send):
    headers = scope["headers"]
    assert isinstance(headers, collections.abc.Iterable)
    assert isinstance(headers, collections.abc.Sized)
    assert isinstance(headers, collections.abc.Sequence)
    try:
        hash(headers)
    except TypeError:
        pass
    else:
        raise AssertionError("a list cannot be hashed")


@header_check
async def headers_append(scope, receive, send):
    headers = scope["headers"]
    headers.append((b"a", b"b"))
    assert headers == [*PAIRS, (b"a", b"b")]
    assert len(headers) == 6
    assert headers[-1] == (b"a", b"b")
    assert scope["headers"] is headers


@header_check
async def headers_extend(scope, receive, send):
    headers = scope["headers"]
    headers.extend([(b"a", b"b")])
    headers += [(b"c", b"d")]
    assert list(headers) == [*PAIRS, (b"a", b"b"), (b"c", b"d")]
    assert scope["headers"] is headers
    headers += iter([(b"e", b"f")])
    assert list(scope["headers"])[5:] == [(b"a", b"b"), (b"c", b"d"), (b"e", b"f")]
    try:
        headers += 5
    except TypeError:
        pass
    else:
        raise AssertionError("a number was added")


@header_check
async def headers_insert_remove_pop(scope, receive, send):
    headers = scope["headers"]
    headers.insert(0, (b"a", b"b"))
    assert headers[0] == (b"a", b"b")
    assert headers.pop() == PAIRS[-1]
    assert headers.pop(0) == (b"a", b"b")
    headers.remove((b"x-one", b"1"))
    assert headers == [PAIRS[0], PAIRS[2], PAIRS[3]]
    headers.reverse()
    assert headers == [PAIRS[3], PAIRS[2], PAIRS[0]]
    headers.sort()
    assert headers == sorted([PAIRS[3], PAIRS[2], PAIRS[0]])
    headers.clear()
    assert headers == []
    assert not headers


@header_check
async def headers_assign(scope, receive, send):
    headers = scope["headers"]
    headers[1] = (b"x-one", b"changed")
    assert headers[1] == (b"x-one", b"changed")
    headers[0:2] = [(b"only", b"one")]
    assert headers == [(b"only", b"one"), *PAIRS[2:]]
    del headers[0]
    assert headers == PAIRS[2:]
    del headers[:]
    assert list(headers) == []


@header_check
async def headers_change_while_iterating(scope, receive, send):
    """As with a list: no crash, no lost end."""
    headers = scope["headers"]
    seen = []
    for pair in headers:
        seen.append(pair)
        if len(seen) == 2:
            headers.append((b"late", b"late"))
    assert (b"late", b"late") in list(headers)
    assert len(seen) in (5, 6)


@header_check
async def headers_outlive_the_request_1(scope, receive, send):
    """Read for the first time when the request is gone."""
    kept["headers"] = scope["headers"]
    kept["scope"] = scope
    kept["iterator"] = iter(scope["headers"])
    kept["read"] = list(scope["headers"])


@check(fields=("Other: yes",))
async def headers_outlive_the_request_2(scope, receive, send):
    for name in ("headers", "iterator", "read"):
        assert list(kept[name]) == PAIRS, name
    assert list(kept["scope"]["headers"]) == PAIRS


@check()
async def headers_of_few_fields(scope, receive, send):
    assert scope["headers"] == [(b"host", b"test")]


@check(version="1.0", fields=("no-host",))
async def headers_empty(scope, receive, send):
    headers = scope["headers"]
    assert headers == []
    assert len(headers) == 0
    assert not headers
    assert list(headers) == []
    assert list(reversed(headers)) == []
    assert headers + [] == []
    assert headers[:] == []


# --- receive ---------------------------------------------------------------------------------------------


@check()
async def receive_without_body(scope, receive, send):
    assert await receive() == {"type": "http.request", "body": b"", "more_body": False}


@check(method="POST", body=b"hello")
async def receive_body(scope, receive, send):
    message = await receive()
    assert type(message) is dict
    assert message == {"type": "http.request", "body": b"hello", "more_body": False}
    assert type(message["body"]) is bytes
    assert type(message["more_body"]) is bool


@check(method="POST", body=bytes(300_000))
async def receive_large_body(scope, receive, send):
    size, parts = 0, 0
    while True:
        message = await receive()
        assert set(message) == {"type", "body", "more_body"}
        size += len(message["body"])
        parts += 1
        assert len(message["body"]) <= 300_000
        if not message["more_body"]:
            break
    assert size == 300_000


@check(method="POST", body=b"hello")
async def receive_in_a_task(scope, receive, send):
    message = await asyncio.create_task(receive())
    assert message["body"] == b"hello"


@check(method="POST", body=b"hello")
async def receive_ensure_future(scope, receive, send):
    assert (await asyncio.ensure_future(receive()))["body"] == b"hello"


@check(method="POST", body=b"hello")
async def receive_wait_for(scope, receive, send):
    assert (await asyncio.wait_for(receive(), 5))["body"] == b"hello"


@check()
async def receive_is_no_future_for_others(scope, receive, send):
    await receive()
    waiting = receive()
    assert waiting.send(None) is waiting  # what a task is given: it waits itself
    assert not asyncio.isfuture(waiting)
    assert waiting._asyncio_future_blocking
    assert waiting.get_loop() is asyncio.get_running_loop()
    try:
        waiting.send(None)
    except RuntimeError as error:
        assert "being awaited already" in str(error)
    else:
        raise AssertionError("awaited twice at once")
    waiting.close()


@check()
async def receive_is_cancelled_with_a_message(scope, receive, send):
    await receive()
    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    task.cancel("enough")
    try:
        await task
    except asyncio.CancelledError as error:
        assert error.args == ("enough",)
    else:
        raise AssertionError("not cancelled")


@check(method="POST", body=b"hello")
async def receive_under_a_task_in_python(scope, receive, send):
    """asyncio's own task in Python asks for the same as the one in C."""

    async def twice():
        assert (await receive())["body"] == b"hello"
        return await receive()

    task = asyncio.tasks._PyTask(twice(), loop=asyncio.get_running_loop())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
    raise AssertionError("not cancelled")


@check(method="POST", body=b"hello")
async def receive_gather_and_shield(scope, receive, send):
    (message,) = await asyncio.gather(asyncio.shield(receive()))
    assert message["body"] == b"hello"


@check(method="POST", body=b"hello")
async def receive_in_a_task_group(scope, receive, send):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(receive())
    assert task.result()["body"] == b"hello"


@check(method="POST", body=b"hello")
async def receive_in_anyio(scope, receive, send):
    seen = []

    async def read():
        seen.append(await receive())

    async with anyio.create_task_group() as group:
        group.start_soon(read)
    assert seen[0]["body"] == b"hello"
    with anyio.move_on_after(0.02) as cancel_scope:
        await receive()
    assert cancel_scope.cancelled_caught


@check(method="POST", body=b"hello")
async def receive_blocks_behind_the_body(scope, receive, send):
    await receive()
    task = asyncio.create_task(receive())
    done, pending = await asyncio.wait([task], timeout=0.02)
    assert not done
    assert pending == {task}
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError("not cancelled")


@check(method="POST", body=b"hello")
async def receive_times_out(scope, receive, send):
    await receive()
    try:
        await asyncio.wait_for(receive(), 0.02)
    except TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")
    try:
        async with asyncio.timeout(0.02):
            await receive()
    except TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")


@check(method="POST", body=b"hello")
async def receive_that_is_not_awaited_takes_nothing(scope, receive, send):
    receive().close()
    again = receive()
    again.close()
    del again
    assert (await receive())["body"] == b"hello"


@check(method="POST", body=b"hello")
async def receive_is_awaitable(scope, receive, send):
    assert callable(receive)
    awaitable = receive()
    assert inspect.isawaitable(awaitable)
    assert isinstance(awaitable, collections.abc.Awaitable)
    for name in ("send", "throw", "close", "__await__"):
        assert hasattr(awaitable, name), name
    assert (await awaitable)["body"] == b"hello"
    try:
        await awaitable
    except RuntimeError:
        pass
    else:
        raise AssertionError("awaited twice")


@check(method="POST", body=b"hello")
async def receive_by_hand(scope, receive, send):
    """What other event loops' adapters do: drive it as a coroutine."""
    awaitable = receive()
    try:
        awaitable.send(None)
    except StopIteration as stop:
        assert stop.value["body"] == b"hello"
    else:
        raise AssertionError("there was a body")


@check(method="POST", body=b"hello")
async def receive_throw(scope, receive, send):
    awaitable = receive()
    try:
        awaitable.throw(ZeroDivisionError("thrown"))
    except ZeroDivisionError as error:
        assert str(error) == "thrown"
    else:
        raise AssertionError("nothing was raised")
    assert (await receive())["body"] == b"hello"


@check(method="POST", body=b"hello")
async def receive_takes_no_arguments(scope, receive, send):
    for arguments in [(1,), (None, None)]:
        try:
            receive(*arguments)
        except TypeError:
            pass
        else:
            raise AssertionError(arguments)


@check(method="POST", body=b"hello")
async def receive_wrapped(scope, receive, send):
    """Middleware wraps it in all sorts of ways."""

    async def outer():
        return await receive()

    @functools.wraps(receive) if hasattr(receive, "__name__") else (lambda function: function)
    async def wrapper():
        return await outer()

    assert (await functools.partial(wrapper)())["body"] == b"hello"


@check(method="POST", body=b"hello")
async def receive_two_at_a_time(scope, receive, send):
    first, second = asyncio.create_task(receive()), asyncio.create_task(receive())
    await asyncio.wait([first, second], timeout=0.02)
    assert sum(task.done() for task in (first, second)) == 1
    for task in (first, second):
        if task.done():
            assert task.result()["body"] == b"hello"
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


@check(method="POST", body=b"hello")
async def receive_by_three_tasks(scope, receive, send):
    """Those that wait may leave in any order."""
    await receive()
    first, second, third = (asyncio.create_task(receive()) for _ in range(3))
    await asyncio.wait([first, second, third], timeout=0.02)
    for task in (second, third, first):
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()


@check()
async def send_then_receive_gives_disconnect(scope, receive, send):
    """Behind the complete answer there is nothing more to come."""
    await receive()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})
    for _ in range(2):
        assert await asyncio.wait_for(receive(), 5) == {"type": "http.disconnect"}


@check(method="POST", body=b"unread")
async def send_then_receive_gives_disconnect_before_the_body(scope, receive, send):
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})
    while True:
        message = await asyncio.wait_for(receive(), 5)
        if message["type"] == "http.disconnect":
            break


# --- send ------------------------------------------------------------------------------------------------


@check()
async def send_of_a_message_whose_keys_cannot_be_compared(scope, receive, send):
    class Key:
        willing = True

        def __hash__(self):
            return hash("status")

        def __eq__(self, other):
            if not self.willing:
                raise LookupError("compared")
            return False

    message = {Key(): 1, "type": "http.response.start", "status": 200}
    Key.willing = False
    assert isinstance(await raises(send, message), LookupError)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"ok"})


async def raises(awaitable_function, *arguments):
    """The exception that a call or its awaiting raises."""
    try:
        await awaitable_function(*arguments)
    except Exception as error:
        return error
    raise AssertionError(f"nothing was raised for {arguments}")


@check()
async def send_returns_none(scope, receive, send):
    assert await send({"type": "http.response.start", "status": 200}) is None
    assert await send({"type": "http.response.body", "body": b"ok"}) is None


@check()
async def send_in_tasks(scope, receive, send):
    await asyncio.create_task(send({"type": "http.response.start", "status": 200}))
    await asyncio.gather(
        *(send({"type": "http.response.body", "body": b"x", "more_body": True}) for _ in range(0))
    )
    await asyncio.wait_for(send({"type": "http.response.body", "body": b"o", "more_body": True}), 5)
    async with asyncio.TaskGroup() as group:
        group.create_task(send({"type": "http.response.body", "body": b"k", "more_body": True}))
    await asyncio.shield(send({"type": "http.response.body"}))


@check()
async def send_is_awaitable(scope, receive, send):
    awaitable = send({"type": "http.response.start", "status": 200})
    assert inspect.isawaitable(awaitable)
    for name in ("send", "throw", "close", "__await__"):
        assert hasattr(awaitable, name), name
    await awaitable
    try:
        await awaitable
    except RuntimeError:
        pass
    else:
        raise AssertionError("awaited twice")
    await send({"type": "http.response.body", "body": b"ok"})


@check()
async def send_kinds_of_headers(scope, receive, send):
    """Any iterable of pairs."""
    pairs = ((name, value) for name, value in [(b"x-a", b"1"), (b"X-B", b"2")])
    await send({"type": "http.response.start", "status": http.HTTPStatus.OK, "headers": pairs})
    await send({"type": "http.response.body", "body": b"ok"})


@check()
async def send_headers_as_lists(scope, receive, send):
    headers = [[b"x-a", b"1"], (b"x-b", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": tuple(headers)})
    await send({"type": "http.response.body", "body": b"ok"})


@check()
async def send_request_headers_back(scope, receive, send):
    """A proxy or a test hands the lazy sequence to send()."""
    await send({"type": "http.response.start", "status": 200, "headers": scope["headers"]})
    await send({"type": "http.response.body", "body": b"ok"})


@check()
async def send_memoryview_and_bytearray(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    changing = bytearray(b"o")
    await send({"type": "http.response.body", "body": memoryview(changing), "more_body": True})
    changing[:] = b"!"
    await send({"type": "http.response.body", "body": bytearray(b"k")})


@check()
async def send_large_bytearray_is_copied(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-size", b"200000")]})
    changing = bytearray(b"o" * 200_000)
    await send({"type": "http.response.body", "body": changing, "more_body": True})
    changing[:] = b"!" * 200_000
    await send({"type": "http.response.body"})


@check()
async def send_other_mappings(scope, receive, send):
    await send(types.MappingProxyType({"type": "http.response.start", "status": 200}))
    await send(collections.UserDict({"type": "http.response.body", "body": b"ok"}))


@check()
async def send_unknown_keys_are_ignored(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "extra": object()})
    await send({"type": "http.response.body", "body": b"ok", "another": 1})


def anew(text):
    """Equal, and another object than the literal."""
    return "".join(list(text))


@check()
async def send_keys_that_are_equal(scope, receive, send):
    """The keys of a message need not be the objects that literals are."""
    asked = []

    def headers():
        asked.append(True)
        yield b"x-a", b"1"

    await send({"type": "http.response.start", "status": 200, anew("headers"): headers()})
    assert asked
    await send({"type": "http.response.body", anew("body"): b"o", anew("more_body"): True})
    await send({anew("type"): "http.response.body", "body": b"k"})


@check()
async def send_keys_that_change_the_message(scope, receive, send):
    """What was read of it before is still there."""

    class Sly(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            message.clear()
            return str(self) == other

    message = {"type": "http.response.start", "status": int("2" + "00"), Sly("headers"): []}
    await send(message)
    assert not message
    message = {"type": "http.response.body", "body": bytes([111, 107]), Sly("more_body"): False}
    await send(message)


@check()
async def send_empty_parts(scope, receive, send):
    """An empty chunk must not end a chunked body."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "more_body": True})
    await send({"type": "http.response.body", "body": b"o", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await send({"type": "http.response.body", "body": b"k", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@check()
async def send_not_awaited_sends_nothing(scope, receive, send):
    send({"type": "http.response.start", "status": 500}).close()
    send({"type": "nonsense"}).close()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"ok"})


@check()
async def send_takes_a_dict(scope, receive, send):
    for bad in (None, 5, "http.response.start", [("type", "http.response.start")]):
        error = await raises(send, bad)
        assert isinstance(error, TypeError), error
        assert type(bad).__name__ in str(error), error
    for arguments in [(), ({}, {})]:
        try:
            send(*arguments)
        except TypeError:
            pass
        else:
            raise AssertionError(arguments)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"ok"})


# --- tasks and contexts ----------------------------------------------------------------------------------


@check(times=3)
async def task_is_real(scope, receive, send):
    task = asyncio.current_task()
    assert isinstance(task, asyncio.Task)
    assert not task.done()
    assert not task.cancelled()
    assert task.cancelling() == 0
    assert task in asyncio.all_tasks()
    assert task.get_name()
    assert task.get_loop() is asyncio.get_running_loop()
    await asyncio.sleep(0)
    assert asyncio.current_task() is task
    await asyncio.sleep(0.001)
    assert asyncio.current_task() is task
    assert task in asyncio.all_tasks()
    assert sniffio.current_async_library() == "asyncio"


@check(times=5)
async def task_is_the_requests_own(scope, receive, send):
    """No two requests share what hangs on a task."""
    task = asyncio.current_task()
    seen = kept.setdefault("tasks", weakref.WeakSet())
    assert task not in seen
    seen.add(task)


@check(times=3)
async def task_name_and_callbacks_stay_with_the_request(scope, receive, send):
    task = asyncio.current_task()
    assert task.get_name() != "mine"
    task.set_name("mine")
    called = kept.setdefault("called", [])
    task.add_done_callback(called.append)
    assert task not in called


@check(times=3)
async def context_is_fresh(scope, receive, send):
    assert variable.get() == "unset"
    token = variable.set("set")
    await asyncio.sleep(0)
    assert variable.get() == "set"
    variable.reset(token)  # Raises in another context than that of set().
    assert variable.get() == "unset"
    variable.set("left behind")


@check(times=6)
async def context_that_is_kept_is_of_no_other_request(scope, receive, send):
    """Also when it looks as it did before."""
    token = variable.set("here")
    assert all(variable not in old for old in kept.setdefault("contexts", []))
    variable.reset(token)
    known = gc.get_referents(asyncio.current_task())
    kept["contexts"] += [each for each in known if isinstance(each, contextvars.Context)]


@check(times=3)
async def context_without_suspending_is_fresh(scope, receive, send):
    assert variable.get() == "unset"
    variable.set("left behind")


@check()
async def context_reaches_children(scope, receive, send):
    variable.set("parent")
    loop = asyncio.get_running_loop()

    async def child():
        assert variable.get() == "parent"
        variable.set("child")

    await asyncio.create_task(child())
    assert variable.get() == "parent"
    called = loop.create_future()
    loop.call_soon(lambda: called.set_result(variable.get()))
    assert await called == "parent"
    assert await anyio.to_thread.run_sync(variable.get) == "parent"
    assert await asyncio.to_thread(variable.get) == "parent"
    assert variable.get() == "parent"


@check()
async def context_is_that_of_the_request_in_callbacks(scope, receive, send):
    variable.set("here")
    context = contextvars.copy_context()
    assert context[variable] == "here"
    await receive()
    assert variable.get() == "here"


@check(times=2)
async def timeout_at_once(scope, receive, send):
    """asyncio.timeout cancels the current task: before it was ever suspended."""
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
    except TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")
    assert asyncio.current_task().cancelling() == 0


@check(times=2)
async def timeout_later(scope, receive, send):
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(10)
    except TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")
    async with asyncio.timeout(10):
        await asyncio.sleep(0)


@check(times=2)
async def timeout_in_a_receive(scope, receive, send):
    await receive()
    try:
        async with asyncio.timeout(0.01):
            await receive()
    except TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")
    await asyncio.sleep(0)


@check(times=2)
async def task_group(scope, receive, send):
    results = []

    async def child(n):
        await asyncio.sleep(0.001 * n)
        results.append(n)

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(child(n))
    assert results == [0, 1, 2]


@check(times=2)
async def task_group_failing(scope, receive, send):
    async def fail():
        raise ZeroDivisionError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(10)
    except* ZeroDivisionError:
        pass
    else:
        raise AssertionError("nothing was raised")
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


@check(times=2)
async def anyio_scopes(scope, receive, send):
    with anyio.move_on_after(0.01) as outer:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.02)
        await anyio.sleep(10)
        raise AssertionError("not cancelled")
    assert outer.cancelled_caught
    try:
        with anyio.fail_after(0.01):
            await anyio.sleep(10)
    except TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 10)
        group.cancel_scope.cancel()
    await anyio.sleep(0)
    assert asyncio.current_task().cancelling() == 0


@check(times=2)
async def cancel_oneself(scope, receive, send):
    task = asyncio.current_task()
    task.cancel("on purpose")
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError as error:
        assert error.args == ("on purpose",)
    else:
        raise AssertionError("not cancelled")
    assert task.uncancel() == 0
    await asyncio.sleep(0)


@check(times=2)
async def cancel_while_waiting(scope, receive, send):
    """A cancel that comes between the first step and the task's own next one reaches what is waited on."""
    task = asyncio.current_task()
    asyncio.get_running_loop().call_soon(task.cancel)
    future = asyncio.get_running_loop().create_future()
    try:
        await future
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError("not cancelled")
    assert future.cancelled()
    assert task.uncancel() == 0


@check(times=2)
async def cancel_in_receive(scope, receive, send):
    await receive()
    task = asyncio.current_task()
    asyncio.get_running_loop().call_later(0.005, task.cancel)
    try:
        await receive()
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError("not cancelled")
    assert task.uncancel() == 0


@check(times=2)
async def cancel_and_finish_without_waiting(scope, receive, send):
    """A cancel that nothing ever delivers does not hit the next request."""
    assert asyncio.current_task().cancelling() == 0
    asyncio.current_task().cancel()


@check(times=2)
async def other_things_are_cancelled(scope, receive, send):
    sleeping = asyncio.create_task(asyncio.sleep(10))
    await asyncio.sleep(0)
    sleeping.cancel()
    try:
        await sleeping
    except asyncio.CancelledError:
        pass
    assert asyncio.current_task().cancelling() == 0


@check()
async def async_generators(scope, receive, send):
    closed = []

    async def numbers():
        try:
            for n in range(10):
                await asyncio.sleep(0)
                yield n
        finally:
            closed.append(True)

    async for n in (source := numbers()):
        if n == 3:
            break
    await source.aclose()
    assert closed


@check()
async def threads(scope, receive, send):
    assert await asyncio.to_thread(sum, [1, 2]) == 3
    loop = asyncio.get_running_loop()

    def from_thread():
        async def inner():
            return asyncio.current_task() is not None

        return asyncio.run_coroutine_threadsafe(inner(), loop).result(5)

    assert await loop.run_in_executor(None, from_thread)


@check()
async def yielding_bare(scope, receive, send):
    """A bare yield, as asyncio.sleep(0) makes it, many times."""
    for _ in range(100):
        await asyncio.sleep(0)


@check()
async def file_system(scope, receive, send):
    """aiofiles' and anyio's way with files."""
    async with await anyio.open_file(tempfile.mkstemp()[1], "w") as file:
        await file.write("x")


@check()
async def subprocesses(scope, receive, send):
    process = await asyncio.create_subprocess_exec(
        "/bin/echo", "hello", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output == b"hello\n"


@check()
async def sockets(scope, receive, send):
    """The application may use the loop for anything."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    writer.close()
    server.close()
