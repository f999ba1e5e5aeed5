"""Watching files for ``--reload``, in a process of its own.

watchfiles needs threads, and a supervisor with threads must not fork. So it runs in a child
(watch_child.py), which writes what changed, a JSON array of paths a line, to a pipe. The child is in
a process group of its own, where CTRL+C does not reach it, and ends when its parent does.
"""

import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from .config import Config
from .errors import StartError

_PROGRAM = Path(__file__).with_name("watch_child.py")
_PATIENCE = 30.0  # seconds until a large tree is watched
_MISSING = "--reload needs watchfiles: pip install watchfiles"
_ENDED = "The process that watches files for --reload has ended; changes are not seen any more."


class Watcher:
    """Tells which files changed. Made by ``start``; close it in the end."""

    def __init__(self, folders: list[str], includes: list[str], excludes: list[str]) -> None:
        """Raises StartError where nothing can be watched."""
        self.folders = folders
        request = json.dumps({"folders": folders, "includes": includes, "excludes": excludes})
        self._process = subprocess.Popen(
            # -P: neither this folder nor the current one is to be imported from.
            [sys.executable, "-P", str(_PROGRAM), str(os.getpid()), request],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._rest = b""
        try:
            self._await_start()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when something changed, or when the child has died."""
        return self._pipe

    def read_changes(self) -> list[str]:
        """The paths of files that changed since the last call; it does not wait.

        Raises StartError when the child has died.
        """
        return list(dict.fromkeys(path for message in self._read_messages() for path in message))

    def close(self) -> None:
        """Ends the child. Idempotent."""
        with self._process:
            self._process.kill()

    def forget(self) -> None:
        """In another process, which inherited the pipe: closes that."""
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _await_start(self) -> None:
        """The child says an empty array as soon as it watches. What it says behind that stays in the
        pipe, which is readable then."""
        deadline = time.monotonic() + _PATIENCE
        while not self._take_messages():
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._pipe], [], [], left)[0]:
                raise StartError(
                    f"--reload: it takes more than {_PATIENCE:g} s to watch "
                    f"{', '.join(self.folders)}. Name smaller folders by --reload-dir."
                )
            byte = os.read(self._pipe, 1)
            if not byte:
                raise StartError(_ENDED)
            self._rest += byte

    def _read_messages(self) -> list[list[str]]:
        """The whole messages that are there."""
        ended = False
        try:
            while piece := os.read(self._pipe, 65536):
                self._rest += piece
            ended = True
        except BlockingIOError:
            pass
        messages = self._take_messages()
        if ended and not messages:
            raise StartError(_ENDED)
        return messages

    def _take_messages(self) -> list[list[str]]:
        """The whole messages that were read. A string among them is why nothing is watched."""
        *lines, self._rest = self._rest.split(b"\n")
        messages = [json.loads(line) for line in lines]
        for message in messages:
            if isinstance(message, str):
                raise StartError(message)
        return messages


def check(config: Config) -> None:
    """Raises StartError where ``start`` would, as far as that can be told without a process."""
    if importlib.util.find_spec("watchfiles") is None:
        raise StartError(_MISSING)
    _folders(config)


def start(config: Config) -> Watcher:
    """Watches what ``config`` names. Raises StartError."""
    check(config)
    return Watcher(_folders(config), list(config.reload_include), list(config.reload_exclude))


def _folders(config: Config) -> list[str]:
    """The folders to watch, by their real paths; none lies in another one."""
    named = [(f"--reload-dir {one}", one) for one in config.reload_dir]
    if not named:
        named = [("--reload", "."), ("--app-dir", config.app_dir or ".")]
    more = [one for one in config.reload_include if os.path.isdir(one)]
    named += [(f"--reload-include {one}", one) for one in more]
    found: set[Path] = set()
    for word, name in named:
        path = Path(name).resolve()
        if not path.is_dir():
            raise StartError(f"{word}: there is no such folder.")
        if path == Path(path.anchor):
            raise StartError(f"{word}: {path} is the whole machine. Name a folder by --reload-dir.")
        found.add(path)
    return sorted(str(path) for path in found if not found & set(path.parents))
