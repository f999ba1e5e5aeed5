"""A headless Chromium, driven by the DevTools protocol over its WebSocket.

    with Browser() as browser:
        page = browser.open("http://127.0.0.1:8000/")
        page.wait_for("document.title === 'Chat'")
        assert page.evaluate("1 + 1") == 2
        assert page.errors == []

https://chromedevtools.github.io/devtools-protocol/ has the methods.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from typing import Any, Self

import websockets.sync.client

from .client import SLOWNESS
from .processes import foreign_environment

TIMEOUT = 30.0 * SLOWNESS  # seconds
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """Started by ``with``; forgets everything when that ends."""

    def __enter__(self) -> Self:
        program = find_chromium()
        assert program is not None
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        command = [program, "--headless=new", "--remote-debugging-port=0", "--disable-gpu"]
        command += [
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-background-networking",
        ]
        command += ["--disable-dev-shm-usage", "--ignore-certificate-errors"]
        command += [f"--user-data-dir={self._profile.name}", "about:blank"]
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # It has none for root.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=foreign_environment(),
            start_new_session=True,
        )
        try:
            self._connection = websockets.sync.client.connect(
                self._find_address(),
                max_size=None,
                proxy=None,
                compression=None,
                ping_interval=None,
                legacy=True,
            )
        except BaseException:
            self._end()
            raise
        self._number = 0
        self._pages: dict[str, Page] = {}
        return self

    def _find_address(self) -> str:
        """What it prints when it listens."""
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            _, found, address = line.partition("DevTools listening on ")
            if found:
                return address.strip()
        raise AssertionError(f"the browser ended:\n{said}")

    def __exit__(self, *_: object) -> None:
        try:
            self._connection.send(json.dumps({"id": 0, "method": "Browser.close"}))
            self._process.wait(10 * SLOWNESS)
        except (subprocess.TimeoutExpired, OSError):
            pass
        finally:
            self._connection.close_socket()
            self._end()

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._profile.cleanup()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Calls a method; its result. Events that come meanwhile go to their pages."""
        self._number += 1
        number = self._number
        request = {"id": number, "method": method, "params": params}
        if session is not None:
            request["sessionId"] = session
        self._connection.send(json.dumps(request))
        deadline = time.monotonic() + TIMEOUT
        while True:
            answer = json.loads(self._connection.recv(deadline - time.monotonic()))
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            if page := self._pages.get(answer.get("sessionId", "")):
                page._notice(answer)

    def open(self, url: str) -> Page:
        """A page of its own, in a window of its own."""
        target = self.call("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=url)
        return page

    def close_pages(self) -> None:
        for page in list(self._pages.values()):
            page.close()


class Page:
    """One page. ``errors``: what its console and its scripts complained of."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.errors: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def close(self) -> None:
        del self._browser._pages[self._session]
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _notice(self, event: dict[str, Any]) -> None:
        params = event["params"]
        if event["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; a promise is awaited."""
        options = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Until an expression is true, which is looked at again whenever something happens there."""
        deadline = time.monotonic() + TIMEOUT
        wait = f"""new Promise(resolve => {{
            const look = () => {{ if ({condition}) {{ clearInterval(timer); resolve(true); }} }};
            const timer = setInterval(look, 10);
            setTimeout(() => {{ clearInterval(timer); resolve(false); }}, 2000);
        }})"""
        while not self.evaluate(wait):
            assert time.monotonic() < deadline, f"{condition}: {self.text()!r}, {self.errors}"

    def text(self) -> str:
        """What a reader sees."""
        shown: str = self.evaluate("document.body.innerText")
        return shown

    def type(self, selector: str, text: str) -> None:
        """Types into a field as a user would, and presses Enter."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)
