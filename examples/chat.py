"""A chat: one room, a page, and a WebSocket beside it at the same origin. Plain ASGI, no framework.

    asgiserver examples.chat:app

Open http://127.0.0.1:8000 twice. The page finds its WebSocket by its own address, hence it works
over https and behind a proxy's prefix as well. What is said goes to everybody in this process: with several
workers each has a room of its own.

A member who does not take what is said is not waited for: beyond BACKLOG messages it is sent away.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NAME_MAX = 24  # characters
TEXT_MAX = 1000
HISTORY = 50  # messages that a new member is shown
BACKLOG = 100  # messages that wait for a member

POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013  # close codes


class Member:
    """One open page, and what is still to be sent to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: asyncio.Queue[Message] = asyncio.Queue(BACKLOG)

    def tell(self, event: Message) -> None:
        if self.waiting.full():
            while not self.waiting.empty():
                self.waiting.get_nowait()
            event = {"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": "too slow"}
        self.waiting.put_nowait(event)

    async def pass_on(self, send: Send) -> None:
        """Sends what waits, until it is cancelled or has sent a close."""
        try:
            while True:
                event = await self.waiting.get()
                await send(event)
                if event["type"] == "websocket.close":
                    return
        except OSError:
            return  # The client has left, which receive() tells as well.


class Room:
    """Who is there, and what was said last."""

    def __init__(self) -> None:
        self.members: set[Member] = set()
        self.said: deque[dict[str, Any]] = deque(maxlen=HISTORY)

    def enter(self, member: Member) -> None:
        member.tell(as_text({"what": "history", "said": list(self.said)}))
        self.members.add(member)
        self.announce(f"{member.name} is here")

    def leave(self, member: Member) -> None:
        self.members.discard(member)
        self.announce(f"{member.name} has left")

    def say(self, member: Member, text: str) -> None:
        line = {"what": "said", "name": member.name, "text": text, "at": int(time.time())}
        self.said.append(line)
        self.tell_all(line)

    def announce(self, text: str) -> None:
        self.tell_all({"what": "note", "text": text, "members": len(self.members)})

    def tell_all(self, line: dict[str, Any]) -> None:
        event = as_text(line)
        for member in self.members:
            member.tell(event)


room = Room()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The page over HTTP, the room over WebSocket."""
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if path == "/chat" and same_origin(scope):
            await converse(scope, receive, send)
        else:
            await send({"type": "websocket.close"})  # before an accept: 403
    elif scope["type"] == "http":
        known = path == "/" and scope["method"] in ("GET", "HEAD")
        await respond(send, *((200, "text/html", PAGE) if known else (404, "text/plain", "?\n")))
    else:
        raise NotImplementedError(scope["type"])


async def converse(scope: Scope, receive: Receive, send: Send) -> None:
    """One member's time in the room."""
    asked_for = parse_qs(scope["query_string"].decode("latin-1")).get("name", [""])[0]
    member = Member(" ".join(asked_for.split())[:NAME_MAX] or "somebody")
    await send({"type": "websocket.accept"})
    room.enter(member)
    passing_on = asyncio.create_task(member.pass_on(send))
    try:
        while (message := await receive())["type"] == "websocket.receive":
            text = (message.get("text") or "").strip()
            if len(text) > TEXT_MAX:
                member.tell({"type": "websocket.close", "code": POLICY_VIOLATION})
            elif text:
                room.say(member, text)
    finally:
        passing_on.cancel()
        room.leave(member)


