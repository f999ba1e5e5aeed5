"""Starts servers that have no command line of their own: launch.py SERVER INTERFACE MODULE:NAME PORT."""

import importlib
import sys

HOST = "127.0.0.1"


def main(server: str, interface: str, target: str, port: int) -> None:
    module, _, name = target.partition(":")
    app = getattr(importlib.import_module(module), name)
    if server == "bjoern":
        import bjoern

        bjoern.run(app, HOST, port)
    elif server == "fastwsgi":
        import fastwsgi

        fastwsgi.run(app, HOST, port, loglevel=0)
    elif server == "fastpysgi":
        import fastpysgi

        fastpysgi.run(app, HOST, port, loglevel=0)
    elif server == "freastal":
        import freastal

        serve = freastal.serve_asgi if interface == "asgi" else freastal.serve
        serve(app, HOST, port)
    else:
        sys.exit(f"no such server: {server}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
