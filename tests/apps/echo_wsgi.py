"""Answers with what it was given, as JSON; environ's strings are bytes as Latin-1 (PEP 3333)."""

import json


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    headers = {
        key.removeprefix("HTTP_").replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    seen = {
        "method": environ["REQUEST_METHOD"],
        "version": environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
        "path": environ["SCRIPT_NAME"] + environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "headers": headers,
        "body": body.decode("latin-1"),
    }
    answer = json.dumps(seen).encode()
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    )
    return [answer]
