"""PEP 3333, rule by rule, against tests/apps/wsgi_spec.py."""

from __future__ import annotations

import ast
import contextlib
import gzip
import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from apps.wsgi_spec import STATUSES
from support.client import MalformedResponse, RawClient, Response
from support.server import Server

APP = "wsgi_spec:app"
BLOCK = 65536


@pytest.fixture(params=[None, 4], ids=["inline", "threads"])
def threads(request: pytest.FixtureRequest) -> int | None:
    """Every rule holds in each mode."""
    found: int | None = request.param
    return found


@pytest.fixture
def server(shared: Callable[..., Server], threads: int | None) -> Server:
    return shared(APP, interface="wsgi", threads=threads)


def target(name: str, argument: Any = None) -> str:
    return f"/{name}" + ("" if argument is None else f"?{quote(repr(argument), safe='')}")


def fetch(
    server: Server, name: str, argument: Any = None, *fields: str, method: str = "GET"
) -> Response:
    """One request on a connection of its own, which must be usable afterwards."""
    with server.raw() as client:
        client.get(target(name, argument), *fields, method=method)
        response = client.recv_response(method)
        if not response.closes:
            client.get("/twice")
            assert client.recv_response().status == 200
        return response


def send_chunked(client: RawClient, path: str, *chunks: bytes) -> None:
    client.send(f"POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
    for chunk in filter(None, chunks):  # an empty one would be the last
        client.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    client.send(b"0\r\n\r\n")


def assert_broken(client: RawClient) -> None:
    """The response is cut so that the client can tell."""
    with pytest.raises((MalformedResponse, ConnectionResetError)):
        client.recv_response()


# --- environ ---------------------------------------------------------------------------------------


def environ_of(server: Server, request: str) -> dict[str, Any]:
    with server.raw() as client:
        client.send(request)
        found: dict[str, Any] = json.loads(client.recv_response().body)
        return found


def test_environ(server: Server, threads: int | None) -> None:
    with server.raw() as client:
        client.get(
            "/environ/a%20b%C3%A9%2F%zz?q=%20&r", "User-Agent: x", "Accept: */*", "X-Other-Name: v"
        )
        seen = json.loads(client.recv_response().body)
        port = str(client.socket.getsockname()[1])
    assert seen["type"] == "dict"
    assert seen["version"] == [1, 0]
    assert seen["flags"] == [threads is not None, False, False, True]
    over_tls = server.context is not None
    assert {k: v for k, v in seen["strings"].items() if not k.startswith("SSL_")} == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/environ/a b\u00c3\u00a9/%zz",
        "QUERY_STRING": "q=%20&r",
        "REQUEST_URI": "/environ/a%20b%C3%A9%2F%zz?q=%20&r",
        "RAW_URI": "/environ/a%20b%C3%A9%2F%zz?q=%20&r",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": seen["strings"]["SERVER_SOFTWARE"],
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": port,
        "HTTP_HOST": "test",
        "HTTP_USER_AGENT": "x",
        "HTTP_ACCEPT": "*/*",
        "HTTP_X_OTHER_NAME": "v",
        "wsgi.url_scheme": "https" if over_tls else "http",
        **({"HTTPS": "on"} if over_tls else {}),
    }
    assert any(k.startswith("SSL_") for k in seen["strings"]) == over_tls
    assert seen["strings"]["SERVER_SOFTWARE"].startswith("asgiserver")
    assert set(seen["others"]) == {
        "wsgi.version",
        "wsgi.input",
        "wsgi.errors",
        "wsgi.multithread",
        "wsgi.multiprocess",
        "wsgi.run_once",
        "wsgi.file_wrapper",
        "wsgi.input_terminated",
    }


DIFFERENT: tuple[tuple[str, ...], ...] = (
    ("User-Agent: agent-1", "Accept: text/html", "Cookie: a=1", "Content-Type: a/b"),
    ("User-Agent: agent-2", "Accept: text/html", "Cookie: a=2"),
    ("User-Agent: agent-2", "Accept: text/htmk"),
    ("user-agent: agent-2", "Accept: text/html", "Accept: text/htm", "X-Other: 1"),
    ("Accept: text/html", "User-Agent: agent-2 "),
    (),
    ("Accept: " + "a" * 600, "Accept: b", "User-Agent: agent-1"),
    ("Accept: b", "Accept: " + "a" * 600),
    ("Accept: " + "a" * 599 + "b", "User-Agent: "),
)


def test_requests_that_differ_a_little(server: Server) -> None:
    """An environ has the fields of its request, byte for byte, and none of those before it."""
    orders = [*DIFFERENT, *DIFFERENT[::-1], *DIFFERENT[::2], *DIFFERENT]
    with server.raw() as first, server.raw() as second:
        for number, fields in enumerate(orders):
            client = second if number % 3 == 0 else first
            client.get(f"/environ/{number % 2}", *fields)
            strings = json.loads(client.recv_response().body)["strings"]
            wanted = {"HTTP_HOST": "test"}
            for name, value in (field.split(":", 1) for field in fields):
                key = name.upper().replace("-", "_")
                key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
                wanted[key] = ",".join(filter(None, [wanted.get(key), value.strip()]))
            seen = {key for key in strings if key.startswith("HTTP_") or key == "CONTENT_TYPE"}
            assert {key: strings[key] for key in seen} == wanted
            assert strings["PATH_INFO"] == f"/environ/{number % 2}"
            assert strings["REMOTE_PORT"] == str(client.socket.getsockname()[1])


