"""WebSocket in plain ASGI: a path for each thing that a client may see (see tests/e2e/test_websocket_clients.py).

A test that must know what the application saw gives its connection an ``id`` in the query and asks
``GET /note?id=…``, which answers when there is something.
"""

import asyncio
import json
from collections import defaultdict
from urllib.parse import parse_qs

notes = defaultdict(asyncio.Queue)  # by id: what the application saw
released = defaultdict(asyncio.Event)  # by id


async def app(scope, receive, send):
    query = {
        name: values[0] for name, values in parse_qs(scope["query_string"].decode(), True).items()
    }
    if scope["type"] == "websocket":
        assert (await receive()) == {"type": "websocket.connect"}
        await SOCKETS[scope["path"]](scope, query, receive, send)
    elif scope["type"] == "http":
        answer = await PAGES[scope["path"]](query)
        head = {"type": "http.response.start", "status": 200, "headers": []}
        await send(head)
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
    else:
        raise NotImplementedError(scope["type"])


def content(message):
    return message["bytes"] if message.get("bytes") is not None else message["text"]


def tell(query, what):
    if "id" in query:
        notes[query["id"]].put_nowait(what)


def as_message(data):
    return {"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data}


async def echo(scope, query, receive, send):
    """Tells how it ended, by a note and in the log."""
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send(as_message(content(message)))
    assert message["type"] == "websocket.disconnect"
    tell(query, [message["code"], message.get("reason", "")])
    print(f"left with {message['code']}", flush=True)


async def show(scope, query, receive, send):
    await send({"type": "websocket.accept", "headers": [(b"x-answer", b"from the application")]})
    kept = ("type", "http_version", "scheme", "path", "root_path", "subprotocols")
    seen = {name: scope[name] for name in kept}
    seen["query_string"] = scope["query_string"].decode()
    seen["headers"] = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    await send(as_message(json.dumps(seen)))
    await receive()


async def choose(scope, query, receive, send):
    """The subprotocol of the query, if any."""
    await send({"type": "websocket.accept", "subprotocol": query.get("choose")})
    await send(as_message(json.dumps(scope["subprotocols"])))
    await receive()


async def close(scope, query, receive, send):
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": int(query["code"]), "reason": query["reason"]})
    tell(query, (await receive())["type"])


async def deny(scope, query, receive, send):
    await send({"type": "websocket.close"})


async def respond(scope, query, receive, send):
    """Denies with a response of its own (extension websocket.http.response)."""
    assert "websocket.http.response" in scope["extensions"]
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"14")]
    await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"I am a ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"teapot\n"})


async def fail(scope, query, receive, send):
    await send({"type": "websocket.accept"})
    await receive()
    raise RuntimeError("on purpose")


async def fail_early(scope, query, receive, send):
    raise RuntimeError("on purpose")


async def stream(scope, query, receive, send):
    """Sends ``count`` messages of ``size`` bytes; notes how many had gone when a send waited for a
    quarter of a second, and then that all went."""
    await send({"type": "websocket.accept"})
    count, size = int(query["count"]), int(query["size"])
    waited = False
    for number in range(count):
        data = number.to_bytes(4, "big") * (size // 4)
        sending = asyncio.ensure_future(send(as_message(data)))
        if not waited:
            _, pending = await asyncio.wait({sending}, timeout=0.25)
            if pending:
                waited = True
                tell(query, number)
        await sending
    tell(query, "all sent")
    await receive()


async def hold(scope, query, receive, send):
    """Takes no message until it is released, then ``count`` of them; sends their total size."""
    await send({"type": "websocket.accept"})
    await released[query["id"]].wait()
    total = 0
    for number in range(int(query["count"])):
        data = content(await receive())
        assert data[:4] == number.to_bytes(4, "big")
        total += len(data)
    await send(as_message(str(total)))
    await receive()


async def note(query):
    return await notes[query["id"]].get()


async def release(query):
    released[query["id"]].set()


async def hello(query):
    return "hello"


SOCKETS = {
    "/echo": echo,
    "/show": show,
    "/choose": choose,
    "/close": close,
    "/deny": deny,
    "/respond": respond,
    "/fail": fail,
    "/fail-early": fail_early,
    "/stream": stream,
    "/hold": hold,
}
PAGES = {"/note": note, "/release": release, "/hello": hello}
