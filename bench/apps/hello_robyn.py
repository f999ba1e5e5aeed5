"""Hello world under Robyn's own interface."""

import sys

from robyn import Response, Robyn

app = Robyn(__file__)


@app.get("/")
def hello() -> Response:
    return Response(200, {"content-type": "text/plain"}, "Hello, World!")


if __name__ == "__main__":
    port = int(sys.argv.pop())
    app.start(host="127.0.0.1", port=port)
