"""Importing the application once for all workers (``--preload``).

A process of its own, the nursery, imports the application and forks the workers, which then share
the memory of what was imported. The supervisor stays free of the application: a reload gets a new
nursery with new code, and nothing that the application does can harm it.

A worker's parent must be the supervisor, which waits for it. Therefore the nursery forks twice: the
process in between ends at once, and its child is handed on to the nearest ancestor that has asked
for orphans, which is the supervisor.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import struct
from dataclasses import replace

from . import logs
from .application import load
from .errors import StartError
from .worker import Child, Job, run

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_PATIENCE = 5.0  # seconds to fork a worker
_FAREWELL = 1.0  # seconds to let go of the sockets
_LOADED = b"L"
_ORDER = struct.Struct("=ii")  # slot, announce
_ANSWER = struct.Struct("=i")  # process id


GONE = "the process that imported the application has died"


class Nursery:
    """The supervisor's side. Its descriptor is readable when the application is imported, and when
    the process has died."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid, self._channel = pid, channel
        self._process = os.pidfd_open(pid)  # the id itself may be another's, once it was waited for
        self.ready = False
        channel.settimeout(_PATIENCE)

    def fileno(self) -> int:
        return self._channel.fileno()

    def read(self) -> bool:
        """Whether the application is imported; False when the process has died."""
        try:
            self.ready = self._channel.recv(len(_LOADED)) == _LOADED
        except OSError:
            self.ready = False
        return self.ready

    def spawn(self, job: Job) -> int:
        """The new worker's process id. Raises OSError when the nursery has died, or hangs."""
        self.ready = False
        socket.send_fds(self._channel, [_ORDER.pack(job.slot, job.announce)], [job.pipe])
        answer = self._channel.recv(_ANSWER.size)
        if len(answer) != _ANSWER.size:
            raise ConnectionError(GONE)
        self.ready = True
        pid: int = _ANSWER.unpack(answer)[0]
        return pid

    def finish(self) -> None:
        """There are no more orders: it lets go of the sockets. Idempotent.

        That is waited for, while workers still accept: who connects when nobody but the nursery has
        the sockets would be reset in the end.
        """
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        if not self.ready:  # it is importing, and hears nothing
            self._kill(signal.SIGTERM)
        select.select([self._channel], [], [], _FAREWELL)

    def close(self, patience: float = 0.0) -> None:
        """The nursery ends by itself, at once if it is still importing; after so many seconds
        nothing is left of it, where they are given."""
        self._channel.close()
        if not self.ready:
            self._kill(signal.SIGTERM)
        if patience and not select.select([self._process], [], [], patience)[0]:
            self._kill(signal.SIGKILL)
        os.close(self._process)

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    def forget(self) -> None:
        """In another process: frees the descriptors."""
        self._channel.close()
        os.close(self._process)


def start(job: Job) -> Nursery:
    """Imports the application in a process of its own; ``job`` is what all workers have in common.

    Raises OSError, and ``Child`` in the new processes.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        here.close()
        raise Child(lambda: _nurse(job, there), job.listeners)
    there.close()
    return Nursery(pid, here)


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
    with contextlib.suppress(ConnectionError):
        channel.sendall(_LOADED)
        while True:
            order, descriptors, _, _ = socket.recv_fds(channel, _ORDER.size, 1)
            if not order:
                break
            slot, announce = _ORDER.unpack(order)
            pipe = descriptors[0]
            one = replace(job, slot=slot, announce=announce, pipe=pipe, application=application)
            _fork_twice(one, channel)
            os.close(pipe)
    # At once, though threads of the application may delay the end.
    job.listeners.stop()
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_WR)
    return 0  # the supervisor has got another one, or stops, or is gone


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
            raise Child(lambda: run(job), job.listeners)
        channel.sendall(_ANSWER.pack(pid))
        os._exit(0)
    os.close(gate)
    os.waitpid(between, 0)
    os.close(key)
