"""What the applications ws_*.py of frameworks have in common; see tests/e2e/test_websocket_clients.py.

/echo         sends back text as text and bytes as bytes
/room/{name}  answers a JSON message with {"name", "q" (query), "field" (X-Test), "got" (the message)}
/chat         chooses the subprotocol chat.v2, and sends back text behind it
/bye          closes with 4001 and "bye" at the first message
/deny         is refused before it is accepted
/fail         raises Failure at the first message
"""

SUBPROTOCOL = "chat.v2"
BYE = 4001, "bye"


class Failure(Exception):
    """The application's own."""
