"""Answers with what the scope says of client, scheme, server and prefix, as JSON; peers_wsgi.py says the same."""

import json


async def app(scope, receive, send):
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    client, root = scope["client"], scope["root_path"]
    assert scope["path"].startswith(root)
    assert scope["raw_path"].startswith(root.encode())
    assert client is None or (type(client) is tuple and type(client[1]) is int)
    body = json.dumps(
        {
            "client": client and client[0],
            "port": (client and client[1]) or None,
            "scheme": scope["scheme"],
            "server": scope["server"],
            "root": root,
            "path": scope["path"].removeprefix(root),
            "fields": [[k.decode(), v.decode("latin-1")] for k, v in scope["headers"]],
        }
    ).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
