"""PEP 3333, rule by rule, against tests/apps/wsgi_spec.py: what an application answers."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.client import RawClient
from support.server import Server
from support.wsgi_rules import APP, BLOCK, assert_broken, fetch, target


@pytest.fixture
def server(wsgi_rules: Server) -> Server:
    return wsgi_rules


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


def test_exc_info_that_is_none_when_the_head_has_left(server: Server) -> None:
    server.expect_tracebacks()
    with server.raw() as client:
        client.get("/too-late-for-nothing")
        assert_broken(client)
    server.wait_log(r"app: refused: start_response\(\): the head has been sent already")


def test_a_keyword_that_there_is_not(server: Server) -> None:
    assert b"exc_info=None" in fetch(server, "keyword").body


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
        client.socket.shutdown(
            socket.SHUT_RD
        )  # which ends the reader, and tells the server nothing
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