def same_origin(scope: Scope) -> bool:
    """Whether a browser's request comes from the page itself: WebSocket has no other such check."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers[b"host"].lower()


def as_text(line: dict[str, Any]) -> Message:
    return {"type": "websocket.send", "text": json.dumps(line)}


async def respond(send: Send, status: int, content_type: str, text: str) -> None:
    body = text.encode()
    headers = [
        (b"content-type", f"{content_type}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Chat</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5d6b7c; --line: #dde3ea; --card: #fff;
  --back: #f4f6f9; --mark: #0b7a75; --on-mark: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ef; --soft: #95a3b3; --line: #2c3642; --card: #19212b; --back: #10161d;
    --mark: #43c6b8; --on-mark: #10161d } }
* { box-sizing: border-box }
body { margin: 0; height: 100vh; height: 100dvh; background: var(--back); color: var(--ink);
  line-height: 1.45; font-family: system-ui, "Segoe UI", "Helvetica Neue", "Noto Sans", sans-serif }
main { display: flex; flex-direction: column; gap: 1rem; max-width: 44rem; height: 100%;
  margin: 0 auto; padding: 1.5rem 1.25rem }
header { display: flex; align-items: baseline; justify-content: space-between }
h1 { margin: 0; font-size: 1.6rem; letter-spacing: -0.02em }
#state { color: var(--soft); font-size: .9rem }
#state::before { content: ""; display: inline-block; width: .6em; height: .6em; margin-right: .45em;
  border-radius: 50%; background: #c8553d }
#state.open::before { background: var(--mark) }
#lines { flex: 1; margin: 0; padding: 1rem 1.2rem; overflow-y: auto; list-style: none;
  border: 1px solid var(--line); border-radius: .6rem; background: var(--card) }
#lines li { max-width: 85%; width: fit-content; margin: 0 0 .6rem; padding: .45rem .8rem;
  border-radius: .8rem; background: var(--back); overflow-wrap: anywhere }
#lines li.mine { margin-left: auto; background: var(--mark); color: var(--on-mark) }
#lines li.note { margin: 0 auto .6rem; padding: 0; background: none; color: var(--soft);
  font-size: .85rem }
#lines b, #lines time { margin-right: .6em; font-size: .8rem; opacity: .75 }
#lines p { margin: 0; white-space: pre-wrap }
form { display: flex; gap: .5rem }
input, button { padding: .6rem .8rem; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card); color: inherit; font: inherit }
#name { width: 8rem }
#text { flex: 1; min-width: 0 }
button { border-color: var(--mark); background: var(--mark); color: var(--on-mark);
  cursor: pointer }
button:disabled { opacity: .5; cursor: default }
</style>
</head>
<body>
<main>
<header><h1>Chat</h1><span id="state" role="status">connecting</span></header>
<ul id="lines" aria-live="polite"></ul>
<form id="form" autocomplete="off">
<input id="name" aria-label="Your name" maxlength="24">
<input id="text" aria-label="Message" placeholder="Say something" maxlength="1000" autofocus>
<button id="send" disabled>Send</button>
</form>
</main>
<script>
"use strict";
const $ = id => document.getElementById(id);
const given = new URLSearchParams(location.search).get("name");
$("name").value = given || "Guest " + Math.floor(100 + Math.random() * 900);
let socket, joined, pause = 500;

function connect() {
  joined = $("name").value;
  const address = new URL("chat", location.origin + location.pathname);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.searchParams.set("name", joined);
  socket = new WebSocket(address);
  socket.onopen = () => { pause = 500; show(true, "connected"); };
  socket.onmessage = event => take(JSON.parse(event.data));
  socket.onclose = event => {
    show(false, event.code === 1012 ? "the server starts anew" : "connecting again");
    setTimeout(connect, pause);  // also for another name
    pause = Math.min(2 * pause, 10000);
  };
}

function show(open, text) {
  $("state").className = open ? "open" : "";
  $("state").textContent = text;
  $("send").disabled = !open;
}

function take(line) {
  if (line.what === "history") {
    $("lines").replaceChildren();
    line.said.forEach(add);
  } else {
    add(line);
  }
  if (line.members)
    $("state").textContent = line.members === 1 ? "only you" : line.members + " people";
}

function add(line) {
  const item = document.createElement("li");
  if (line.what === "note") {
    item.className = "note";
    item.textContent = line.text;
  } else {
    if (line.name === joined) item.className = "mine";
    const said = new Date(1000 * line.at);
    for (const [tag, text] of [["b", line.name], ["time", said.toLocaleTimeString()], ["p", line.text]])
      item.appendChild(document.createElement(tag)).textContent = text;
  }
  $("lines").appendChild(item);
  $("lines").scrollTop = $("lines").scrollHeight;
}

$("form").onsubmit = event => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text && socket.readyState === WebSocket.OPEN) {
    socket.send(text);
    $("text").value = "";
  }
};
$("name").onchange = () => { pause = 0; socket.close(); };
connect();
</script>
</body>
</html>
"""
