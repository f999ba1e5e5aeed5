"""Importing the application once for all workers (``--preload``).

A process of its own, the nursery, imports the application and forks the workers, which then share
the memory of what was imported. The supervisor stays free of the application: a reload gets a new
nursery with new code, and nothing that the application does can harm it.

A worker's parent must be the supervisor, which waits for it. Therefore the nursery forks twice: the
process in between ends at once, and its child is handed on to the nearest ancestor that has asked
for orphans, which is the supervisor.
"""

import ctypes
import gc
import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import replace

from . import logs
from .errors import StartError
from .server import load
from .worker import Child, Job

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_LOADED = b"L"
_ORDER = struct.Struct("=ii")  # slot, announce
_ANSWER = struct.Struct("=i")  # process id


class Nursery:
    """The supervisor's side."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid, self._channel = pid, channel

    def spawn(self, job: Job) -> int:
        """The new worker's process id. Raises OSError when the nursery has died."""
        socket.send_fds(self._channel, [_ORDER.pack(job.slot, job.announce)], [job.pipe])
        answer = self._channel.recv(_ANSWER.size)
        if len(answer) != _ANSWER.size:
            raise ConnectionError("the process that imported the application has died")
        pid: int = _ANSWER.unpack(answer)[0]
        return pid

    def close(self) -> None:
        """The nursery ends by itself. Idempotent."""
        self._channel.close()


def start(job: Job, wait: Callable[[socket.socket], bool]) -> Nursery:
    """Imports the application in a process of its own; ``job`` is what all workers have in common.

    ``wait(sock)`` returns when the socket is readable; False: the import is to be given up. Raises
    StartError, ``Child`` in the new processes.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        here.close()
        raise Child(lambda: _nurse(job, there))
    there.close()
    if not wait(here):
        os.kill(pid, signal.SIGTERM)
    elif here.recv(len(_LOADED)) == _LOADED:
        return Nursery(pid, here)
    here.close()
    raise StartError("The application cannot be imported; see above.")


def _nurse(job: Job, channel: socket.socket) -> int:
    """Imports the application, then forks a worker for each order. In a process of its own."""
    signal.signal(signal.SIGINT, lambda *_: None)  # CTRL+C reaches all in the terminal
    try:
        application = load(job.config)
    except StartError as problem:
        logs.report(problem)
        return problem.exit_code
    gc.collect()
    gc.freeze()  # a collection in a worker would otherwise write to what is shared
    channel.sendall(_LOADED)
    while True:
        order, descriptors, _, _ = socket.recv_fds(channel, _ORDER.size, 1)
        if not order:
            return 0  # the supervisor has got another one, or is gone
        slot, announce = _ORDER.unpack(order)
        pipe = descriptors[0]
        one = replace(job, slot=slot, announce=announce, pipe=pipe, application=application)
        _fork_twice(one, channel)
        os.close(pipe)


def _fork_twice(job: Job, channel: socket.socket) -> None:
    """Raises ``Child`` in the worker."""
    gate, key = os.pipe()  # the worker waits until it is the supervisor's child
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            os.close(key)
            os.read(gate, 1)
            os.close(gate)
            channel.close()
            raise Child(job)
        channel.sendall(_ANSWER.pack(pid))
        os._exit(0)
    os.close(gate)
    os.waitpid(between, 0)
    os.close(key)
