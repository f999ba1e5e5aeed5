"""The WSGI half of probe_asgi.py: the same paths, but for those that wait for another request."""

import hashlib
from urllib.parse import parse_qs

REASONS = {200: "OK", 204: "No Content", 304: "Not Modified", 404: "Not Found"}


def status_line(code):
    return f"{code} {REASONS.get(code, 'Whatever')}"


def hello(environ, start_response, query):
    return 200, [], b"hello " + environ["QUERY_STRING"].encode()


def digest(environ, start_response, query):
    sha, size = hashlib.sha256(), 0
    while part := environ["wsgi.input"].read(65536):
        sha.update(part)
        size += len(part)
    return 200, [], f"{size} {sha.hexdigest()}".encode()


def unread(environ, start_response, query):
    return int(query.get("status", 200)), [], b"unread"


def stream(environ, start_response, query):
    n, size = int(query["n"]), int(query["size"])
    fields = [("Content-Length", str(n * size))] if "length" in query else []
    start_response("200 OK", fields)
    return (b"%c" % (97 + at % 26) * size for at in range(n))


def status(environ, start_response, query):
    body = b"a body"
    fields = [("Content-Length", str(len(body)))] if "length" in query else []
    start_response(status_line(int(query["code"])), fields)
    return iter([body])


def fields(environ, start_response, query):
    return 200, list(query.items()), b"fields"


def mismatch(environ, start_response, query):
    start_response("200 OK", [("Content-Length", query["said"])])
    return [b"x" * int(query["sent"])]


def fail(environ, start_response, query):
    raise RuntimeError("failed on purpose")


ROUTES = {
    "/hello": hello,
    "/digest": digest,
    "/unread": unread,
    "/stream": stream,
    "/status": status,
    "/fields": fields,
    "/mismatch": mismatch,
    "/fail": fail,
}


def app(environ, start_response):
    query = {k: v[-1] for k, v in parse_qs(environ["QUERY_STRING"]).items()}
    handler = ROUTES.get(environ["PATH_INFO"])
    result = (404, [], b"not found") if handler is None else handler(environ, start_response, query)
    if not isinstance(result, tuple):
        return result
    code, headers, body = result
    length = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response(status_line(code), [*length, *headers])
    return [body]
