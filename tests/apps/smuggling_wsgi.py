"""What smuggling_asgi.py answers, over WSGI."""

import itertools
import json

numbers = itertools.count(1)


def app(environ, start_response):
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    early = "early" in path
    body = b"" if early else environ["wsgi.input"].read()
    query = environ["QUERY_STRING"]
    seen = {
        "number": next(numbers),
        "method": environ["REQUEST_METHOD"],
        "target": f"{path}?{query}" if query else path,
        "headers": [
            [key.removeprefix("HTTP_").replace("_", "-").lower(), value]
            for key, value in environ.items()
            if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        ],
        "body": body.decode("latin-1"),
    }
    answer = json.dumps(seen).encode()
    start_response(
        "403 Forbidden" if early else "200 OK",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(answer))),
            ("X-Seen", f"{seen['number']} {seen['method']} {json.dumps(seen['target'])[1:201]}"),
        ],
    )
    return [answer]
