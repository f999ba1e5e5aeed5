"""What a type checker sees of the public names. Checked by mypy (strict: an unneeded ignore fails)."""

import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, assert_type

import asgiserver
import asgiserver.uvicorn as uvicorn
from asgiserver import Config, Server, StartError, run
from asgiserver.pytest_plugin import ServeApp, Served


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None: ...


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return [b""]


async def embed(sock: socket.socket) -> None:
    async with Server(asgi, port=0) as server:
        assert_type(server, Server)
        assert_type(server.url, str)
        assert_type(server.urls, list[str])
        assert_type(server.force_exit, bool)
        await server.shutdown()
        await server.shutdown(grace=1.5)
        await server.wait_closed()
    with Server(wsgi, uds="/run/app.sock") as server:
        assert_type(server, Server)
    await Server("module:app").serve(signals=True)
    await Server(config=Config()).startup(sockets=[sock])
    Server(app=asgi, port=0).run([sock])
    Server(Config(asgi), port=0)  # type: ignore[call-overload]
    Server(asgi, prot=0)  # type: ignore[call-overload]
    Server(asgi, port="0")  # type: ignore[call-overload]
    StartError("x").exit_code.bit_length()


async def from_uvicorn() -> None:
    config = uvicorn.Config(asgi, "127.0.0.1", 8000, log_level=20, reload_dirs=["a"])
    assert_type(config.port, int)
    server = uvicorn.Server(config=config)
    assert_type(await server.serve(), None)
    assert_type(server.started, bool)
    uvicorn.run("module:app", host="::", workers=2)
    uvicorn.run("module:app", prot=1)  # type: ignore[call-arg]
    uvicorn.Server(Config())  # type: ignore[arg-type]


def test_plugin(serve_app: ServeApp) -> None:
    served = serve_app(wsgi, limit_request_body=10)
    assert_type(served, Served)
    assert_type(served.url, str)
    assert_type(served.log, str)
    assert_type(served.server, Server)
    served.expect_errors()


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
