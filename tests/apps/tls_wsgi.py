"""The WSGI half of tls_asgi.py."""

import json
import os


def half():
    yield b"half"
    raise RuntimeError("failed on purpose")


def app(environ, start_response):
    if environ["PATH_INFO"] == "/cut":
        start_response("200 OK", [])
        return half()
    found = {"scheme": environ["wsgi.url_scheme"], "pid": os.getpid()}
    found["client"] = [environ["REMOTE_ADDR"], int(environ.get("REMOTE_PORT", 0))]
    found["tls"] = {k: v for k, v in environ.items() if k.startswith("SSL_") or k == "HTTPS"}
    body = json.dumps(found).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
