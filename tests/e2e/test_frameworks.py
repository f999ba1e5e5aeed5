"""Real frameworks, unchanged, with a real client (httpx) and over raw sockets. See tests/apps/fw_contract.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from apps.fw_contract import LINES
from support.client import SLOWNESS
from support.server import Server

Factory = Callable[..., Server]

FRAMEWORKS = {
    "pyramid": ("fw_pyramid:app", "wsgi"),
    "flask": ("fw_flask:app", "wsgi"),
    "django-wsgi": ("fw_django:wsgi_app", "wsgi"),
    "falcon-wsgi": ("fw_falcon:wsgi_app", "wsgi"),
    "django-asgi": ("fw_django:app", "asgi"),
    "falcon-asgi": ("fw_falcon:app", "asgi"),
    "starlette": ("fw_starlette:app", "asgi"),
    "fastapi": ("fw_fastapi:app", "asgi"),
    "litestar": ("fw_litestar:app", "asgi"),
    "quart": ("fw_quart:app", "asgi"),
    "sanic": ("fw_sanic:app", "asgi"),
}
RUNS = [
    (name, mode)
    for name, (_, interface) in FRAMEWORKS.items()
    for mode in (("asyncio", "uvloop") if interface == "asgi" else (None, "threads"))
]


@pytest.fixture(params=RUNS, ids=lambda run: "-".join(filter(None, run)))
def framework(request: pytest.FixtureRequest, shared: Factory) -> Server:
    """The application under --interface auto: the server finds out by itself what it is."""
    name, mode = request.param
    options = {"threads": 4} if mode == "threads" else {"loop": mode}
    return shared(FRAMEWORKS[name][0], **options)


@pytest.fixture
def client(framework: Server) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=framework.url,
        timeout=20 * SLOWNESS,
        trust_env=False,
        verify=framework.context or True,
    ) as made:
        yield made


def test_detected(framework: Server, request: pytest.FixtureRequest) -> None:
    """--interface auto chose rightly; the banner says which."""
    name, _ = request.node.callspec.params["framework"]
    with framework.raw() as raw:
        raw.get("/hello")
        assert raw.recv_response().text == "hello"
    whole_log = "".join(framework._lines).lower()
    assert FRAMEWORKS[name][1] in whole_log


def test_routing(client: httpx.Client) -> None:
    response = client.get("/item/caf\u00e9 au lait", params={"q": "a&b=\u00fc"})
    assert response.status_code == 200
    assert response.json() == {"name": "caf\u00e9 au lait", "q": "a&b=\u00fc"}
    assert client.get("/item/x").json() == {"name": "x", "q": None}
    assert client.get("/nowhere").status_code == 404


def test_head(client: httpx.Client) -> None:
    """Whatever the framework says to HEAD, no body comes and the connection is in step."""
    for _ in range(3):
        assert client.head("/hello").content == b""
        assert client.get("/hello").text == "hello"


def test_json(client: httpx.Client) -> None:
    data = {
        "text": "\u00e9\u4f60\U0001f600",
        "numbers": list(range(1000)),
        "nested": {"a": [None, True, 1.5]},
    }
    assert client.post("/json", json=data).json() == data


def test_chunked_json(client: httpx.Client) -> None:
    """A body without a length."""
    text = json.dumps({"numbers": list(range(5000))}).encode()
    pieces = (text[at : at + 777] for at in range(0, len(text), 777))
    response = client.post("/json", content=pieces, headers={"content-type": "application/json"})
    assert response.json() == json.loads(text)


@pytest.mark.parametrize("size", [0, 10, 100_000, 3_000_000])
def test_upload(client: httpx.Client, size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    response = client.post(
        "/upload", data={"title": "a title"}, files={"file": ("name.bin", content)}
    )
    assert response.status_code == 200, response.text
    assert response.json() == {
        "title": "a title",
        "filename": "name.bin",
        "size": size,
        "sha": hashlib.sha256(content).hexdigest(),
    }


def test_streaming(client: httpx.Client) -> None:
    with client.stream("GET", "/stream") as response:
        assert response.status_code == 200
        lines = list(response.iter_lines())
    assert lines == [f"line {n}" for n in range(LINES)]
    assert client.get("/hello").text == "hello"


def test_redirect(client: httpx.Client) -> None:
    response = client.get("/redirect")
    assert response.is_redirect
    assert client.get("/redirect", follow_redirects=True).text == "hello"


def test_cookies(client: httpx.Client) -> None:
    assert client.get("/cookies").cookies["flavour"] == "oat"
    client.cookies.set("more", "yes")
    assert client.get("/cookies").json() == {"flavour": "oat", "more": "yes"}


def test_fields(client: httpx.Client) -> None:
    assert client.get("/echo", headers={"X-Test": "some value; x=1"}).text == "some value; x=1"


def test_error_page(framework: Server, client: httpx.Client) -> None:
    """The framework's own 500, or the server's; either way the next request is served."""
    framework.expect_tracebacks()
    for _ in range(2):
        response = client.get("/fail")
        assert response.status_code == 500
        assert "Traceback" not in response.text
    assert client.get("/hello").text == "hello"


def test_many_on_one_connection(client: httpx.Client) -> None:
    for n in range(100):
        assert client.get(f"/item/{n}").json()["name"] == str(n)


def test_pipelined(framework: Server) -> None:
    with framework.raw() as raw:
        raw.send("".join(f"GET /item/{n}?q={n * n} HTTP/1.1\r\nHost: a\r\n\r\n" for n in range(50)))
        for n in range(50):
            assert json.loads(raw.recv_response().body) == {"name": str(n), "q": str(n * n)}


def test_byte_by_byte(framework: Server) -> None:
    body = b'{"a": 1}'
    request = (
        b"POST /json HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    with framework.raw() as raw:
        for byte in request:
            raw.send(bytes([byte]))
        assert json.loads(raw.recv_response().body) == {"a": 1}


def test_1_0(framework: Server) -> None:
    with framework.raw() as raw:
        raw.get("/stream", version="1.0")
        assert len(raw.recv_response().body.splitlines()) == LINES


def test_client_that_leaves_a_stream(framework: Server) -> None:
    framework.expect_tracebacks()
    for _ in range(3):
        with framework.raw() as raw:
            raw.get("/stream")
            raw.recv_head()
            raw.reset()
    with framework.raw() as raw:
        raw.get("/hello")
        assert raw.recv_response().text == "hello"


# --- error reporters ---------------------------------------------------------------------------------------


def reports(server: Server) -> list[dict[str, Any]]:
    with server.raw() as raw:
        raw.get("/reports")
        seen: list[dict[str, Any]] = json.loads(raw.recv_response().body)
        return seen


@pytest.mark.parametrize("reporter", ["sentry", "rollbar"])
def test_error_reporters(serve: Factory, backend: Any, reporter: str) -> None:
    """Every exception arrives, each with the request that it belongs to, pipelined or not."""
    server = serve(
        f"reporters:{backend.interface}_app", env={"REPORTER": reporter}, **backend.options
    )
    server.expect_tracebacks()
    with server.raw() as raw:
        for n in range(5):
            raw.get(f"/fine?{n}")
            assert raw.recv_response().text == "fine"
    for n in range(5):
        with server.raw() as raw:
            raw.get(f"/fail?number={n}")
            assert raw.recv_response().status == 500
    with server.raw() as raw, pytest.raises((AssertionError, ConnectionResetError)):
        raw.get("/fail-late?number=5")
        raw.recv_response()
    seen = reports(server)
    assert [report["message"] for report in seen] == [f"number={n}" for n in range(6)]
    for report in seen:
        assert report["method"] == "GET"
        assert report["url"].endswith(f"?{report['message']}"), report
        assert server.authority in report["url"] or "//test/" in report["url"], report
