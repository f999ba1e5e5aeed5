"""An application that does what its query string says, be it ever so wrong; "/ok" answers."""

import asyncio
import gc

from hostile import PURPOSE, Maker, in_thread, program

kept = []  # scope, receive, send of earlier connections
background = set()
NOT_MORE = 20


def step(awaitable):
    """Once, and then no more."""
    try:
        awaitable.send(None)
    except StopIteration:
        pass


class Actor(Maker):
    def __init__(self, scope, receive, send):
        body = {"type": "http.response.body", "body": b"deed", "more_body": True}
        if scope["type"] == "websocket":
            body = {"type": "websocket.send", "text": "deed"}
        super().__init__(
            {
                "send": lambda: step(send(body)),
                "start": lambda: step(send({"type": "http.response.start", "status": 200})),
                "accept": lambda: step(send({"type": "websocket.accept"})),
                "close": lambda: step(send({"type": "websocket.close"})),
                "receive": lambda: step(receive()),
                "cancel": lambda: asyncio.current_task().cancel(),
                "scope": scope.clear,
            }
        )
        self.scope, self.receive, self.send = scope, receive, send

    def spawn(self, awaitable):
        task = asyncio.ensure_future(awaitable)
        background.add(task)
        task.add_done_callback(self.forget)

    @staticmethod
    def forget(task):
        background.discard(task)
        if not task.cancelled():
            task.exception()

    async def act(self, name, spec=None):
        value = self.make(spec)
        awaitable = None
        if name == "stale" and kept:
            await asyncio.wait_for(kept[0][2](value), 0.02)
        elif name == "stale-receive" and kept:
            await asyncio.wait_for(kept[0][1](), 0.02)
        elif name == "send":
            await asyncio.wait_for(self.send(value), 1)
        elif name == "plain-send":
            await self.send(value)
        elif name == "spawn":
            self.spawn(self.send(value))
        elif name == "drop":
            del awaitable
            self.send(value)
        elif name == "twice":
            awaitable = self.send(value)
            await awaitable
            await awaitable
        elif name == "throw":
            self.send(value).throw(ZeroDivisionError("thrown"))
        elif name == "step":
            step(self.send(value))
        elif name == "close-awaitable":
            self.send(value).close()
        elif name == "thread":
            in_thread(lambda: step(self.send(value)))
        elif name == "thread-receive":
            in_thread(lambda: step(self.receive()))
        elif name == "receive":
            await asyncio.wait_for(self.receive(), 0.02)
        elif name == "spawn-receive":
            self.spawn(self.receive())
        elif name == "headers":
            self.look(self.scope["headers"], value)
        elif name == "keep":
            kept.insert(0, (self.scope, self.receive, self.send))
            del kept[NOT_MORE:]
        elif name == "sleep":
            await asyncio.sleep(0)
        elif name == "cancel":
            asyncio.current_task().cancel()
        elif name == "gc":
            gc.collect()

    def look(self, headers, value):
        """Every operation of a sequence, with something that is none of its items."""
        operations = (
            lambda: headers == value,
            lambda: value == headers,
            lambda: value in headers,
            lambda: headers.index(value),
            lambda: headers.count(value),
            lambda: headers[value],
            lambda: headers + value,
            lambda: headers * value,
            lambda: headers[value:],
            lambda: headers.append(value),
            lambda: headers.extend(value),
            lambda: headers.insert(0, value),
            lambda: headers.remove(value),
            lambda: headers.sort(),
            lambda: headers.__delitem__(value),
            lambda: repr(headers),
            lambda: headers.clear(),
        )
        for operation in operations:
            try:
                operation()
            except Exception:
                pass


async def answer(send):
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/ok":
        await answer(send)
        return None
    actor = Actor(scope, receive, send)
    for act in program(scope["query_string"]):
        if act[0] == "raise":
            raise ZeroDivisionError("on purpose")
        if act[0] == "return":
            return actor.make(act[1])
        try:
            await actor.act(*act)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, SystemError):
                raise
            if not isinstance(error, PURPOSE):
                error.__traceback__ = None
    return None
