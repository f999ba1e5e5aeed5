"""The corpus against real servers: each case whole, byte by byte, in growing parts, and pipelined behind another
request, over ASGI on both loops and over WSGI."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.cases import Case, byte_by_byte, growing, load_cases, whole
from support.client import RawClient, Response

CASES = list(load_cases())
FIRST = b"GET /first HTTP/1.1\r\nHost: first\r\nContent-Length: 4\r\n\r\nbody"
LAST = "/last"


def send_parts(client: RawClient, parts: list[bytes]) -> None:
    """Sends as far as the server takes it: it may refuse before it has read everything."""
    try:
        for part in parts:
            client.send(part)
    except (BrokenPipeError, ConnectionResetError):
        pass


def cgi_fields(fields: list[list[str]]) -> dict[str, str]:
    """What RFC 3875 makes of field lines: joined, names with underscores left out."""
    joined: dict[str, str] = {}
    for name, value in fields:
        if "_" in name:
            continue
        separator = "; " if name == "cookie" else ","
        joined[name] = f"{joined[name]}{separator}{value}" if name in joined else value
    return joined


def check_request(seen: dict[str, Any], expected: dict[str, Any], interface: str) -> None:
    for key in ("method", "version", "query", "body"):
        if key in expected:
            assert seen[key] == expected[key], key
    if "path" in expected:
        path = expected["path"]
        if interface == "wsgi":
            path = expected.get("path_info", path.encode().decode("latin-1"))
        assert seen["path"] == path
    if interface == "asgi" and "raw_path" in expected:
        assert seen["raw_path"] == expected["raw_path"]
    if "headers" in expected:
        fields = expected["headers"]
        assert seen["headers"] == (fields if interface == "asgi" else cgi_fields(fields))
    for name, value in expected.get("has", []):
        fields = (
            seen["headers"] if interface == "asgi" else list(map(list, seen["headers"].items()))
        )
        assert [name, value] in fields
    names = [name for name, _ in seen["headers"]] if interface == "asgi" else list(seen["headers"])
    assert not set(names) & set(expected.get("lacks", []))


def check_refusal(response: Response, status: int) -> None:
    """RFC 9112, 9.6: the last response says so. Its body is short and plain."""
    assert response.status == status
    assert response.closes
    assert response.get("content-type") in (b"text/plain", b"text/plain; charset=utf-8")
    assert response.get("content-length") == b"%d" % len(response.body)
    assert 0 < len(response.body) < 200


def check_end(client: RawClient, case: Case) -> None:
    """Whatever comes next, the connection is where it ought to be."""
    if case.refused is not None or case.after == "closed":
        assert client.recv_all() == b"", "bytes behind the last answer"
    elif case.after == "cut":
        with contextlib.suppress(ConnectionResetError):
            assert client.recv_all() == b"", "bytes behind the last answer"
    elif case.after == "eof":
        client.shutdown()
        assert client.recv_all() == b"", "an answer to something incomplete"
    else:
        client.get(LAST)
        seen = json.loads(client.recv_response().body)
        assert (seen["path"], seen["body"]) == (LAST, ""), "the connection is out of step"
        assert not client.buffer


def run_case(client: RawClient, case: Case, interface: str, parts: list[bytes]) -> None:
    send_parts(client, parts)
    if case.after == "eof" and case.refused is not None:
        client.shutdown()
    for expected in case.requests:
        response = client.recv_response(expected.get("method", "GET"), skip=(100,))
        assert response.status == 200, response
        if expected.get("method") != "HEAD":
            check_request(json.loads(response.body), expected, interface)
        if (
            case.refused is None
            and case.after in ("closed", "cut")
            and expected is case.requests[-1]
        ):
            assert response.closes
    if case.refused is not None:
        check_refusal(client.recv_response(skip=(100,)), case.refused)
    check_end(client, case)


@pytest.fixture(params=CASES, ids=lambda case: case.id)
def case(request: pytest.FixtureRequest, backend: Any) -> Case:
    chosen: Case = request.param
    if chosen.only not in (None, backend.interface):
        pytest.skip(f"only {chosen.only} can show it")
    return chosen


@pytest.fixture
def echo(shared: Any, backend: Any) -> Any:
    return shared(f"echo_{backend.interface}:app", **backend.options)


@pytest.mark.parametrize("cut", [whole, byte_by_byte, growing])
def test_case(echo: Any, backend: Any, case: Case, cut: Callable[[bytes], list[bytes]]) -> None:
    """More than once: heads that repeat are not parsed again."""
    for _ in range(3 if cut is whole else 1):
        with echo.raw() as client:
            run_case(client, case, backend.interface, cut(case.raw))


@pytest.mark.tls_too
@pytest.mark.parametrize("cut", [whole, growing])
def test_case_behind_another_request(
    echo: Any, backend: Any, case: Case, cut: Callable[[bytes], list[bytes]]
) -> None:
    """Good requests before a bad one are answered, in order."""
    with echo.raw() as client:
        first, *rest = cut(FIRST + case.raw)
        send_parts(client, [first, *rest])
        seen = json.loads(client.recv_response().body)
        assert (seen["path"], seen["body"]) == ("/first", "body")
        run_case(client, case, backend.interface, [])
