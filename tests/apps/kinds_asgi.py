"""Every kind of object that an application can be; each answers with its name."""

import functools


async def answer(name, scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError(f"no {scope['type']} here")
    body = name.encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def function(scope, receive, send):
    await answer("function", scope, receive, send)


class Class:
    async def __call__(self, scope, receive, send):
        await answer("instance", scope, receive, send)

    async def method(self, scope, receive, send):
        await answer("instance.method", scope, receive, send)

    @staticmethod
    async def static(scope, receive, send):
        await answer("Class.static", scope, receive, send)


instance = Class()
partial = functools.partial(answer, "partial")


def plain(scope, receive, send):
    """Not a coroutine function, but it returns a coroutine."""
    return answer("plain", scope, receive, send)


class Awaitable:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __await__(self):
        return answer("awaitable", *self.arguments).__await__()


def awaitable(scope, receive, send):
    """Returns something that is awaitable and no coroutine."""
    return Awaitable(scope, receive, send)


def decorate(wrapped_function):
    @functools.wraps(wrapped_function)
    async def inner(scope, receive, send):
        await wrapped_function(scope, receive, send)

    return inner


@decorate
async def wrapped(scope, receive, send):
    await answer("wrapped", scope, receive, send)


class double_class:  # noqa: N801
    """ASGI 2."""

    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await answer("double_class", self.scope, receive, send)


def double_function(scope):
    """ASGI 2."""

    async def run(receive, send):
        await answer("double_function", scope, receive, send)

    return run


def factory():
    return functools.partial(answer, "factory")


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"wsgi"]


def wsgi_factory():
    def made(environ, start_response):
        start_response("200 OK", [("Content-Length", "12")])
        return [b"wsgi_factory"]

    return made
