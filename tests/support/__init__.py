"""What the tests share: a server process (server.py), a strict raw client (client.py), the corpus (cases.py)."""
