"""Which interface an application speaks."""

import asyncio
import functools
from typing import Any

import pytest

from asgiserver import Config, application, interface
from asgiserver.errors import StartError


async def asgi3(scope: Any, receive: Any, send: Any) -> None: ...


def returns_awaitable(scope: Any, receive: Any, send: Any) -> Any: ...


def wsgi(environ: Any, start_response: Any) -> Any: ...


def wsgi_with_more(environ: Any, start_response: Any, exc_info: Any = None) -> Any: ...


def asgi2(scope: Any) -> Any: ...


def anything(*args: Any, **more: Any) -> Any: ...


@functools.wraps(wsgi)
def wrapped(*args: Any, **more: Any) -> Any: ...


async def asgi3_anything(*args: Any) -> None: ...


class AsgiObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class OwnCall:
    """As sentry_sdk's middleware: the instance has its own ``__call__``."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__ = self.run

    async def run(self, scope: Any, receive: Any, send: Any) -> None: ...


class AwaitedClass:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Any: ...


class Asgi2Class:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class WsgiClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


class Methods:
    def wsgi(self, environ: Any, start_response: Any) -> Any: ...

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None: ...


class PartialCall:
    def __init__(self) -> None:
        self.__call__ = functools.partial(asgi3)


CASES = [
    (asgi3, "asgi3"),
    (asgi3_anything, "asgi3"),
    (returns_awaitable, "asgi3"),
    (AsgiObject(), "asgi3"),
    (OwnCall(), "asgi3"),
    (PartialCall(), "asgi3"),
    (AwaitedClass, "asgi3"),
    (Methods().asgi, "asgi3"),
    (functools.partial(asgi3), "asgi3"),
    (functools.partial(functools.partial(asgi3), send=None), "asgi3"),
    (asgi2, "asgi2"),
    (Asgi2Class, "asgi2"),
    (wsgi, "wsgi"),
    (wsgi_with_more, "wsgi"),
    (wrapped, "wsgi"),
    (WsgiObject(), "wsgi"),
    (WsgiClass, "wsgi"),
    (Methods().wsgi, "wsgi"),
    (lambda a, b: None, "wsgi"),
    (lambda a, b, c: None, "asgi3"),
    (lambda a: None, "asgi2"),
    (anything, None),
    (dict, None),
]


@pytest.mark.parametrize(("app", "expected"), CASES)
def test_detect(app: Any, expected: str | None) -> None:
    assert interface.detect(app) == expected


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (lambda: None, True),
        (lambda settings=None: None, True),
        (AsgiObject, True),
        (WsgiObject, True),
        (functools.partial(wsgi, None, None), False),
        *((app, False) for app, expected in CASES if expected is not None),
        (anything, False),
    ],
)
def test_is_factory(app: Any, expected: bool) -> None:
    assert interface.is_factory(app) is expected


@pytest.mark.parametrize(
    ("app", "wanted", "found"),
    [
        (asgi3, "auto", "asgi3"),
        (asgi2, "asgi", "asgi2"),
        (wsgi, "auto", "wsgi"),
        (anything, "wsgi", "wsgi"),
        (anything, "asgi2", "asgi2"),
    ],
)
def test_resolve(app: Any, wanted: str, found: str) -> None:
    assert interface.resolve(app, wanted, "m:app") == (found, "")


def test_an_explicit_choice_is_kept_and_doubted() -> None:
    found, warning = interface.resolve(wsgi, "asgi3", "m:app")
    assert found == "asgi3"
    assert warning == "m:app looks like WSGI; it is served as ASGI 3, by --interface."


@pytest.mark.parametrize(
    ("app", "wanted", "text"),
    [
        (anything, "auto", "Cannot tell whether m:app is ASGI or WSGI"),
        (wsgi, "asgi", "m:app looks like a WSGI application"),
    ],
)
def test_unresolved(app: Any, wanted: str, text: str) -> None:
    with pytest.raises(StartError, match=text):
        interface.resolve(app, wanted, "m:app")


def test_a_doubt_is_told(caplog: pytest.LogCaptureFixture) -> None:
    loaded = application.load(Config(app=wsgi, interface="asgi3"))
    assert loaded.interface == "asgi3"
    assert "looks like WSGI; it is served as ASGI 3, by --interface." in caplog.text


def test_asgi2_is_called_twice_and_sees_its_version() -> None:
    calls: list[Any] = []

    def app(scope: Any) -> Any:
        calls.append(scope["asgi"])

        async def instance(receive: Any, send: Any) -> None:
            calls.append((receive, send))

        return instance

    shared = {"version": "3.0", "spec_version": "2.5"}
    asyncio.run(interface.adapt_asgi2(app)({"asgi": shared}, "receive", "send"))  # type: ignore[arg-type]
    assert calls == [{"version": "2.0", "spec_version": "2.5"}, ("receive", "send")]
    assert shared["version"] == "3.0"
