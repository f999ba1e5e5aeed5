"""A WSGI application that imports nothing by itself which would import asyncio."""

import sys
import time


def app(environ, start_response):
    if environ["PATH_INFO"] == "/forever":
        print("waiting", flush=True)
        time.sleep(600)
    body = b"asyncio" if "asyncio" in sys.modules else b"none"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
