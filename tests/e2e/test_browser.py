"""examples/chat.py in a real browser. Skipped where there is no Chromium: ``make browser`` installs it and runs this."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.browser import Browser, Page, find_chromium
from support.server import Server

Factory = Callable[..., Server]

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: make browser"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def chat(serve: Factory, loop: str, scheme: str) -> Server:
    tls = scheme == "https"  # The browser is told not to mind who signed the certificate.
    return serve("examples.chat:app", "--app-dir", str(ROOT), loop=loop, tls=tls)


@pytest.fixture(autouse=True)
def pages_are_closed(browser: Browser, chat: Server) -> Iterator[None]:
    yield
    browser.close_pages()


def enter(browser: Browser, chat: Server, scheme: str, name: str) -> Page:
    page = browser.open(f"{scheme}://{chat.authority}/?name={name}")
    page.wait_for("document.querySelector('#state.open') !== null")
    return page


def said(page: Page, text: str) -> None:
    page.wait_for(f"document.querySelector('#lines').innerText.includes({text!r})")


def test_two_pages(browser: Browser, chat: Server, scheme: str) -> None:
    ada, bob = (enter(browser, chat, scheme, name) for name in ("Ada", "Bob"))
    said(ada, "Bob is here")
    ada.wait_for("document.querySelector('#state').innerText === '2 people'")
    ada.type("#text", "Hello <b>Bob</b> \u00e9\u4f60\U0001f600")
    said(bob, "Hello <b>Bob</b> \u00e9\u4f60\U0001f600")
    bob.type("#text", "Hello Ada")
    said(ada, "Hello Ada")
    mine = "[...document.querySelectorAll('#lines .mine p')].map(p => p.textContent)"
    assert ada.evaluate(mine) == ["Hello <b>Bob</b> \u00e9\u4f60\U0001f600"]
    assert bob.evaluate(mine) == ["Hello Ada"]
    negotiated = ada.evaluate("socket.extensions")
    assert "permessage-deflate" in negotiated
    assert ada.evaluate("socket.url").startswith("wss:" if scheme == "https" else "ws:")
    bob.close()
    said(ada, "Bob has left")
    assert ada.errors == bob.errors == []


def test_a_later_page_sees_what_was_said(browser: Browser, chat: Server, scheme: str) -> None:
    ada = enter(browser, chat, scheme, "Ada")
    for number in range(60):
        ada.evaluate(f"socket.send('line {number}')")
    said(ada, "line 59")
    bob = enter(browser, chat, scheme, "Bob")
    said(bob, "line 59")
    count = bob.evaluate("document.querySelectorAll('#lines li:not(.note)').length")
    assert count == 50
    assert ada.errors == bob.errors == []


def test_many_messages(browser: Browser, chat: Server, scheme: str) -> None:
    """What a browser sends at once comes back whole and in order; long ones are compressed by it."""
    page = enter(browser, chat, scheme, "Ada")
    script = """new Promise((resolve, reject) => {
        const got = [];
        const other = new WebSocket(socket.url);
        other.onopen = () => { for (let n = 0; n < 40; n++) other.send(n + " " + "x".repeat(900)); };
        other.onmessage = event => {
            const line = JSON.parse(event.data);
            if (line.what === "said") got.push(parseInt(line.text));
            if (got.length === 40) other.close(4000, "enough");
        };
        other.onclose = event => resolve([got, event.code, event.reason, event.wasClean]);
    })"""
    assert page.evaluate(script) == [list(range(40)), 4000, "enough", True]
    assert page.errors == []


def test_the_server_stops(browser: Browser, chat: Server, scheme: str) -> None:
    page = enter(browser, chat, scheme, "Ada")
    page.evaluate("ended = new Promise(r => socket.addEventListener('close', r)), null")
    chat.signal(signal.SIGTERM)
    assert page.evaluate("ended.then(event => [event.code, event.wasClean])") == [1012, True]
    assert chat.wait() == 0


def test_another_site(browser: Browser, chat: Server, scheme: str) -> None:
    """The chat lets in nobody else's page."""
    page = browser.open(f"{scheme}://{chat.authority.replace('127.0.0.1', 'localhost')}/")
    script = f"""new Promise(resolve => {{
        const other = new WebSocket("{scheme.replace("http", "ws")}://{chat.authority}/chat");
        other.onopen = () => resolve("open");
        other.onclose = event => resolve(event.code);
    }})"""
    page.wait_for("document.readyState === 'complete'")
    assert page.evaluate(script) == 1006
    assert any("403" in error for error in page.errors)
