"""What both applications of tests/soak answer with: it follows from the request alone."""

import os
import tempfile

FILE_SIZE = 700_000


def pattern(number, size):
    unit = b"%d," % number
    return (unit * (size // len(unit) + 1))[:size]


def numbers(query):
    """Those of a query: ``1,20,3``."""
    return [int(word) for word in query.split(",")]


def make_file():
    descriptor, path = tempfile.mkstemp()
    with os.fdopen(descriptor, "wb") as file:
        file.write(pattern(7, FILE_SIZE))
    return path
