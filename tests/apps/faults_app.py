"""For test_faults.py: the same answers by ASGI and WSGI, to be told from wrong ones."""

import asyncio
import ctypes
import hashlib
import tempfile

LARGE = bytes(range(256)) * 2000
PIECES = [b"%d," % i * 50 for i in range(200)]
MANY = b"".join(PIECES)
kept = []


def make_file():
    file = tempfile.TemporaryFile()  # noqa: SIM115 the server closes it
    file.write(LARGE)
    file.seek(0)
    return file


# --- ASGI ---


async def read_body(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body += message["body"]
        if not message["more_body"]:
            return body


async def asgi(scope, receive, send):
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    path = scope["path"]
    start = {"type": "http.response.start", "status": 200, "headers": [(b"x-path", path.encode())]}
    if path == "/kept":  # the next request cannot have these objects
        kept.append((receive, send))
    if path in ("/digest", "/continued", "/short"):
        body = hashlib.sha256(await read_body(receive)).hexdigest().encode()
    elif path == "/pieces":
        await send(start)
        for piece in PIECES:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
        return
    else:
        body = LARGE if path in ("/large", "/file") else b"hello"
    start["headers"].append((b"content-length", b"%d" % len(body)))
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


# --- WSGI ---


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    headers = [("X-Path", path)]
    if path in ("/digest", "/continued", "/short"):
        body = hashlib.sha256(environ["wsgi.input"].read()).hexdigest().encode()
    elif path == "/pieces":
        start_response("200 OK", headers)
        return iter(PIECES)
    elif path == "/file":
        start_response("200 OK", [*headers, ("Content-Length", str(len(LARGE)))])
        return environ["wsgi.file_wrapper"](make_file())
    else:
        body = LARGE if path == "/large" else b"hello"
    start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body]


# --- a memory that fails ---


def arm(query):
    """The allocation of Python with this number, from now on, fails."""
    import _testcapi

    _testcapi.set_nomemory(int(query), int(query) + 1)


def disarm():
    import _testcapi

    _testcapi.remove_mem_hooks()


def leave_memory_to(loop):
    """Where faults.c makes allocations fail: in the core's polls, and in nothing that the loop does
    between them."""
    poll = ctypes.PyDLL(None).faults_poll
    poll.argtypes, poll.restype = [ctypes.py_object], ctypes.py_object
    add_reader = loop.add_reader
    loop.add_reader = lambda fd, callback: add_reader(fd, poll, callback)


async def scarce_asgi(scope, receive, send):
    if scope["type"] == "lifespan":  # the core asks for its polls behind this
        leave_memory_to(asyncio.get_running_loop())
    if scope["type"] == "http" and scope["path"] == "/disarm":
        disarm()
    if scope["type"] == "http" and scope["path"] == "/arm":
        arm(scope["query_string"])
    await asgi(scope, receive, send)


async def scarce_receive(receive):
    """The next message, which is there already: each allocation on the way to it failed once before."""
    for at in range(200):
        try:
            arm(at)
            message = await receive()
        except MemoryError:
            continue
        finally:
            disarm()
        assert at > 0
        return message
    raise AssertionError("there is always one more allocation")


async def receiving_asgi(scope, receive, send):
    """Answers with what it received when there was no memory at first."""
    if scope["type"] == "websocket":
        assert await scarce_receive(receive) == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        for _ in range(int((await receive())["text"])):  # so many come with this one
            await send({**await scarce_receive(receive), "type": "websocket.send"})
        return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    first = await scarce_receive(receive)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": first["body"], "more_body": True})
    body = await read_body(receive) if first["more_body"] else b""
    await send({"type": "http.response.body", "body": body})


def scarce_wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/disarm":
        disarm()
    if environ["PATH_INFO"] == "/arm":
        arm(environ["QUERY_STRING"])
    return wsgi(environ, start_response)
