"""Does with a WebSocket what its target tells, and remembers what came of it.

The query of /?key&steps (percent-encoded) is a Python literal: a list of steps. A dict is a message to
send, whose outcome is None, or the names of the exception's classes and its text. The others are words:
"receive" notes the message, "all" all of them until the disconnect, "echo" sends them back until then,
"raise" raises, "wait NAME" waits for GET /go?NAME. GET /outcomes?key waits for the outcomes of all steps.
"""

import ast
import asyncio
from urllib.parse import unquote_to_bytes

outcomes: dict[str, asyncio.Future] = {}
gates: dict[str, asyncio.Event] = {}
ACCEPT = {"type": "websocket.accept"}


def outcome(key):
    return outcomes.setdefault(key, asyncio.get_running_loop().create_future())


def told(error):
    return [[kind.__name__ for kind in type(error).__mro__], str(error)]


async def echo(receive, send):
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({**message, "type": "websocket.send"})
    return message


async def everything(receive):
    seen = []
    while not seen or seen[-1]["type"] != "websocket.disconnect":
        seen.append(await receive())
    return seen


async def act(step, receive, send):
    if isinstance(step, dict):
        try:
            await send(step)
        except Exception as error:
            return told(error)
        return None
    word, _, name = step.partition(" ")
    if word == "wait":
        await gates.setdefault(name, asyncio.Event()).wait()
        return None
    if word == "raise":
        raise RuntimeError("on purpose")
    return await {"receive": receive, "echo": lambda: echo(receive, send)}.get(
        word, lambda: everything(receive)
    )()


async def script(scope, receive, send):
    key, _, steps = scope["query_string"].partition(b"&")
    seen = []
    try:
        for step in ast.literal_eval(unquote_to_bytes(steps).decode()):
            seen.append(await act(step, receive, send))
    finally:
        outcome(key.decode()).set_result(seen)


async def show_scope(scope, receive, send):
    await receive()
    await send(ACCEPT)
    shown = {**scope, "headers": list(scope["headers"])}
    await send({"type": "websocket.send", "text": repr(shown)})
    await send({"type": "websocket.close"})


async def show_headers_later(scope, receive, send):
    """Behind the first step and the first message."""
    await receive()
    await send(ACCEPT)
    await receive()
    await send({"type": "websocket.send", "text": repr(list(scope["headers"]))})
    await send({"type": "websocket.close"})


async def changing(scope, receive, send):
    """Whether the scope is as no other WebSocket has seen it; then, whether it is as it was left."""
    await receive()
    extensions = {"websocket.http.response": {}}
    asgi = {"version": "3.0", "spec_version": "2.5"}
    fresh = (scope["asgi"], scope["extensions"], scope["state"]) == (asgi, extensions, {})
    fresh = fresh and scope["subprotocols"] == [] and "mine" not in scope
    mine = str(id(scope))
    scope["mine"] = scope["asgi"]["version"] = scope["state"]["mine"] = mine
    scope["extensions"]["websocket.http.response"]["mine"] = mine
    scope["extensions"]["mine"] = scope["path"] = mine
    scope["subprotocols"].append(mine)
    await send(ACCEPT)
    message = await receive()
    message["text"] = message["mine"] = mine
    await send({"type": "websocket.send", "text": "as new" if fresh else repr(scope)})
    second = await receive()
    kept = (scope["mine"], scope["asgi"]["version"], scope["state"]["mine"], scope["path"])
    kept += (*scope["subprotocols"], scope["extensions"]["mine"], message["text"])
    kept += (scope["extensions"]["websocket.http.response"]["mine"], scope["asgi"]["spec_version"])
    as_changed = kept == (mine,) * 8 + ("2.5",)
    as_changed = as_changed and second == {"type": "websocket.receive", "text": "now"}
    await send({"type": "websocket.send", "text": "as changed" if as_changed else repr(kept)})


async def raise_later(scope, receive, send):
    """Likewise, when the headers were read before."""
    assert list(scope["headers"])
    await receive()
    await send(ACCEPT)
    await receive()
    raise RuntimeError("later")


async def echoing(scope, receive, send):
    await receive()
    await send({**ACCEPT, "subprotocol": next(iter(scope["subprotocols"]), None)})
    await echo(receive, send)


async def buffers(scope, receive, send):
    """Bytes that are no bytes; they may be changed behind send()."""
    await receive()
    await send(ACCEPT)
    for size in (1, 200_000):
        changing = bytearray(b"o" * size)
        for data in (changing, memoryview(changing)):
            await send({"type": "websocket.send", "bytes": data})
        changing[:] = b"!" * size
    await send({"type": "websocket.close"})


async def children(scope, receive, send):
    """receive() and send() in tasks of their own, as with a TaskGroup."""
    await receive()
    await send(ACCEPT)
    queue = asyncio.Queue()

    async def reader():
        while (message := await receive())["type"] != "websocket.disconnect":
            queue.put_nowait(message)
        queue.put_nowait(None)

    async def writer():
        while (message := await queue.get()) is not None:
            await send({**message, "type": "websocket.send"})

    await asyncio.gather(reader(), writer())


async def flood(scope, receive, send):
    """Messages of 10,000 bytes as fast as they are taken; notes how many were."""
    await receive()
    await send(ACCEPT)
    seen = outcome(scope["query_string"].decode())
    n = 0
    try:
        while True:
            await send({"type": "websocket.send", "bytes": b"x" * 10_000})
            n += 1
            flooded[scope["query_string"].decode()] = n
            await asyncio.sleep(0)
    except OSError:
        seen.set_result(n)


async def stopping(scope, receive, send):
    """Prints what it is told when the server stops."""
    await receive()
    await send(ACCEPT)
    print(await receive(), flush=True)
    try:
        await send({"type": "websocket.send", "text": "too late"})
    except OSError as error:
        print(type(error).__name__, flush=True)
        raise


flooded: dict[str, int] = {}
PATHS = {
    "/": script,
    "/scope": show_scope,
    "/r/scope": show_scope,
    "/headers_later": show_headers_later,
    "/raise_later": raise_later,
    "/changes": changing,
    "/echo": echoing,
    "/buffers": buffers,
    "/children": children,
    "/flood": flood,
    "/stopping": stopping,
}


async def answer(send, body, status=200):
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def http(scope, receive, send):
    query = scope["query_string"].decode()
    if scope["path"] == "/outcomes":
        await answer(send, repr(await outcome(query)).encode())
    elif scope["path"] == "/flooded":
        await answer(send, b"%d" % flooded.get(query, 0))
    elif scope["path"] == "/go":
        gates.setdefault(query, asyncio.Event()).set()
        await answer(send, b"gone")
    else:
        await answer(send, b"http " + scope["path"].encode())


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await PATHS.get(scope["path"], echoing)(scope, receive, send)
    elif scope["type"] == "http":
        await http(scope, receive, send)
    else:
        raise NotImplementedError(scope["type"])


def app2(scope):
    """ASGI 2."""

    async def instance(receive, send):
        await app(scope, receive, send)

    return instance
