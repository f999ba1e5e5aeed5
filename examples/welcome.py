"""What `make run` serves when it is given nothing else: a page that shows the request it came with.

Plain ASGI, no framework. The links on the page lead to an answer in JSON, to one that is streamed
for as long as the client stays, to a form whose body is read and shown, and to an exception.
"""

import asyncio
import html
import json
import platform
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import asgiserver

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ECHO_MAX = 4096  # bytes of a posted body that the page shows

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5d6b7c; --line: #dde3ea; --card: #fff;
  --back: #f4f6f9; --mark: #0b7a75 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ef; --soft: #95a3b3; --line: #2c3642; --card: #19212b; --back: #10161d;
    --mark: #43c6b8 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.5;
  font-family: system-ui, "Segoe UI", "Helvetica Neue", "Noto Sans", sans-serif }
main { max-width: 54rem; margin: 0 auto; padding: 3.5rem 1.25rem 2rem }
h1 { margin: 0; font-size: 2.1rem; letter-spacing: -0.02em }
h2 { margin: 0 0 .6rem; color: var(--soft); font-size: .8rem; letter-spacing: .08em;
  text-transform: uppercase }
p { margin: .4rem 0 }
a { color: var(--mark) }
code, pre, td, .request { font-size: .88rem;
  font-family: ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, monospace }
