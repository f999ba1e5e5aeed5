from typing import Any

from litestar import Litestar, WebSocket, websocket
from litestar.exceptions import PermissionDeniedException, WebSocketDisconnect
from ws_contract import BYE, SUBPROTOCOL, Failure


@websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    while (message := await socket.receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await socket.send_text(message["text"])
        else:
            await socket.send_bytes(message["bytes"])


@websocket("/room/{name:str}")
async def room(socket: WebSocket, name: str, q: str) -> None:
    await socket.accept()
    answer: dict[str, Any] = {"name": name, "q": q, "field": socket.headers["x-test"]}
    try:
        while True:
            await socket.send_json({**answer, "got": await socket.receive_json()})
    except WebSocketDisconnect:
        pass


@websocket("/chat")
async def chat(socket: WebSocket) -> None:
    assert SUBPROTOCOL in socket.scope["subprotocols"]
    await socket.accept(subprotocols=SUBPROTOCOL)
    try:
        while True:
            await socket.send_text(f"{SUBPROTOCOL}: {await socket.receive_text()}")
    except WebSocketDisconnect:
        pass


@websocket("/bye")
async def bye(socket: WebSocket) -> None:
    await socket.accept()
    await socket.receive_text()
    code, reason = BYE
    await socket.close(code, reason)


def nobody(connection: Any, handler: Any) -> None:
    raise PermissionDeniedException


@websocket("/deny", guards=[nobody])
async def deny(socket: WebSocket) -> None:
    raise AssertionError


@websocket("/fail")
async def fail(socket: WebSocket) -> None:
    await socket.accept()
    await socket.receive_text()
    raise Failure("litestar")


app = Litestar([echo, room, chat, bye, deny, fail])
