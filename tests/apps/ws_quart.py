from quart import Quart, abort, websocket
from ws_contract import BYE, SUBPROTOCOL, Failure

app = Quart(__name__)


@app.websocket("/echo")
async def echo():
    while True:
        await websocket.send(await websocket.receive())


@app.websocket("/room/<name>")
async def room(name):
    answer = {"name": name, "q": websocket.args["q"], "field": websocket.headers["X-Test"]}
    while True:
        await websocket.send_json({**answer, "got": await websocket.receive_json()})


@app.websocket("/chat")
async def chat():
    assert SUBPROTOCOL in websocket.requested_subprotocols
    await websocket.accept(subprotocol=SUBPROTOCOL)
    while True:
        await websocket.send(f"{SUBPROTOCOL}: {await websocket.receive()}")


@app.websocket("/bye")
async def bye():
    await websocket.receive()
    await websocket.close(*BYE)


@app.websocket("/deny")
async def deny():
    abort(403)


@app.websocket("/fail")
async def fail():
    await websocket.receive()
    raise Failure("quart")
