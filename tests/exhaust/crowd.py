"""The attackers of one attack, in a process of their own.

    PYTHONPATH=tests python -m exhaust.crowd NAME PORT CONNECTIONS SECONDS [CPU …]

Writes what became of them as JSON: how many were opened and ended by the server, how long the oldest one lived,
how late this process was, and the statuses of the answers.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from exhaust.attacks import BY_NAME, Attack
from support.tls_records import Records

ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
RESET = struct.pack("ii", 1, 0)
CONNECTS = 64  # before others have their turn
FLOOD = 500  # records at once, which take a while to make
VERSIONS = {
    "renegotiation": ssl.TLSVersion.TLSv1_2,
    "key_update": ssl.TLSVersion.TLSv1_3,
}
PATIENCE = 20.0  # seconds
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass
class Member:
    sock: socket.socket
    opened: float
    rest: bytes  # of what is being sent
    next: float  # when it drips, or reads
    head: bytes = b""  # the beginning of what came
    told: bool = False  # its status is counted
    flood: Callable[[], bytes] | None = None


@dataclass
class Crowd:
    attack: Attack
    port: int
    size: int
    members: dict[int, Member] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    ended: int = 0
    longest: float = 0.0
    late: float = 0.0  # seconds of its slowest turn

    def run(self, seconds: float) -> None:
        self.poll = select.epoll()
        until = time.monotonic() + seconds
        while self.goes_on(now := time.monotonic(), until):
            for _ in range(min(CONNECTS, self.size - len(self.members))):
                if self.attack.flood:
                    self.open_flood()
                    break  # a handshake takes its time
                self.open(now)
            for number, events in self.poll.poll(0.02):
                member = self.members.get(number)
                if member is not None:
                    self.handle(member, events)
            if self.attack.every > 0:
                self.drip(time.monotonic())
            self.late = max(self.late, time.monotonic() - now)
        now = time.monotonic()
        for member in list(self.members.values()):
            self.forget(member, now)

    def goes_on(self, now: float, until: float) -> bool:
        """On a machine that is busy it takes longer until the first answer is there."""
        answered = self.attack.status is None or bool(self.statuses)
        return now < until or (not answered and now < until + PATIENCE)

    # --- a connection ---

    def open(self, now: float) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        if self.attack.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.attack.receive_buffer)
        sock.connect_ex(("127.0.0.1", self.port))
        self.opened += 1
        member = Member(sock, now, self.attack.opening, now + self.attack.every)
        self.members[sock.fileno()] = member
        self.poll.register(sock, self.interest(member))

    def open_flood(self) -> None:
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self.opened += 1
        try:
            records = Records(sock, VERSIONS[self.attack.flood])
        except OSError:  # refused, or an error of TLS
            sock.close()
            return
        sock.setblocking(False)
        make = getattr(records, self.attack.flood)
        member = Member(sock, time.monotonic(), b"", 0.0)
        member.flood = lambda: b"".join(make() for _ in range(FLOOD))
        self.members[sock.fileno()] = member
        self.poll.register(sock, self.interest(member))

    def interest(self, member: Member) -> int:
        attack = self.attack
        reading = attack.reads is not None and not attack.paced
        more = attack.drip or attack.flood
        writing = member.rest or attack.leaves == "at once" or (more and attack.every == 0)
        return select.EPOLLRDHUP | select.EPOLLIN * reading | select.EPOLLOUT * bool(writing)

    def handle(self, member: Member, events: int) -> None:
        if events & select.EPOLLIN and self.attack.reads is not None:
            self.read(member, self.attack.reads)
        if member.sock.fileno() < 0:
            return
        if events & ENDED:
            self.end(member)
        elif events & select.EPOLLOUT:
            self.write(member)

    def read(self, member: Member, n: int) -> None:
        try:
            data = member.sock.recv(n)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not member.told and len(member.head) < 64:
            member.head += data
            self.look(member)
        if not data:
            self.end(member)
        elif self.attack.leaves == "answered":
            self.forget(member, time.monotonic())

    def look(self, member: Member) -> None:
        if found := STATUS.match(member.head):
            member.told = True
            self.statuses[found[1].decode()] += 1

    def write(self, member: Member) -> None:
        if self.attack.leaves == "at once":
            if self.opened % 2:
                member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.forget(member, time.monotonic())
            return
        if not member.rest and self.attack.every == 0:
            member.rest = member.flood() if member.flood is not None else self.attack.drip
        self.send(member)
        if member.sock.fileno() >= 0:
            self.poll.modify(member.sock, self.interest(member))

    def send(self, member: Member) -> None:
        try:
            n = member.sock.send(member.rest)
        except BlockingIOError:
            return
        except OSError:
            self.end(member)
            return
        member.rest = member.rest[n:]

    def drip(self, now: float) -> None:
        for member in list(self.members.values()):
            if now < member.next:
                continue
            member.next = now + self.attack.every
            if self.attack.paced and self.attack.reads is not None:
                self.read(member, self.attack.reads)
            elif not member.rest:
                member.rest = self.attack.drip
                self.send(member)

    def end(self, member: Member) -> None:
        """The server has ended it."""
        self.ended += 1
        self.forget(member, time.monotonic())

    def forget(self, member: Member, now: float) -> None:
        self.longest = max(self.longest, now - member.opened)
        del self.members[member.sock.fileno()]
        member.sock.close()


def main(name: str, port: str, size: str, seconds: str, *cpus: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if cpus:
        os.sched_setaffinity(0, map(int, cpus))
    os.nice(5)  # the well-behaved client is not to wait for them
    crowd = Crowd(BY_NAME[name], int(port), int(size))
    crowd.run(float(seconds))
    told = {key: getattr(crowd, key) for key in ("opened", "ended", "longest", "late", "statuses")}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
