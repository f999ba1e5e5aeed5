"""An HTTP server for ASGI and WSGI applications, with a core in C.

``run(app, **options)`` serves until it is stopped; ``Server(app, **options)`` gives control over
that: ``async with`` and ``await server.serve()`` serve inside of a running asyncio loop, ``with`` in
a thread.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .config import Config
    from .errors import StartError
    from .running import run
    from .server import Server

__all__ = ["Config", "Server", "StartError", "__version__", "run"]

# Loaded when they are used: the plugin for pytest is imported in every run of pytest.
_HOMES = {"Config": "config", "StartError": "errors", "Server": "server", "run": "running"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
