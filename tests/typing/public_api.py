"""What a type checker sees of the public names. Checked by mypy (strict: an unneeded ignore fails)."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, assert_type

import asgiserver
from asgiserver import Config, Server, run


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None: ...


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return [b""]


async def use() -> None:
    server = Server(Config(asgi, port=0, headers=[("X-A", "b")], timeout_write=1))
    assert_type(await server.serve(), None)
    assert_type(server.should_exit, bool)
    assert_type(server.started, bool)
    assert_type(server.port, int | None)
    assert_type(asgiserver.__version__, str)
    server.should_exit = True
    server.started = True  # type: ignore[misc]


run("module:app")
run(wsgi, port=9000, access_log=False, log_config={"version": 1})
run(asgi, prot=9000)  # type: ignore[call-arg]
run(asgi, port="9000")  # type: ignore[arg-type]
run(asgi, "127.0.0.1")  # type: ignore[call-arg, misc, arg-type, unused-ignore]
Config(1)  # type: ignore[arg-type]
