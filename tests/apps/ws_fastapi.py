from typing import Annotated

from fastapi import Depends, FastAPI, Header, WebSocket, WebSocketDisconnect, WebSocketException
from ws_contract import BYE, SUBPROTOCOL, Failure

app = FastAPI()


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    while (message := await socket.receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await socket.send_text(message["text"])
        else:
            await socket.send_bytes(message["bytes"])


@app.websocket("/room/{name}")
async def room(socket: WebSocket, name: str, q: str, x_test: Annotated[str, Header()]):
    await socket.accept()
    try:
        while True:
            got = await socket.receive_json()
            await socket.send_json({"name": name, "q": q, "field": x_test, "got": got})
    except WebSocketDisconnect:
        pass


@app.websocket("/chat")
async def chat(socket: WebSocket):
    assert SUBPROTOCOL in socket["subprotocols"]
    await socket.accept(subprotocol=SUBPROTOCOL)
    async for text in socket.iter_text():
        await socket.send_text(f"{SUBPROTOCOL}: {text}")


@app.websocket("/bye")
async def bye(socket: WebSocket):
    await socket.accept()
    await socket.receive_text()
    await socket.close(*BYE)


async def nobody():
    raise WebSocketException(code=1008)


@app.websocket("/deny", dependencies=[Depends(nobody)])
async def deny(socket: WebSocket):
    raise AssertionError


@app.websocket("/fail")
async def fail(socket: WebSocket):
    await socket.accept()
    await socket.receive_text()
    raise Failure("fastapi")
