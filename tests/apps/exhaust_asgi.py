"""What tests/exhaust asks for: /, /big (64 MiB in pieces), /take (reads the body), /hold (never reads, never ends);
a WebSocket is echoed, but at /hold accepted and never read."""

import asyncio

PIECE = b"x" * 65536
PIECES = 1024


async def answer(send, body):
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def big(send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body"})


async def take(receive, send):
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message["more_body"]:
            await answer(send, b"%d" % size)
            return


async def hold():
    await asyncio.get_running_loop().create_future()


async def talk(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/hold":
        await hold()
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    try:
        if scope["type"] == "websocket":
            await talk(scope, receive, send)
        elif scope["path"] == "/big":
            await big(send)
        elif scope["path"] == "/take":
            await take(receive, send)
        elif scope["path"] == "/hold":
            await hold()
        else:
            await answer(send, b"hello")
    except OSError:
        pass  # the client has left
