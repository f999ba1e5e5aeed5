"""The WSGI half of exhaust_asgi.py: /, /big, /take."""

PIECE = b"x" * 65536
PIECES = 1024


def app(environ, start_response):
    if environ["PATH_INFO"] == "/big":
        start_response("200 OK", [])
        return (PIECE for _ in range(PIECES))
    body = b"hello"
    if environ["PATH_INFO"] == "/take":
        size = 0
        while part := environ["wsgi.input"].read(65536):
            size += len(part)
        body = b"%d" % size
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
