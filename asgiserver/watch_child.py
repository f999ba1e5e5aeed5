"""The program that watches files, run by watch.py: watch_child.py PARENT REQUEST.

It writes a JSON array a line: an empty one when it has begun, then the files of each change; a string
says why it cannot watch. It imports nothing from this package, so that it starts quickly.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import PurePath

INCLUDES = ("*.py",)

# Hidden files and folders (.git, .venv, .tox, caches); what tools make; editors' temporary files.
EXCLUDES = (
    ".*", "__pycache__", "*.py[cod]", "node_modules", "site-packages", "*.egg-info",
    "build/lib*", "build/bdist.*", "dist", "~*", "*~", "#*#", ".sw.*", "*.swp", "*.tmp", "*___jb_*",
)  # fmt: skip

# Milliseconds: a change is told when nothing more has changed for a step, at the latest after that.
STEP = 50
LONGEST = 400

ADDED, DELETED = 1, 3  # watchfiles.Change


class Filter:
    """Which paths matter.

    Patterns match the last parts of a path: ``*.html``, ``static``, ``docs/*.md``; an absolute one
    the whole. What excludes a folder excludes what is in it. Exclusions win over inclusions, but
    for those of ``EXCLUDES``, which a file's own name or the same pattern in ``includes`` overrides.
    """

    def __init__(
        self, folders: Iterable[str], includes: Iterable[str], excludes: Iterable[str]
    ) -> None:
        self._folders = [PurePath(folder) for folder in folders]
        given = [one for one in includes if PurePath(one).parts]  # "." matches nothing
        self._includes = (*INCLUDES, *given)
        self._names = [one for one in given if not any(c in one for c in "*?[")]
        self._excludes = [one for one in excludes if PurePath(one).parts]
        self._usual = [one for one in EXCLUDES if one not in self._includes]

    def file(self, path: str) -> bool:
        """A change of this file is to be told."""
        return _matches(PurePath(path), self._includes) and not self._excluded(path)

    def folder(self, path: str) -> bool:
        """There may be such files in this folder."""
        return not self._excluded(path)

    def _excluded(self, path: str) -> bool:
        below = self._below(PurePath(path))
        if any(_matches(one, self._excludes) for one in below):
            return True
        if below and _matches(below[0], self._names):
            del below[0]
        return any(_matches(one, self._usual) for one in below)

    def _below(self, path: PurePath) -> list[PurePath]:
        """``path`` and the folders it is in, up to the one that is watched, without that."""
        parents = [path, *path.parents]
        for folder in self._folders:
            if folder in parents:
                return parents[: parents.index(folder)]
        return parents


def _matches(path: PurePath, patterns: Iterable[str]) -> bool:
    return any(path.match(pattern) for pattern in patterns)


class Tree:
    """The folders that are watched, known since a folder that is moved away is one event, of a
    path that nobody can look at any more."""

    def __init__(self, filter_: Filter, folders: Iterable[str]) -> None:
        self._filter = filter_
        self._folders: set[str] = set()
        for folder in folders:
            for _ in self._files(folder):
                pass

    def files(self, changes: Iterable[tuple[int, str]]) -> list[str]:
        """The files (or folders that are gone) that ``changes`` are about."""
        found: set[str] = set()
        for change, path in changes:
            if change == DELETED and path in self._folders:
                self._folders.discard(path)
                found.add(path)
            elif change == ADDED and os.path.isdir(path):
                found.update(self._files(path))
            elif self._filter.file(path):
                found.add(path)
        return sorted(found)

    def _files(self, folder: str) -> Iterator[str]:
        """The files in ``folder``, which is remembered with those in it."""
        if not self._filter.folder(folder):
            return
        self._folders.add(folder)
        for parent, folders, files in os.walk(folder):
            folders[:] = [one for one in folders if self._filter.folder(os.path.join(parent, one))]
            self._folders.update(os.path.join(parent, one) for one in folders)
            yield from (
                path for one in files if self._filter.file(path := os.path.join(parent, one))
            )


class Begun:
    """What watchfiles asks at every step whether to stop: when the parent is gone. The first time,
    it watches already."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._told = False

    def is_set(self) -> bool:
        if not self._told:
            self._told = True
            tell([])
        return os.getppid() != self._parent


def tell(message: list[str] | str) -> None:
    print(json.dumps(message), flush=True)


def main(parent: int, folders: list[str], includes: list[str], excludes: list[str]) -> None:
    tree = Tree(Filter(folders, includes, excludes), folders)
    begun = Begun(parent)
    try:
        watch_folders(tree, folders, begun, False)
    except PermissionError:  # Somewhere deep inside. Not from the start: it hides other errors too.
        watch_folders(tree, folders, begun, True)


def watch_folders(
    tree: Tree, folders: list[str], begun: Begun, ignore_permission_denied: bool
) -> None:
    from watchfiles import watch  # noqa: PLC0415 (Filter and Tree work without)

    for changes in watch(
        *folders,
        watch_filter=None,
        debounce=LONGEST,
        step=STEP,
        stop_event=begun,
        rust_timeout=0,
        ignore_permission_denied=ignore_permission_denied,
    ):
        if files := tree.files(changes):
            tell(files)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        main(int(sys.argv[1]), **json.loads(sys.argv[2]))
    except BrokenPipeError:
        os._exit(0)  # The parent is gone, and with it who would read of it.
    except Exception as error:
        tell(f"--reload: watchfiles cannot watch ({error}).")
        sys.exit(1)
