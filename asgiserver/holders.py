"""Who holds an address: the process behind a listening socket, from Linux' /proc."""

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"
_INODE = 9  # column of net/tcp
_UNIX_INODE = 6  # column of net/unix; the path follows
_SHOWN = 60  # characters of a command line


def port_holder(port: int) -> str:
    """`` by process 123 (nginx)`` for a TCP port that is listened on; empty where it cannot be
    known.
    """
    return _describe(_tcp_inodes(port))


def port_is_listening(port: int) -> bool:
    """Some socket listens on this port, on whatever address."""
    return bool(_tcp_inodes(port))


def path_holder(path: str) -> str:
    """The same for a Unix socket's path."""
    return _describe(_unix_inodes(path))


def is_bound(path: str) -> bool:
    """Some living socket has this path, listening or not yet."""
    return bool(_unix_inodes(path))


def _lines(name: str) -> list[list[str]]:
    try:
        text = (_PROC / "net" / name).read_text(errors="replace")
    except OSError:
        return []
    return [line.split() for line in text.splitlines()[1:]]


def _tcp_inodes(port: int) -> set[str]:
    suffix = f":{port:04X}"
    rows = [*_lines("tcp"), *_lines("tcp6")]
    return {
        row[_INODE]
        for row in rows
        if len(row) > _INODE and row[1].endswith(suffix) and row[3] == _LISTEN
    }


def _unix_inodes(path: str) -> set[str]:
    # A socket is listed by the path it was bound with, which may be relative to its own folder.
    names = {path, os.path.abspath(path), os.path.relpath(path)}
    return {
        row[_UNIX_INODE]
        for row in _lines("unix")
        if " ".join(row[_UNIX_INODE + 1 :]) in names  # an unbound one has no path
    }


def _describe(inodes: set[str]) -> str:
    if not inodes:
        return ""
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in _processes():
        if _has_one(process, links):
            return f" by process {process.name} ({_command(process)})"
    return ""


def _processes() -> Iterator[Path]:
    for name in sorted((name for name in os.listdir(_PROC) if name.isdigit()), key=int):
        yield _PROC / name


def _has_one(process: Path, links: set[str]) -> bool:
    try:
        descriptors = os.listdir(process / "fd")
    except OSError:
        return False  # Another user's, or just gone.
    for descriptor in descriptors:
        try:
            if os.readlink(process / "fd" / descriptor) in links:
                return True
        except OSError:
            continue
    return False


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return "?"
    text = " ".join([os.path.basename(words[0]), *words[1:]])
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
