"""PEP 3333, rule by rule, against tests/apps/wsgi_spec.py: what an application is given."""

from __future__ import annotations

import ast
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from apps.wsgi_spec import STATUSES
from support.server import Server
from support.wsgi_rules import APP, fetch, send_chunked, target


@pytest.fixture
def server(wsgi_rules: Server) -> Server:
    return wsgi_rules


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

    room = 300_000  # what a build that measures coverage writes in the end has to fit, too

    server = serve(
        APP, "--limit-body-memory", "0", "--no-access-log",
        interface="wsgi", threads=threads, rlimits={resource.RLIMIT_FSIZE: room},
    )  # fmt: skip
    for _ in range(300):
        with server.raw() as client:
            client.post("/drain", b"x" * (room + 1000))
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
