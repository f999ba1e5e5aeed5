"""An HTTP server for ASGI and WSGI applications, with a core in C.

``run(app, **options)`` serves until it is stopped; ``Server(Config(app, **options))`` gives control
over that, and ``await server.serve()`` runs inside of a running asyncio loop.
"""

from ._version import __version__
from .config import Config
from .errors import StartError
from .server import Server, run

__all__ = ["Config", "Server", "StartError", "__version__", "run"]
