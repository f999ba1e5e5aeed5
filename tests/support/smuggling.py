"""Tricks against a front end and the server behind it, and the verdict on what came of each.

    client --> front end --> relay --> server

The front end gives every request that it forwards the field X-Front with a token that no client knows. So in
what the relay kept, the token's occurrences are the requests as the front end counts them, and the responses are
the requests as the server counts them. No trick names that field. The application tells what it saw of each (tests/apps/smuggling_asgi.py).

``tests/smuggling.toml`` has the tricks, one ``[[trick]]`` each::

    name      unique
    why       where it comes from (RFC and section, advisory, paper)
    raw       what the client sends. A character is a byte (Latin-1). In it, <ID> is six digits that no other
              trick has; <MARK> is a whole request for /smuggled-<ID>, 42 (hexadecimal 2a) bytes long, which
              nobody but the front end may make a request; <X> is one of ``variants``
    variants  {NAME = "text"}: a trick for each
    expand    {NAME = ["text", n]}: n times the text, for <NAME>
    then      what is sent when something came back for ``raw``
    alone     true: nothing follows. Otherwise a last request does, for /after-<ID>, which closes the connection
    http2     instead of ``raw``: the fields [["name", "value"], …] of an HTTP/2 request, with ``data`` as its body
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from . import http2
from .client import SLOWNESS
from .relay import Recorded

FILE = Path(__file__).resolve().parent.parent / "smuggling.toml"
KEYS = {"name", "why", "raw", "variants", "expand", "then", "alone", "http2", "data"}
TOKEN = "front-" + secrets.token_hex(12)

MARK = "GET /smuggled-<ID> HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = "GET /after-<ID> HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
assert len(MARK.replace("<ID>", "123456")) == 42

QUIET = 0.2  # seconds without a byte, after which a front end is held to wait for more
PATIENCE = 5.0  # seconds for an answer that must come


@dataclass(frozen=True)
class Trick:
    name: str
    why: str
    raw: str = ""
    then: str = ""
    alone: bool = False
    http2: tuple[tuple[str, str], ...] = ()
    data: str = ""

    def bytes(self, text: str, number: int) -> bytes:
        return text.replace("<MARK>", MARK).replace("<ID>", f"{number:06}").encode("latin-1")


def load_tricks(file: Path = FILE) -> Iterator[Trick]:
    seen: set[str] = set()
    for table in tomllib.loads(file.read_text("utf-8"))["trick"]:
        name = table.get("name")
        assert not set(table) - KEYS, f"{name}: unknown keys {set(table) - KEYS}"
        assert table["why"], f"{name} has no source"
        assert ("raw" in table) != ("http2" in table), f"{name}: raw or http2"
        for trick in variants(table):
            assert trick.name not in seen, f"{trick.name} is there twice"
            seen.add(trick.name)
            yield trick


def variants(table: dict[str, Any]) -> Iterator[Trick]:
    chosen = table.get("variants", {"": ""})
    for variant, text in chosen.items():

        def fill(template: str, text: str = text) -> str:
            for placeholder, (piece, count) in table.get("expand", {}).items():
                template = template.replace(f"<{placeholder}>", piece * count)
            return template.replace("<X>", text)

        yield Trick(
            name=f"{table['name']}:{variant}" if variant else table["name"],
            why=table["why"],
            raw=fill(table.get("raw", "")),
            then=fill(table.get("then", "")),
            alone=table.get("alone", False),
            http2=tuple((fill(name), fill(value)) for name, value in table.get("http2", [])),
            data=fill(table.get("data", "")),
        )


# --- what was answered -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    status: int
    seen: str | None  # X-Seen, from the application
    body: bytes
    closes: bool
    whole: bool = True

    @property
    def request(self) -> Any:
        """What the application saw, as a dict; None when it did not answer itself."""
        try:
            return json.loads(self.body) if self.seen is not None and self.body else None
        except ValueError:
            return None

    @property
    def number(self) -> int:
        assert self.seen is not None
        return int(self.seen.split()[0])

    @property
    def target(self) -> str | None:
        """Empty for the asterisk-form."""
        if self.seen is None:
            return None
        _, _, rest = self.seen.partition(" ")
        return rest.partition(" ")[2].strip('"')


HEAD = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")


def chunked_body(data: bytes) -> tuple[bytes, bytes]:
    """The body, and what is behind it. Raises IndexError or ValueError when it is not whole."""
    body = b""
    while True:
        line, rest = data.split(b"\r\n", 1)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return body, rest.split(b"\r\n", 1)[1]
        body, data = body + rest[:size], rest[size + 2 :]


def read_answers(data: bytes, ended: bool = True) -> list[Answer]:
    """The final responses of a connection, in order. Behind a 101 nothing is HTTP any more."""
    answers: list[Answer] = []
    while found := HEAD.match(data):
        status, data = int(found[1]), data[found.end() :]
        fields = [
            (name.strip().lower(), value.strip())
            for name, _, value in (line.partition(b":") for line in found[2].split(b"\r\n"))
        ]
        values = dict(fields)
        if status == 101:
            answers.append(Answer(101, None, data, False))
            break
        if status < 200:
            continue
        seen = values[b"x-seen"].decode("latin-1") if b"x-seen" in values else None
        body, whole = b"", True
        if (seen is not None and seen.split()[1] == "HEAD") or status in (204, 304):
            pass
        elif values.get(b"transfer-encoding", b"").lower() == b"chunked":
            try:
                body, data = chunked_body(data)
            except (IndexError, ValueError):
                body, data, whole = data, b"", False
        elif b"content-length" in values:
            size = int(values[b"content-length"])
            body, data = data[:size], data[size:]
            whole = len(body) == size or (
                seen is None and not body
            )  # to HEAD, not by the application
        else:
            body, data, whole = data, b"", ended
        closes = b"close" in values.get(b"connection", b"").lower()
        answers.append(Answer(status, seen, body, closes, whole))
    return answers


# --- the verdict -------------------------------------------------------------------------------------


def judge_connection(record: Recorded, token: str = TOKEN) -> Iterator[str]:
    """What is wrong with a connection between a front end and the server."""
    answers = read_answers(bytes(record.answered), record.ended)
    forwarded = bytes(record.sent).count(
        token.encode()
    )  # later: there may be more of them, but not less
    if len(answers) > forwarded:
        yield f"{len(answers)} responses to {forwarded} requests"
    for at, answer in enumerate(answers):
        request = answer.request
        if request is not None:
            yield from judge_request(request, token)
        elif answer.seen is None and at + 1 < len(answers):
            yield f"something behind a refusal ({answer.status})"


def judge_request(request: dict[str, Any], token: str) -> Iterator[str]:
    what = f"{request['method']} {request['target'][:60]}"
    marks = [value for name, value in request["headers"] if name == "x-front"]
    others = [value for name, value in request["headers"] if name != "x-front"]
    if marks != [token]:
        yield f"{what}: served, but not forwarded by the front end"
    if any(token in text for text in (request["target"], request["body"], *others)):
        yield f"{what}: another request became a part of it"


def is_another(target: str, number: int) -> bool:
    """It is that of another trick. Front ends may have cut off what tells."""
    numbers = re.findall(r"\d{6}", target)
    return bool(numbers) and f"{number:06}" not in numbers


def judge_client(answers: Iterable[Answer], number: int) -> Iterator[str]:
    """What is wrong with the answers that the client got on one connection."""
    told = [answer for answer in answers if answer.seen is not None]
    for answer in told:
        if is_another(answer.target or "", number):
            yield f"the client got the answer to {answer.target}"
    numbers = [answer.number for answer in told]
    if numbers != sorted(set(numbers)):
        yield f"answers in the order {numbers}"


# --- clients -----------------------------------------------------------------------------------------


def receive(sock: socket.socket, seconds: float) -> tuple[bytes, bool]:
    """What comes until nothing has come for so long; whether the other side ended it."""
    data = b""
    sock.settimeout(seconds * SLOWNESS)
    try:
        while piece := sock.recv(65536):
            data += piece
    except TimeoutError:
        return data, False
    except OSError:
        pass
    return data, True


def ask_http1(port: int, trick: Trick, number: int) -> list[Answer]:
    last = "" if trick.alone else LAST
    got = b""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # It may be refused before all is sent.
            if trick.then:
                sock.sendall(trick.bytes(trick.raw, number))
                sock.settimeout(QUIET * SLOWNESS)
                with contextlib.suppress(TimeoutError):
                    got = sock.recv(65536)
                sock.sendall(trick.bytes(trick.then + last, number))
            else:
                sock.sendall(trick.bytes(trick.raw + last, number))
        more, ended = receive(sock, QUIET)
        got += more
        if not ended:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            got += receive(sock, QUIET)[0]
    return read_answers(got)


def ask_http2(port: int, trick: Trick, number: int) -> Iterator[str]:
    """Over HTTP/2 each answer says itself to which request it belongs. What is wrong."""
    fields = [
        (trick.bytes(name, number), trick.bytes(value, number)) for name, value in trick.http2
    ]
    target = f"/after-{number:06}"
    pairs = {":method": "GET", ":scheme": "http", ":authority": "a", ":path": target}
    after = [(name.encode(), value.encode()) for name, value in pairs.items()]
    requests = [(fields, trick.bytes(trick.data, number)), (after, b"")]
    for stream, body in enumerate(http2.ask(port, requests, QUIET * SLOWNESS)):
        try:
            found = json.loads(body or b"")["target"]
        except ValueError:
            continue  # the front end's own answer, or none
        if is_another(found, number) or (found == target) != (stream == 1):
            yield f"request {stream + 1} got the answer to {found}"


def probe(port: int, target: str) -> str | None:
    """An innocent client's request. What is wrong with its answer; a front end's own refusal is repeated."""
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.settimeout(PATIENCE * SLOWNESS)
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            got, _ = receive(sock, PATIENCE)
        answers = read_answers(got)
        if len(answers) > 1:
            return f"{target} got {len(answers)} answers"
        if answers and answers[0].seen is not None:
            found = answers[0].target
            return None if found == target else f"{target} got the answer to {found}"
        if answers and answers[0].status < 500:
            return f"{target} got a {answers[0].status}"
    return f"{target} got no answer"


# --- a whole run -------------------------------------------------------------------------------------


class Target(Protocol):
    """A front end that runs."""

    port: int
    http2: int | None  # the port for HTTP/2, if it speaks that

    def restart(self) -> None: ...


@dataclass
class Verdicts:
    held: list[str] = field(default_factory=list)  # it reached the server, and came to nothing
    refused_by_server: list[str] = field(default_factory=list)  # of them
    refused_by_front: list[str] = field(default_factory=list)
    lost: dict[str, list[str]] = field(default_factory=dict)  # what was wrong
    died: list[str] = field(default_factory=list)  # the front end did not survive it

    @property
    def cases(self) -> int:
        return len(self.held) + len(self.refused_by_front) + len(self.lost)


def attack(front: Target, trick: Trick, number: int) -> Iterator[str]:
    """Plays the trick, and asks as others do. What is wrong with the answers."""
    if trick.http2:
        assert front.http2 is not None
        yield from ask_http2(front.http2, trick, number)
    else:
        yield from judge_client(ask_http1(front.port, trick, number), number)
    yield from filter(None, [probe(front.port, f"/probe-{number:06}-{n}") for n in (1, 2)])


def run(tricks: Iterable[Trick], front: Target, connections: list[Recorded]) -> Verdicts:
    """``connections`` are those of the front end's relay. HTTP/2 only where it is spoken."""
    verdicts = Verdicts()
    wrong: set[int] = set()  # connections; what follows on them is wrong anyway
    for number, trick in enumerate(tricks, 1):
        if trick.http2 and front.http2 is None:
            continue
        before = {id(one): len(one.sent) for one in connections}
        problems: list[str] = []
        try:
            problems += attack(front, trick, number)
        except ConnectionRefusedError:
            verdicts.died.append(trick.name)
            front.restart()
        recent = [one for one in connections if len(one.sent) > before.get(id(one), 0)]
        for one in recent:
            found = list(judge_connection(one)) if id(one) not in wrong else []
            wrong.update([id(one)] if found else [])
            problems += found
        # The last request alone is no trick.
        arrived = [bytes(one.sent[before.get(id(one), 0) :]) for one in recent]
        mine = re.compile(rb"(?<!/after-)(?<!/probe-)%06d" % number)
        if problems:
            verdicts.lost[trick.name] = problems
        elif not any(mine.search(sent) for sent in arrived):
            verdicts.refused_by_front.append(trick.name)
        else:
            verdicts.held.append(trick.name)
            last = [read_answers(bytes(one.answered), one.ended)[-1:] for one in recent]
            if any(answer and answer[0].seen is None for answer in last):
                verdicts.refused_by_server.append(trick.name)
    late = [p for one in connections if id(one) not in wrong for p in judge_connection(one)]
    if late:
        verdicts.lost["(seen only in the end)"] = late
    return verdicts
