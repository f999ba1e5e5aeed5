"""Children that the application forks: they inherit every socket, and must not keep one open.

A connection that the server closes would stay open as long as the child lives, and so would the port.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from . import _core

_cores: set[_core.Server] = set()


@contextmanager
def let_go(core: _core.Server) -> Iterator[None]:
    """Within, children let go of what ``core`` has open."""
    _cores.add(core)
    try:
        yield
    finally:
        _cores.discard(core)


def _in_child() -> None:
    for core in _cores:
        core.forked()
    _cores.clear()


os.register_at_fork(after_in_child=_in_child)