.lead { color: var(--soft); font-size: 1.1rem }
.request { margin: 1.75rem 0; padding: .9rem 1.2rem; overflow-wrap: anywhere; border-radius: .6rem;
  background: var(--mark); color: #fff; font-size: 1.05rem }
@media (prefers-color-scheme: dark) { .request { color: #10161d } }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)) }
section { padding: 1.1rem 1.2rem; border: 1px solid var(--line); border-radius: .6rem;
  background: var(--card) }
.wide { grid-column: 1 / -1 }
table { width: 100%; border-collapse: collapse }
tr + tr { border-top: 1px solid var(--line) }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top }
th { width: 1%; color: var(--soft); font-size: .88rem; font-weight: 500; white-space: nowrap }
td { overflow-wrap: anywhere }
ul { margin: 0; padding: 0; list-style: none }
li { margin: .35rem 0 }
li span { color: var(--soft) }
pre { margin: .5rem 0 0; overflow-x: auto; white-space: pre-wrap }
form { display: flex; gap: .5rem; margin: 0 }
input, button { padding: .45rem .7rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--back); color: inherit; font: inherit }
input { flex: 1; min-width: 0 }
button { border-color: var(--mark); background: var(--mark); color: var(--card); cursor: pointer }
footer { margin-top: 1.75rem; color: var(--soft); font-size: .9rem }
"""

ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="7" fill="#0b7a75"/>
<path d="M7 11h12M7 16h18M7 21h8" stroke="#fff" stroke-width="3" stroke-linecap="round"/></svg>
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>asgiserver is running</title>
<link rel="icon" href="{root}/favicon.svg" type="image/svg+xml">
<style>{style}</style>
</head>
<body>
<main>
<h1>asgiserver is running</h1>
<p class="lead">This page is a small ASGI application, <code>examples/welcome.py</code>.
It shows the request that your browser has just sent.</p>
<p class="request">{method} {target} HTTP/{version}</p>
<div class="cards">
<section><h2>Connection</h2><table>{connection}</table></section>
<section><h2>Try</h2><ul>
<li><a href="{root}/a%20path?and=a&amp;query=%C3%A9">another target</a>
  <span>&ndash; on this page</span></li>
<li><a href="{root}/json">the request as JSON</a></li>
<li><a href="{root}/stream">a stream</a> <span>&ndash; until you leave</span></li>
<li><a href="{root}/error">an exception</a> <span>&ndash; see the terminal</span></li>
</ul></section>
<section class="wide"><h2>Field lines of the request</h2><table>{fields}</table></section>
<section class="wide"><h2>Body</h2>
<form method="post" action="{root}/"><input name="text" aria-label="Text"
placeholder="Something to post"><button>Post</button></form>{body}</section>
</div>
<footer><p>Serve your own: <code>make run APP=package.module:app</code>, or
<code>asgiserver package.module:app</code> in its environment.</p>
<p>asgiserver {server_version} on {python}, up for {uptime}.</p></footer>
</main>
</body>
</html>
"""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application: ASGI 3, `http` and `lifespan`."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "http":
        await route(scope, receive, send)
    else:
        raise NotImplementedError(f"no {scope['type']} here")


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Note when the server started; each request finds it in its scope's `state`."""
    await receive()
    scope["state"]["started"] = time.monotonic()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def route(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    path = scope["path"].removeprefix(scope["root_path"])
    if scope["method"] not in ("GET", "HEAD", "POST"):
        allow = "GET, HEAD, POST"
        await respond(send, 405, "text/plain", f"Only {allow} are known here.\n", allow=allow)
    elif path == "/json":
        await respond(send, 200, "application/json", json.dumps(as_json(scope), indent=2) + "\n")
    elif path == "/stream":
        await stream(send)
    elif path == "/error":
        raise RuntimeError("This is what an application's exception looks like in the log.")
    elif path in ("/favicon.svg", "/favicon.ico"):
        await respond(send, 200, "image/svg+xml", ICON, cache_control="max-age=86400")
    else:
        body, size = await read_body(receive)
        await respond(send, 200, "text/html", page(scope, body, size))


async def respond(send: Send, status: int, content_type: str, text: str, **fields: str) -> None:
    """Send a whole response; the field `cache_control` becomes cache-control."""
    body = text.encode()
    headers = [
        (b"content-type", f"{content_type}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *((name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Send) -> None:
    """A line a second. When the client has left, `send` raises OSError and this ends."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    try:
        while True:
            line = time.strftime("%H:%M:%S").encode() + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
            await asyncio.sleep(1)
    except OSError:
        return


async def read_body(receive: Receive) -> tuple[bytes, int]:
    """The first ECHO_MAX bytes of the request's body, and the size of all of it."""
    kept, size = bytearray(), 0
    while True:
        message = await receive()
        piece = message.get("body", b"")
        size += len(piece)
        kept += piece[: ECHO_MAX - len(kept)]
        if not message.get("more_body", False):  # also when the client has left
            return bytes(kept), size


def page(scope: Scope, body: bytes, size: int) -> str:
    """The HTML page for a request."""
    target = target_of(scope)
    shown = ""
    if size:
        more = f" of {size}" if size > len(body) else ""
        text = html.escape(body.decode("utf-8", "backslashreplace"))
        shown = f"<pre>{text}</pre><p class='lead'>{len(body)}{more} bytes</p>"
    connection = {
        "client": address(scope["client"]),
        "server": address(scope["server"]),
        "scheme": scope["scheme"],
        "path, decoded": scope["path"],
        "query string": scope["query_string"].decode("latin-1"),
        "extensions": " ".join(scope.get("extensions") or {}),
    }
    started = scope.get("state", {}).get("started", time.monotonic())
    return PAGE.format(
        style=STYLE,
        root=html.escape(scope["root_path"]),
        method=html.escape(scope["method"]),
        target=html.escape(target),
        version=scope["http_version"],
        connection=rows(connection.items()),
        fields=rows((n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]),
        body=shown,
        server_version=asgiserver.__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        uptime=duration(time.monotonic() - started),
    )


def rows(pairs: Iterable[tuple[str, str]]) -> str:
    """Table rows of names and values; a value that is empty shows as a dash."""
    return "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value) or '&ndash;'}</td></tr>"
        for name, value in pairs
    )


def target_of(scope: Scope) -> str:
    """The request target as it was sent."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("latin-1")


def address(pair: tuple[str, int | None] | None) -> str:
    """A `client` or `server` of the scope as text."""
    if pair is None:
        return "a Unix socket"
    host, port = pair
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a second"


def as_json(scope: Scope) -> dict[str, Any]:
    """What of the scope fits into JSON."""
    return {
        "method": scope["method"],
        "target": target_of(scope),
        "http_version": scope["http_version"],
        "scheme": scope["scheme"],
        "client": scope["client"],
        "server": scope["server"],
        "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
    }
