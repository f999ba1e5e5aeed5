"""bench/hello.py's WebSocket echo under socketify's own interface, which its authors call the fastest."""

import sys

from socketify import App

app = App()
app.ws("/*", {"message": lambda ws, message, opcode: ws.send(message, opcode)})
app.listen(int(sys.argv[sys.argv.index("--port") + 1]))
app.run()
