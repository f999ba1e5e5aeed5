"""WSGI with nothing but the standard: one function.

Serve it with `asgiserver examples.wsgi_hello:app`.
"""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Say hello to whoever the path names: /Ada gets "Hello, Ada!"."""
    # PEP 3333: the text of PATH_INFO is the path's bytes, each as one Latin-1 character.
    name = environ["PATH_INFO"].strip("/").encode("latin-1").decode("utf-8", "replace")
    body = f"Hello, {name or 'world'}!\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [body]
