"""The WSGI half of peers_asgi.py."""

import json


def app(environ, start_response):
    environ["wsgi.input"].read()
    secure = environ["wsgi.url_scheme"] == "https"
    assert environ.get("HTTPS") == ("on" if secure else None)
    assert environ["SERVER_NAME"]
    port = environ.get("REMOTE_PORT")
    fields = [
        [key.removeprefix("HTTP_").replace("_", "-").lower(), value]
        for key, value in environ.items()
        if key.startswith("HTTP_")
    ]
    body = json.dumps(
        {
            "client": environ["REMOTE_ADDR"] or None,
            "port": int(port) if port is not None else None,
            "scheme": environ["wsgi.url_scheme"],
            "server": [environ["SERVER_NAME"].strip("[]"), int(environ["SERVER_PORT"])],
            "root": environ["SCRIPT_NAME"],
            "path": environ["PATH_INFO"],
            "fields": fields,
        }
    ).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