def test_no_host_behind_one_with_it(server: Server) -> None:
    for _ in range(2):
        fetch(server, "environ", None, "Accept: text/html", "DNT: 1")
        strings = environ_of(server, "GET /environ HTTP/1.0\r\n\r\n")["strings"]
        assert not [key for key in strings if key.startswith("HTTP_")]


def test_statuses_take_turns(server: Server) -> None:
    """The last status is remembered, by the object that the application gave."""
    with server.raw() as client:
        for at in (0, 1, 2, 0, 3, 4, 0):
            for _ in range(2):
                client.get(f"/constant-status?{at}")
                head = client.recv_response()
                status = STATUSES[at]
                assert (head.status, head.reason) == (int(status[:3]), status[4:].strip().encode())


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"]
)
def test_methods(server: Server, method: str) -> None:
    for _ in range(2):
        seen = fetch(server, "environ", method=method)
        if method != "HEAD":
            assert json.loads(seen.body)["strings"]["REQUEST_METHOD"] == method


def test_http_1_0(server: Server) -> None:
    seen = environ_of(server, "GET /environ HTTP/1.0\r\n\r\n")["strings"]
    assert seen["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert "HTTP_HOST" not in seen


def test_repeated_fields(server: Server) -> None:
    seen = environ_of(
        server,
        "GET /environ HTTP/1.1\r\nHost: test\r\nX-A: 1\r\nCookie: a=1\r\nAccept: one\r\nx-a: 2\r\n"
        "Cookie: b=2\r\nX-A: 3\r\nAccept: two\r\nX-Empty:\r\n\r\n",
    )["strings"]
    assert seen["HTTP_X_A"] == "1,2,3"
    assert seen["HTTP_ACCEPT"] == "one,two"
    assert seen["HTTP_COOKIE"] == "a=1; b=2"
    assert seen["HTTP_X_EMPTY"] == ""


def test_names_with_underscores_forge_nothing(server: Server) -> None:
    seen = environ_of(
        server,
        "GET /environ HTTP/1.1\r\nHost: test\r\nX_Forwarded_For: forged\r\nContent_Type: forged\r\n"
        "X-Forwarded-For: true\r\nUser_Agent: forged\r\nX_: y\r\n\r\n",
    )["strings"]
    assert seen["HTTP_X_FORWARDED_FOR"] == "true"
    assert "forged" not in str(seen)
    assert "CONTENT_TYPE" not in seen
    assert "HTTP_USER_AGENT" not in seen


def test_proxy_is_dropped(server: Server) -> None:
    seen = environ_of(server, "GET /environ HTTP/1.1\r\nHost: test\r\nProxy: http://evil/\r\n\r\n")[
        "strings"
    ]
    assert "HTTP_PROXY" not in seen


def test_content_fields(server: Server) -> None:
    with server.raw() as client:
        client.post("/environ", b"12345", "Content-Type: text/x")
        seen = json.loads(client.recv_response().body)["strings"]
    assert seen["CONTENT_TYPE"] == "text/x"
    assert seen["CONTENT_LENGTH"] == "5"
    assert not [key for key in seen if key.startswith("HTTP_CONTENT")]


def test_content_length_zero(server: Server) -> None:
    with server.raw() as client:
        client.post("/environ", b"")
        assert json.loads(client.recv_response().body)["strings"]["CONTENT_LENGTH"] == "0"
        client.get("/environ")
        assert "CONTENT_LENGTH" not in json.loads(client.recv_response().body)["strings"]


def test_chunked_request_has_a_length(server: Server) -> None:
    with server.raw() as client:
        send_chunked(client, "/environ", b"12345", b"678")
        seen = json.loads(client.recv_response().body)["strings"]
        assert seen["CONTENT_LENGTH"] == "8"
        assert "HTTP_TRANSFER_ENCODING" not in seen
        send_chunked(client, "/environ")
        assert json.loads(client.recv_response().body)["strings"]["CONTENT_LENGTH"] == "0"


def test_absolute_form(server: Server) -> None:
    seen = environ_of(server, "GET http://other:81/environ?x HTTP/1.1\r\nHost: test\r\n\r\n")[
        "strings"
    ]
    assert seen["HTTP_HOST"] == "other:81"
    assert seen["PATH_INFO"] == "/environ"
    assert seen["QUERY_STRING"] == "x"
    assert seen["REQUEST_URI"] == "http://other:81/environ?x"


def test_latin_1_values(server: Server) -> None:
    seen = environ_of(
        server, "GET /environ HTTP/1.1\r\nHost: test\r\nX-A: \xe9\xff\r\nReferer: \xfc\r\n\r\n"
    )
    assert seen["strings"]["HTTP_X_A"] == "\xe9\xff"
    assert seen["strings"]["HTTP_REFERER"] == "\xfc"


def test_many_fields_and_long_values(server: Server) -> None:
    fields = [f"X-Field-{i}: {'v' * i}" for i in range(80)]
    with server.raw() as client:
        for agent in ("a" * 600, "a" * 600, "b", "b", "a" * 511):
            client.get("/environ", f"User-Agent: {agent}", *fields)
            seen = json.loads(client.recv_response().body)["strings"]
            assert seen["HTTP_USER_AGENT"] == agent
            assert all(seen[f"HTTP_X_FIELD_{i}"] == "v" * i for i in range(80))


def test_many_targets(server: Server) -> None:
    """Caches give what belongs to the target."""
    with server.raw() as client:
        for path in [f"/environ/{i % 150}%2F{'x' * (i % 7 * 50)}" for i in range(600)]:
            client.get(path)
            seen = json.loads(client.recv_response().body)["strings"]
            assert seen["REQUEST_URI"] == path
            assert seen["PATH_INFO"] == path.replace("%2F", "/")
            assert seen["QUERY_STRING"] == ""


def test_an_environ_belongs_to_its_request(server: Server) -> None:
    with server.raw() as client:
        for _ in range(3):
            client.get("/changed")
            assert json.loads(client.recv_response().body) == []


@pytest.mark.parametrize("root", ["/api", "/api/", "/\u00e9"])
def test_root_path(serve: Callable[..., Server], root: str) -> None:
    server = serve("probe_wsgi_root:app", "--root-path", root, interface="wsgi")
    name = root.rstrip("/").encode().decode("latin-1")
    cases = {
        quote(root.rstrip("/")) + "/x%20y": "/x y",  # the proxy passes the prefix on
        quote(root.rstrip("/")): "",
        "/x": "/x",  # … or has taken it off
        quote(root.rstrip("/")) + "x": name + "x",  # another path that begins alike
    }
    with server.raw() as client:
        for path, info in cases.items():
            client.get(path)
            assert json.loads(client.recv_response().body) == [name, info]


def test_unix_socket(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(APP, interface="wsgi", uds=tmp_path / "socket")
    with server.raw() as client:
        client.get("/environ")
        seen = json.loads(client.recv_response().body)["strings"]
    assert seen["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in seen
    port = "443" if server.context is not None else "80"
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("localhost", port)


def test_ipv6(serve: Callable[..., Server]) -> None:
    server = serve(APP, interface="wsgi", bind="::1")
    with server.raw() as client:
        client.get("/environ")
        seen = json.loads(client.recv_response().body)["strings"]
    assert (seen["REMOTE_ADDR"], seen["SERVER_NAME"]) == ("::1", "[::1]")


def test_errors_stream(server: Server) -> None:
    fetch(server, "errors")
    server.wait_log("app: written")
    server.wait_log("^app: first second$")


# --- wsgi.input ------------------------------------------------------------------------------------

TEXT = b"one\ntwo\r\n\nlong " + b"x" * 50 + b"\nlast"

CALLS: list[list[Any]] = [
    [["read"], ["read"], ["read", 5], ["readline"], ["readlines"], ["list"]],
    [["read", -1], ["read"]],
    [["read", None], ["read"]],
    [["read", 0], ["read", 2], ["read", 3], ["read", 1000], ["read", 1]],
    [["readline"], ["readline"], ["readline"], ["readline"], ["readline"], ["readline"]],
    [["readline", 2], ["readline", 2], ["readline", -1], ["readline", None], ["readline", 0]],
    [["readlines"], ["readlines"]],
    [["readlines", 5], ["readlines", 1], ["readlines", 0]],
    [["readlines", None]],
    [["list"], ["list"]],
    [["readline"], ["read", 3], ["list"]],
    [["__next__"], ["__next__"], ["read"], ["__next__"]],
    [
        ["read", 1.5],
        ["read", "1"],
        ["read", 1, 2],
        ["read", 10**30],
        ["readline", "x"],
        ["readlines", []],
    ],
]


def expected_calls(data: bytes, calls: list[list[Any]]) -> list[Any]:
    """What io.BytesIO gives."""
    import io

    stream, results = io.BytesIO(data), []
    for name, *args in calls:
        try:
            results.append(list(stream) if name == "list" else getattr(stream, name)(*args))
        except Exception as error:
            results.append(type(error).__name__)
    return results


@pytest.mark.parametrize("calls", CALLS, ids=str)
@pytest.mark.parametrize("data", [b"", b"x", b"\n", TEXT], ids=["empty", "byte", "newline", "text"])
def test_input_is_like_bytesio(server: Server, calls: list[list[Any]], data: bytes) -> None:
    with server.raw() as client:
        client.post(target("body", calls), data)
        assert ast.literal_eval(client.recv_response().text) == expected_calls(data, calls)
        send_chunked(
            client, target("body", calls), *[data[i : i + 7] for i in range(0, len(data), 7)]
        )
        assert ast.literal_eval(client.recv_response().text) == expected_calls(data, calls)


@pytest.mark.parametrize("calls", CALLS, ids=str)
def test_input_from_a_file(
    shared: Callable[..., Server], threads: int | None, calls: list[list[Any]]
) -> None:
    """The same when the body was spilled; lines cross the borders of blocks."""
    server = shared(APP, "--limit-body-memory", "16", interface="wsgi", threads=threads)
    data = TEXT + b"\n" + b"y" * 70_000 + b"\nz" + b"w" * 200_000 + b"\nend"
    with server.raw() as client:
        client.post(target("body", calls), data)
        assert ast.literal_eval(client.recv_response().text) == expected_calls(data, calls)


def test_no_body(server: Server) -> None:
    assert (
        fetch(server, "body", [["read"], ["readline"], ["readlines"], ["list"]]).text
        == "[b'', b'', [], []]"
    )


@pytest.mark.parametrize("length", [1, 524_287, 524_288, 524_289, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_are_spilled(server: Server, length: int, chunked: bool) -> None:
    data = bytes(range(256)) * (length // 256) + b"\0" * (length % 256)
    with server.raw() as client:
        if chunked:
            send_chunked(
                client, "/drain", *[data[i : i + 10_007] for i in range(0, length, 10_007)]
            )
        else:
            client.post("/drain", data)
        total, declared, letters, files = json.loads(client.recv_response().body)
    assert (total, declared) == (length, str(length))
    assert letters == min(length, 256)
    assert files == (1 if length > 524_288 else 0)


def test_a_temporary_file_is_closed(server: Server) -> None:
    before = server.open_files()
    with server.raw() as client:
        for _ in range(20):
            client.post("/drain", b"x" * 600_000)
            client.recv_response()
    fetch(server, "environ")
    assert server.open_files() <= before + 2


def test_no_room_for_a_body(
    serve: Callable[..., Server], threads: int | None, tmp_path: Path
) -> None:
    """A file that may not grow is like a full disk."""
    import resource

    server = serve(
        APP,
        interface="wsgi",
        threads=threads,
        rlimits={resource.RLIMIT_FSIZE: 1_000_000},
        env={"TMPDIR": str(tmp_path)},
    )
    with server.raw() as client:
        client.post("/drain", b"x" * 2_000_000)
        response = client.recv_response()
        assert response.status == 507
        assert response.closes
    server.wait_log("Cannot keep a request body in a temporary file")
    assert fetch(server, "environ").status == 200


def test_bodies_without_room_do_not_fill_the_log(
    serve: Callable[..., Server], threads: int | None
) -> None:
    """Counted like other refusals, in a line a second."""
    import resource

    server = serve(
        APP, "--limit-body-memory", "0", "--no-access-log",
        interface="wsgi", threads=threads, rlimits={resource.RLIMIT_FSIZE: 1000},
    )  # fmt: skip
    for _ in range(300):
        with server.raw() as client:
            client.post("/drain", b"x" * 2000)
            assert client.recv_response().status == 507
    server.wait_log("more refused requests and cut connections were not logged")
    server.stop()
    told = server.log().count("Cannot keep a request body")
    hidden = re.findall(r"WARNING:  (\d+) more refused requests", server.log())
    assert 100 <= told < 300
    assert told + sum(map(int, hidden)) == 300


def test_continue_is_sent_at_once(server: Server) -> None:
    with server.raw() as client:
        client.send(
            "POST /drain HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv_head().status == 100
        client.send(b"abc")
        assert json.loads(client.recv_response().body)[:2] == [3, "3"]


def test_a_client_that_leaves_inside_a_body(server: Server) -> None:
    with server.raw() as client:
        client.send("POST /drain HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nabc")
    assert fetch(server, "environ").status == 200


def test_a_slow_upload_holds_nobody(server: Server) -> None:
    with server.raw() as slow:
        slow.send("POST /drain HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nab")
        assert fetch(server, "environ").status == 200
        slow.send(b"cd")
        assert json.loads(slow.recv_response().body)[0] == 4


# --- start_response --------------------------------------------------------------------------------

BAD_STARTS: list[tuple[tuple[Any, ...], str]] = [
    ((200, []), "TypeError"),
    ((b"200 OK", []), "TypeError"),
    (("200", []), "ValueError"),
    (("200OK", []), "ValueError"),
    (("20 OK", []), "ValueError"),
    (("2000 OK", []), "ValueError"),
    (("abc OK", []), "ValueError"),
    (("-20 OK", []), "ValueError"),
    (("101 Switching Protocols", []), "ValueError"),
    (("099 Low", []), "ValueError"),
    (("200 O\nK", []), "ValueError"),
    (("200 OK\r\nX: y", []), "ValueError"),
    (("200 OK\0", []), "ValueError"),
    (("200 \u2713", []), "ValueError"),
    (("", []), "ValueError"),
    (("200 OK", ()), "TypeError"),
    (("200 OK", None), "TypeError"),
    (("200 OK", {}), "TypeError"),
    (("200 OK", ["A: b"]), "TypeError"),
    (("200 OK", [["A", "b"]]), "TypeError"),
    (("200 OK", [("A",)]), "TypeError"),
    (("200 OK", [("A", "b", "c")]), "TypeError"),
    (("200 OK", [(b"A", "b")]), "TypeError"),
    (("200 OK", [("A", b"b")]), "TypeError"),
    (("200 OK", [("A", 1)]), "TypeError"),
    (("200 OK", [("A", None)]), "TypeError"),
    (("200 OK", [("", "b")]), "ValueError"),
    (("200 OK", [("A B", "b")]), "ValueError"),
    (("200 OK", [("A:", "b")]), "ValueError"),
    (("200 OK", [("A\r\nB", "b")]), "ValueError"),
    (("200 OK", [("\xe9", "b")]), "ValueError"),
    (("200 OK", [("A", "b\r\nX: y")]), "ValueError"),
    (("200 OK", [("A", "b\n")]), "ValueError"),
    (("200 OK", [("A", "b\r")]), "ValueError"),
    (("200 OK", [("A", "b\0")]), "ValueError"),
    (("200 OK", [("A", "b\x1b[31m")]), "ValueError"),
    (("200 OK", [("A", "b\x7f")]), "ValueError"),
    (("200 OK", [("A", "\u2713")]), "ValueError"),
    (("200 OK", [("Content-Length", "x")]), "ValueError"),
    (("200 OK", [("Content-Length", "-1")]), "ValueError"),
    (("200 OK", [("Content-Length", "1"), ("Content-Length", "2")]), "ValueError"),
    (("200 OK",), "TypeError"),
    ((), "TypeError"),
    (("200 OK", [], None, None), "TypeError"),
    *[
        (("200 OK", [(name, "x")]), "ValueError")
        for name in [
            "Connection",
            "keep-alive",
            "Proxy-Authenticate",
            "PROXY-AUTHORIZATION",
            "TE",
            "Trailers",
            "Transfer-Encoding",
            "Upgrade",
        ]
    ],
]


@pytest.mark.parametrize(("args", "error"), BAD_STARTS, ids=lambda value: str(value)[:60])
def test_bad_arguments(server: Server, args: tuple[Any, ...], error: str) -> None:
    response = fetch(server, "start", args)
    assert response.status == 200
    assert response.text.startswith(f"{error}: "), response.text
    assert "start_response()" in response.text
    assert response.get("a") is None


@pytest.mark.parametrize(
    ("headers", "name", "value"),
    [
        ([("X-A", "\xe9")], "x-a", b"\xe9"),
        ([("X-A", "")], "x-a", b""),
        ([("X-A", "a\tb")], "x-a", b"a\tb"),
        ([("X-A", " trimmed\t")], "x-a", b"trimmed"),
        ([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], "set-cookie", [b"a=1", b"b=2"]),
        ([("X-" + "a" * 500, "b" * 7000)], "x-" + "a" * 500, b"b" * 7000),
    ],
    ids=lambda value: str(value)[:40],
)
def test_headers(server: Server, headers: Any, name: str, value: Any) -> None:
    response = fetch(server, "start", ("200 OK", headers))
    assert response.body == b"accepted"
    assert response.get_all(name) == (value if isinstance(value, list) else [value])


@pytest.mark.parametrize(
    "line", ["200 OK", "299 Any Words at all", "404 ", "999 \xe9", "599 x" * 20]
)
def test_status_lines(server: Server, line: str) -> None:
    response = fetch(server, "start", (line, []))
    assert response.status == int(line[:3])
    if len(line) > 4:
        assert response.reason == line[4:].encode("latin-1")


def test_none_is_no_exc_info(server: Server) -> None:
    assert fetch(server, "start", ("200 OK", [], None)).body == b"accepted"


def test_subclasses_of_str(server: Server) -> None:
    assert fetch(server, "subclasses").get("x-one") == b"1"


def test_a_second_call(server: Server) -> None:
    assert b"without exc_info" in fetch(server, "twice").body


def test_exc_info_replaces_the_head(server: Server) -> None:
    response = fetch(server, "replaced")
    assert (response.status, response.reason) == (503, b"Not Now")
    assert response.get("x-first") is None
    assert response.get("x-second") == b"2"
    assert response.get("content-length") == b"8"


def test_exc_info_raises_when_the_head_has_left(server: Server) -> None:
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/too-late")
        assert_broken(client)
    server.wait_log("app: raised again the original True")
    server.wait_log("KeyError: 'the original'")


def test_start_response_in_the_iteration(server: Server) -> None:
    assert fetch(server, "late").body == b"late"


@pytest.mark.parametrize("name", ["never", "never-empty", "swallowed"])
def test_no_start_response(server: Server, name: str) -> None:
    response = fetch(server, name)
    assert response.status == 500
    server.wait_log(r"start_response\(\)")


# --- write -----------------------------------------------------------------------------------------


def test_write(server: Server) -> None:
    response = fetch(server, "write")
    assert response.body == b"one two three four"
    assert response.framing == "chunked"


def test_write_with_a_length(server: Server) -> None:
    response = fetch(server, "write-only")
    assert (response.body, response.framing) == (b"only", "length")


def test_write_holds_nobody(server: Server, threads: int | None) -> None:
    """Inline, what the socket does not take is queued; a thread waits until it is taken."""
    with server.raw() as client:
        client.get(target("write-much", 100))
        if threads is None:
            server.wait_log("app: all written")
        assert fetch(server, "environ").status == 200
        assert "all written" not in server.log() or threads is None
        assert client.recv_response().body == b"x" * (100 * BLOCK) + b"end"


def test_wrong_writes(server: Server) -> None:
    response = fetch(server, "write-wrong")
    assert response.body == b"four"
    server.wait_log("app: write: TypeError TypeError TypeError TypeError RuntimeError")


def test_an_exception_behind_write(server: Server) -> None:
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/write-then-fail")
        assert_broken(client)
    server.wait_log("ValueError: after write")


def test_what_the_application_keeps_is_inert(server: Server) -> None:
    assert fetch(server, "keep").body == b"kept"
    results = json.loads(fetch(server, "use-kept").body)
    assert results[0] == "RuntimeError: start_response() called after the request has ended"
    assert results[1] == "RuntimeError: write() called after the request has ended"
    assert results[2:] == ["/keep", ""]


def test_another_thread(server: Server) -> None:
    assert (
        "RuntimeError: start_response() called on another thread"
        in fetch(server, "other-thread").text
    )


# --- bodies of responses ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "closing"])
@pytest.mark.parametrize(
    "items",
    [
        [],
        [b""],
        [b"", b""],
        [b"ooo"],
        [b"ooo", b"ttt"],
        [b"", b"ooo", b"", b"ttt", b""],
        [b"x" * 100_000],
        [b"x" * 100_000, b"y" * 300_000, b"z"],
        [b"i"] * 1000,
    ],
    ids=lambda items: f"{len(items)}x{len(b''.join(items))}",
)
def test_iterables(server: Server, kind: str, items: list[bytes]) -> None:
    runs = [(item[:1], len(item), len(list(equal))) for item, equal in itertools.groupby(items)]
    response = fetch(server, "respond-runs", (runs, kind))
    assert response.status == 200
    assert response.body == b"".join(items)
    assert response.framing == (
        "length" if kind in ("list", "tuple") or not response.body else "chunked"
    )
    if kind == "closing":
        server.wait_log("app: closed")


@pytest.mark.parametrize("kind", ["list", "generator"])
def test_a_declared_length(server: Server, kind: str) -> None:
    response = fetch(server, "respond", ([("content-length", "6")], [b"one", b"two"], kind))
    assert (response.body, response.framing) == (b"onetwo", "length")
    assert not response.closes


def test_http_1_0_without_a_length(server: Server) -> None:
    with server.raw() as client:
        client.get(
            target("respond", ([], [b"one", b"two"], "generator")),
            "Connection: keep-alive",
            version="1.0",
        )
        response = client.recv_response()
        assert (response.body, response.framing) == (b"onetwo", "close")


def test_a_list_with_a_will_of_its_own(server: Server) -> None:
    assert fetch(server, "respond", ([], [b"not me"], "odd")).body == b"odd"


@pytest.mark.parametrize("kind", ["none", "bytes"])
def test_not_an_iterable_of_bytes(server: Server, kind: str) -> None:
    server.expect_tracebacks()
    assert fetch(server, "respond", ([], [b"ab"], kind)).status == 500
    server.wait_log("TypeError: ")


@pytest.mark.parametrize("item", ["text", 5, None], ids=str)
def test_an_item_that_is_no_bytes(server: Server, item: Any) -> None:
    server.expect_tracebacks()
    assert fetch(server, "wrong-item", [item]).status == 500
    server.wait_log("TypeError: WSGI response must be an iterable of bytes")
    server.wait_log("app: closed")
    with server.raw() as client:
        client.get(target("wrong-item", [b"good", item]))
        assert_broken(client)


@pytest.mark.parametrize("kind", ["list", "generator", "closing"])
@pytest.mark.parametrize(
    "items", [[b"1234"], [b"12", b"34"], [b"123", b"4"], [b"1", b"2", b"3", b"4"]], ids=str
)
def test_more_than_the_length(server: Server, kind: str, items: list[bytes]) -> None:
    with server.raw() as client:
        client.get(target("respond", ([("Content-Length", "3")], items, kind)))
        assert client.recv_response().body == b"123"
        assert client.at_end()
    server.wait_log("more body than its Content-Length")
    if kind == "closing":
        server.wait_log("app: closed")


@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "closing"])
def test_less_than_the_length(server: Server, kind: str) -> None:
    with server.raw() as client:
        client.get(target("respond", ([("Content-Length", "5")], [b"12", b"34"], kind)))
        assert_broken(client)
    server.wait_log("less body than its Content-Length")


@pytest.mark.parametrize("kind", ["list", "generator"])
@pytest.mark.parametrize("items", [[], [b""]], ids=str)
def test_nothing_for_the_length(server: Server, kind: str, items: list[bytes]) -> None:
    """Nothing has left yet: the client gets to know."""
    assert fetch(server, "respond", ([("Content-Length", "5")], items, kind)).status == 500
    server.wait_log("less body than its Content-Length")


@pytest.mark.parametrize("kind", ["list", "generator", "closing"])
@pytest.mark.parametrize("headers", [[], [("Content-Length", "6")]], ids=str)
def test_head(server: Server, kind: str, headers: list[tuple[str, str]]) -> None:
    response = fetch(server, "respond", (headers, [b"one", b"two"], kind), method="HEAD")
    assert response.status == 200
    if headers or kind == "list":
        assert response.get("content-length") == b"6"
    if kind == "closing":
        server.wait_log("app: closed")


def test_head_without_a_body(server: Server) -> None:
    """A Content-Length that says what GET would give is right for HEAD, with no body at all."""
    response = fetch(server, "respond", ([("Content-Length", "100")], [], "list"), method="HEAD")
    assert response.get("content-length") == b"100"
    assert not response.closes


def test_head_of_an_endless_response(server: Server) -> None:
    with server.raw() as client:
        client.get("/endless", method="HEAD")
        assert client.recv_response("HEAD").status == 200
    server.wait_log("app: closed")


@pytest.mark.parametrize("line", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body(server: Server, line: str) -> None:
    with server.raw() as client:
        for _ in range(3):
            client.get(target("status", (line, [])))
            assert client.recv_response().status == int(line[:3])


def test_each_item_is_sent_before_the_next_is_asked_for(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with server.raw() as client:
        client.get(target("stepwise", str(path)))
        assert client.recv_until(b"first\r\n").endswith(b"\r\n\r\n5\r\nfirst\r\n")
        path.write_text("second")
        assert client.recv_until(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"


@pytest.mark.parametrize("name", ["endless", "endless-generator"])
def test_a_client_that_does_not_read(server: Server, name: str) -> None:
    """The iterable is asked for no more than the socket takes; others are served meanwhile."""
    before = server.rss()
    with server.raw() as client:
        client.get(f"/{name}")
        client.recv_exactly(BLOCK)
        for _ in range(20):
            assert fetch(server, "environ").status == 200
        assert server.rss() - before < 5_000_000
        client.recv_exactly(10_000_000)  # and goes on when it is read
    if name == "endless":
        server.wait_log("app: closed")
    else:
        server.wait_log("app: generator closed")
    server.check_log()


@pytest.mark.parametrize("item", [b"drop", b""])
def test_a_client_that_reads_everything_holds_nobody(server: Server, item: bytes) -> None:
    """An iterable that could go on for ever lets others have their turn."""
    with server.raw() as client:
        reader = threading.Thread(target=read_to_the_end, args=(client,))
        client.get(target("endless-drops", item))
        reader.start()
        for _ in range(20):
            assert fetch(server, "environ").status == 200
        client.socket.shutdown(socket.SHUT_RDWR)  # which ends the reader
        reader.join()
        client.reset()


def read_to_the_end(client: RawClient) -> None:
    with contextlib.suppress(ConnectionResetError):
        while client.socket.recv(1 << 20):
            pass


def test_clients_that_read_slowly_get_all(server: Server) -> None:
    expected = b"".join(bytes([97 + i % 26]) * BLOCK for i in range(100))
    results: list[bytes] = []

    def read(client: RawClient) -> None:
        results.append(client.recv_response().body)

    with server.raw() as one, server.raw() as two, server.raw() as three:
        threads = []
        for client in (one, two, three):
            client.get(target("stream", 100))
            threads.append(threading.Thread(target=read, args=(client,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 3
    assert all(result == expected for result in results)


def test_pipelined(server: Server) -> None:
    """Inline, lazy and failing answers leave in the order of their requests."""
    server.expect_tracebacks()
    requests = [
        ("respond", ([], [b"one"], "list"), 200, b"one"),
        ("stream", 40, 200, b"".join(bytes([97 + i % 26]) * BLOCK for i in range(40))),
        ("respond", ([], [b"two", b"", b"three"], "generator"), 200, b"twothree"),
        ("write", None, 200, b"one two three four"),
        ("respond", ([("Content-Length", "3")], [b"end"], "closing"), 200, b"end"),
    ]
    with server.raw() as client:
        for name, argument, _, _ in requests:
            client.get(target(name, argument))
        for _, _, status, body in requests:
            response = client.recv_response()
            assert (response.status, response.body) == (status, body)


# --- failures and close() --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before", "behind", "first"])
def test_an_exception_before_the_head_left(server: Server, where: str) -> None:
    server.expect_tracebacks()
    response = fetch(server, "raises", where)
    assert response.status == 500
    assert where.encode() not in response.body
    log = server.wait_log(f"RuntimeError: {where}").string
    assert "raises?" in log and "Traceback" in log
    if where == "first":
        server.wait_log("app: closed")


@pytest.mark.parametrize("where", ["later", "length"])
def test_an_exception_behind_the_head(server: Server, where: str) -> None:
    server.expect_tracebacks()
    with server.raw() as client:
        client.get(target("raises", where))
        assert_broken(client)
    server.wait_log(f"RuntimeError: {where}")
    server.wait_log("app: closed")


def test_close_is_called_once(server: Server) -> None:
    with server.raw() as client:
        for _ in range(5):
            client.get(target("respond", ([], [b"x"], "closing")))
            client.recv_response()
    server.wait_log(r"(?s)(app: closed.*){5}")
    fetch(server, "environ")
    assert server.log().count("app: closed") == 5


def test_close_that_fails_is_logged(server: Server) -> None:
    server.expect_tracebacks()
    response = fetch(server, "respond", ([], [b"x"], "failing"))
    assert (response.status, response.body) == (200, b"x")
    server.wait_log("ValueError: close failed")


def test_close_after_a_reset(server: Server) -> None:
    with server.raw() as client:
        client.get("/endless")
        client.recv_exactly(BLOCK)
        client.reset()
    server.wait_log("app: closed")
    assert server.log().count("app: closed") == 1


def test_close_at_shutdown(serve: Callable[..., Server], threads: int | None) -> None:
    server = serve(APP, "--timeout-graceful-shutdown", "1", interface="wsgi", threads=threads)
    with server.raw() as client:
        client.get("/endless")
        client.recv_exactly(BLOCK)
        server.stop()
        assert server.log().count("app: closed") == 1


@pytest.mark.parametrize("status", [0, 3])
def test_an_application_that_exits(
    serve: Callable[..., Server], threads: int | None, status: int
) -> None:
    server = serve(APP, interface="wsgi", threads=threads)
    server.expect_tracebacks()
    with server.raw() as client:
        client.get(target("exits", status))
        assert client.recv_response().status == 500
    assert server.wait() == status


# --- wsgi.file_wrapper -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "data"
    path.write_bytes(b"".join(b"line %07d\n" % i for i in range(40_000)))
    return path


@pytest.mark.parametrize(
    "kind", ["plain", "raw", "random", "temporary", "bytesio", "noclose", "subclass", "upper"]
)
@pytest.mark.parametrize("declared", [False, True])
def test_file_wrapper(server: Server, data_file: Path, kind: str, declared: bool) -> None:
    data = data_file.read_bytes()
    expected = data.swapcase() if kind == "subclass" else data.upper() if kind == "upper" else data
    headers = [("Content-Length", str(len(data)))] if declared else []
    response = fetch(server, "file", (kind, str(data_file), headers))
    assert response.body == expected
    known = declared or kind in ("plain", "raw", "random", "temporary")
    assert response.framing == ("length" if known else "chunked")


def test_a_file_from_its_position(server: Server, data_file: Path) -> None:
    response = fetch(server, "file", ("buffered", str(data_file), []))
    assert response.body == data_file.read_bytes()[10:]


@pytest.mark.parametrize("kind", ["plain", "bytesio"])
def test_a_file_up_to_the_length(server: Server, data_file: Path, kind: str) -> None:
    response = fetch(server, "file", (kind, str(data_file), [("Content-Length", "1000")]))
    assert response.body == data_file.read_bytes()[:1000]
    assert not response.closes
    assert "than its" not in server.log()


@pytest.mark.parametrize("kind", ["plain", "bytesio"])
def test_a_file_shorter_than_the_length(server: Server, data_file: Path, kind: str) -> None:
    with server.raw() as client:
        client.get(target("file", (kind, str(data_file), [("Content-Length", "100000000")])))
        if kind == "plain":
            assert client.recv_response().status == 500
        else:
            assert_broken(client)
    server.wait_log("less body than its Content-Length")


def test_a_compressed_file(server: Server, tmp_path: Path) -> None:
    """GzipFile has a fileno(), but it reads something else."""
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(b"unpacked" * 1000))
    assert fetch(server, "file", ("gzip", str(path), [])).body == b"unpacked" * 1000


@pytest.mark.parametrize("kind", ["text", "closed"])
def test_files_that_cannot_be_read(server: Server, data_file: Path, kind: str) -> None:
    server.expect_tracebacks()
    assert fetch(server, "file", (kind, str(data_file), [])).status == 500


def test_an_empty_file(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    response = fetch(server, "file", ("plain", str(path), []))
    assert (response.body, response.framing) == (b"", "length")


def test_a_file_that_lies_about_its_size(server: Server) -> None:
    """Files of /proc are regular, and empty to stat()."""
    assert b"asgiserver" in fetch(server, "file", ("proc", "", [])).body


@pytest.mark.parametrize("kind", ["plain", "bytesio"])
def test_head_of_a_file(server: Server, data_file: Path, kind: str) -> None:
    response = fetch(server, "file", (kind, str(data_file), []), method="HEAD")
    assert response.status == 200
    if kind == "plain":
        assert response.get("content-length") == str(data_file.stat().st_size).encode()


def test_a_wrapped_wrapper_is_iterated(server: Server, data_file: Path) -> None:
    assert fetch(server, "file-closed", str(data_file)).body == data_file.read_bytes()
    server.wait_log("app: closed True")


def test_files_are_closed(server: Server, data_file: Path) -> None:
    before = server.open_files()
    with server.raw() as client:
        for kind in ["plain", "raw", "temporary", "bytesio"] * 10:
            client.get(target("file", (kind, str(data_file), [])))
            client.recv_response()
        for _ in range(10):
            client.get(target("file", ("plain", str(data_file), [])), method="HEAD")
            client.recv_response("HEAD")
    fetch(server, "environ")
    assert server.open_files() <= before + 2


def test_pipelined_files(server: Server, data_file: Path) -> None:
    with server.raw() as client:
        client.send(
            b"".join(
                f"GET {target('file', (kind, str(data_file), []))} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
                for kind in ["plain", "bytesio"] * 5
            )
        )
        for _ in range(10):
            assert client.recv_response().body == data_file.read_bytes()


# --- the validator of the standard library ---------------------------------------------------------


def test_validator(server: Server) -> None:
    with server.raw() as client:
        for data in [b"", b"body", b"x" * 100_000]:
            client.post("/validated", data, "Content-Type: text/plain")
            assert client.recv_response().body == b"POST " + data
            send_chunked(client, "/validated?q=1", data[:10], data[10:])
            assert client.recv_response().body == b"POST " + data
        for method in ["GET", "DELETE", "OPTIONS"]:
            client.get("/validated/%C3%A9", "Accept: x", "Cookie: a", "Cookie: b", method=method)
            assert client.recv_response().body == method.encode() + b" "


def test_validator_under_load(server: Server) -> None:
    """Many connections at once, pipelined; whatever the validator finds is a 500."""
    failures: list[str] = []

    def run() -> None:
        with server.raw() as client:
            for _ in range(20):
                for _ in range(5):
                    client.post("/validated", b"data")
                    client.get("/validated")
                for _ in range(5):
                    for expected in (b"POST data", b"GET "):
                        response = client.recv_response()
                        if response.body != expected:
                            failures.append(f"{response.status} {response.body!r}")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]


# --- leaks -----------------------------------------------------------------------------------------

# Blocks: one for each of 1000 requests would be more, free lists that still grow are less.
LEAK = 500


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("respond", ([], [b"x"], "list")),
        ("respond", ([], [b"x", b"y"], "tuple")),
        ("respond", ([], [b"x"], "closing")),
        ("respond", ([("Content-Length", "9")], [b"x"], "list")),
        ("respond", ([], [b"x"], "none")),
        ("respond", ([], [b"x"], "failing")),
        ("start", ("200 OK", [("A", "b\n")])),
        ("status", ("204 No Content", [])),
        ("raises", "before"),
        ("raises", "behind"),
        ("raises", "first"),
        ("wrong-item", ["text"]),
        ("write", None),
        ("replaced", None),
        ("never", None),
        ("keep", None),
        ("environ", None),
        ("file", ("plain", "/etc/passwd", [])),
        ("file", ("bytesio", "/etc/passwd", [])),
        ("drain", None),
    ],
    ids=str,
)
def test_nothing_leaks(
    shared: Callable[..., Server], threads: int | None, name: str, argument: Any
) -> None:
    """Many requests of one kind leave as many blocks in use as few."""
    server = shared(APP, "--no-access-log", interface="wsgi", threads=threads)
    server.expect_tracebacks()
    counts = []
    for times in (800, 1000):
        many(server, times, target(name, argument))
        counts.append(json.loads(fetch(server, "blocks").body))
    assert counts[1] - counts[0] < LEAK, counts


def test_connections_do_not_leak(shared: Callable[..., Server], threads: int | None) -> None:
    server = shared(APP, "--no-access-log", interface="wsgi", threads=threads)
    counts = []
    for times in (100, 1000):
        for _ in range(times):
            with server.raw() as client:
                client.get("/write")
                client.recv_response()
        counts.append(json.loads(fetch(server, "blocks").body))
    assert counts[1] - counts[0] < LEAK, counts


def many(server: Server, times: int, path: str) -> None:
    """So many requests with bodies, on as few connections as the answers allow."""
    done = 0
    while done < times:
        with server.raw() as client:
            closes = False
            while done < times and not closes:
                client.post(path, b"body", f"X-Number: {done}")
                closes = client.recv_response().closes
                done += 1
