"""Which interface an application speaks, told from what it can be called with."""

import functools
import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from .errors import StartError

Interface = Literal["asgi3", "asgi2", "wsgi"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGI2Application = Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]
ASGI3Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TITLES: dict[Interface, str] = {"asgi3": "ASGI 3", "asgi2": "ASGI 2", "wsgi": "WSGI"}

_BY_COUNT: dict[int, Interface] = {3: "asgi3", 2: "wsgi", 1: "asgi2"}


def detect(app: Any) -> Interface | None:
    """The interface of ``app``; None when nothing tells.

    A coroutine function (or an object with an async ``__call__``) is ASGI 3. For the rest the
    number of arguments tells: three are ASGI 3 (scope, receive, send), two WSGI (environ,
    start_response), one is ASGI 2 (scope).
    """
    call = _called(app)
    if inspect.iscoroutinefunction(call):
        return "asgi3"
    if inspect.isclass(app) and hasattr(app, "__await__"):
        return "asgi3"  # An instance is made for each request, and awaited.
    signature = _signature(call)
    return _by_arguments(signature) if signature is not None else None


def _by_arguments(signature: inspect.Signature) -> Interface | None:
    names = tuple(signature.parameters)
    if "start_response" in names:
        return "wsgi"
    if names[:3] == ("scope", "receive", "send"):
        return "asgi3"
    if not _is_open(signature):
        for count, interface in _BY_COUNT.items():
            if _accepts(signature, count):
                return interface
    return None


def is_factory(app: Any) -> bool:
    """``app`` is a plain function or class that can be called with nothing: it makes the
    application.
    """
    call = _called(app)
    if inspect.iscoroutinefunction(call) or not (inspect.isroutine(call) or inspect.isclass(call)):
        return False
    signature = _signature(call)
    return signature is not None and not _is_open(signature) and _accepts(signature, 0)


def resolve(app: Any, wanted: str, name: str) -> tuple[Interface, str]:
    """The interface to serve ``app`` by, and a warning or "".

    ``wanted`` is the option's value. Raises StartError where "auto" or "asgi" cannot find out.
    """
    found = detect(app)
    if wanted in ("auto", "asgi"):
        if found is None or (wanted == "asgi" and found == "wsgi"):
            raise StartError(
                f"Cannot tell whether {name} is ASGI or WSGI. Use --interface asgi3, asgi2 or wsgi."
                if found is None
                else f"{name} looks like a WSGI application, not ASGI. Leave out --interface."
            )
        return found, ""
    interface: Interface = (
        "asgi3" if wanted == "asgi3" else "asgi2" if wanted == "asgi2" else "wsgi"
    )
    if found is None or found == interface:
        return interface, ""
    return interface, (
        f"{name} looks like {TITLES[found]}; it is served as {TITLES[interface]}, by --interface."
    )


def adapt_asgi2(app: ASGI2Application) -> ASGI3Application:
    """An ASGI 3 application that calls ``app`` twice, as ASGI 2 wants it."""

    async def asgi2(scope: Scope, receive: Receive, send: Send) -> None:
        scope["asgi"] = {**scope["asgi"], "version": "2.0"}
        await app(scope)(receive, send)

    return asgi2


def _called(app: Any) -> Any:
    """What runs when ``app`` is called: the function, the bound ``__call__``, or the class."""
    while isinstance(app, functools.partial):
        app = app.func
    if inspect.isclass(app) or inspect.isroutine(app):
        return app
    call = getattr(app, "__call__", app)  # noqa: B004 (an instance may have its own)
    while isinstance(call, functools.partial):
        call = call.func
    return call


def _signature(call: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(call)
    except (TypeError, ValueError):
        return None  # In C, without a signature.


def _is_open(signature: inspect.Signature) -> bool:
    """It takes any number of arguments."""
    return any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())


def _accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
