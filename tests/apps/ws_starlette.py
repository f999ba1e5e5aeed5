from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect
from ws_contract import BYE, SUBPROTOCOL, Failure


async def echo(socket):
    await socket.accept()
    while (message := await socket.receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await socket.send_text(message["text"])
        else:
            await socket.send_bytes(message["bytes"])


async def room(socket):
    await socket.accept()
    answer = {
        "name": socket.path_params["name"],
        "q": socket.query_params["q"],
        "field": socket.headers["x-test"],
    }
    try:
        while True:
            await socket.send_json({**answer, "got": await socket.receive_json()})
    except WebSocketDisconnect:
        pass


async def chat(socket):
    assert SUBPROTOCOL in socket["subprotocols"]
    await socket.accept(subprotocol=SUBPROTOCOL)
    async for text in socket.iter_text():
        await socket.send_text(f"{SUBPROTOCOL}: {text}")


async def bye(socket):
    await socket.accept()
    await socket.receive_text()
    await socket.close(*BYE)


async def deny(socket):
    await socket.close()


async def fail(socket):
    await socket.accept()
    await socket.receive_text()
    raise Failure("starlette")


app = Starlette(
    routes=[
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/room/{name}", room),
        WebSocketRoute("/chat", chat),
        WebSocketRoute("/bye", bye),
        WebSocketRoute("/deny", deny),
        WebSocketRoute("/fail", fail),
    ]
)
