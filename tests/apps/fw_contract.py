"""What every framework application of tests/e2e/test_frameworks.py does:

GET /hello                 "hello"
GET /item/<name>?q=…       JSON {"name", "q"}
POST /json                 JSON, sent back
POST /upload               multipart: field "title", file "file" -> JSON as ``uploaded`` makes it
GET /stream                LINES lines, streamed
GET /redirect              to /hello
GET /cookies               sets the cookie flavour=oat; JSON of the request's cookies
GET /echo                  the request's X-Test field as the text
GET /fail                  raises Failure
anything else              404
"""

import hashlib

LINES = 1000


class Failure(Exception):
    """Raised on purpose."""


def lines():
    for n in range(LINES):
        yield f"line {n}\n".encode()


async def alines():
    for line in lines():
        yield line


def uploaded(title, filename, content):
    return {
        "title": title,
        "filename": filename,
        "size": len(content),
        "sha": hashlib.sha256(content).hexdigest(),
    }
