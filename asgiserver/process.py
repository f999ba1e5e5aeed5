"""What belongs to the process as a whole: its user, its file mode mask, its pid file, its exit status,
and the service manager above it.
"""

import contextlib
import dataclasses
import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable
from types import TracebackType

from . import logs, notify, sockets
from .config import Config
from .errors import StartError
from .options import BY_NAME
from .service import Service
from .sockets import Listeners
from .stop import Interrupted


class Process:
    """Makes its checks when it is made, before anything is bound or forked. Close it in the end.

    Raises StartError.
    """

    def __init__(self, config: Config) -> None:
        self._identity = _identity(config)
        self._pid_file = _PidFile(config.pid) if config.pid is not None else None
        self._mask = os.umask(config.umask) if config.umask is not None else None
        self._passed = notify.passed_descriptors()
        self._owner = os.getpid()

    def bind(self, config: Config, workers: int = 1, present: Listeners | None = None) -> Listeners:
        """The listening sockets, and then the pid file. Raises StartError."""
        if self._passed and not (config.bind or config.uds is not None or config.fd is not None):
            # In place of host and port, which may be set for a start without a service manager.
            config = dataclasses.replace(
                config,
                bind=[f"fd://{number}" for number in self._passed],
                host=BY_NAME["host"].default,
                port=BY_NAME["port"].default,
            )
        listeners = sockets.bind(config, workers, present)
        try:
            self._give_away(listeners.paths)
            if self._pid_file is not None:
                self._pid_file.write()
        except BaseException:
            listeners.close(but=present)
            raise
        return listeners

    def _give_away(self, paths: list[str]) -> None:
        """Unix sockets belong to the user that will serve."""
        if self._identity is not None:
            for path in paths:
                os.chown(path, self._identity.user, self._identity.group)

    def service(self) -> Service:
        """What the service manager wants to hear from a server that is alone in this process."""
        interval = notify.watchdog_interval()
        return Service(
            started=lambda: notify.ready("serving"),
            stopping=notify.stopping,
            tick=notify.alive if interval is not None else None,
            interval=interval or 1.0,
        )

    def drop_privileges(self) -> None:
        """Becomes the user and the group of the options. Raises StartError."""
        if self._identity is not None:
            self._identity.assume()

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if os.getpid() != self._owner:
            return  # a worker, which was forked in between
        if self._pid_file is not None:
            self._pid_file.remove()
        if self._mask is not None:
            os.umask(self._mask)


# --- user and group ---


@dataclasses.dataclass(frozen=True, slots=True)
class _Identity:
    user: int
    group: int
    name: str | None  # of the user, where there is one: its further groups are taken on too

    def assume(self) -> None:
        if (self.user, self.group) == (os.geteuid(), os.getegid()):
            return
        try:
            if self.name is not None:
                os.initgroups(self.name, self.group)
            else:
                os.setgroups([self.group])
            os.setgid(self.group)
            os.setuid(self.user)
        except PermissionError:
            raise StartError(_NO_RIGHT) from None


_NO_RIGHT = "--user, --group: only root can become another user."


def _identity(config: Config) -> _Identity | None:
    if config.user is None and config.group is None:
        return None
    entry = _user(config.user) if config.user is not None else None
    user = os.geteuid() if entry is None else entry[0]
    group = os.getegid() if entry is None else entry[1]
    if config.group is not None:
        group = _group(config.group)
    if os.geteuid() != 0 and (user, group) != (os.geteuid(), os.getegid()):
        raise StartError(_NO_RIGHT)
    return _Identity(user, group, entry[2] if entry is not None else None)


def _user(text: str) -> tuple[int, int, str | None]:
    """Number, usual group, and name."""
    try:
        found = pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
    except KeyError:
        if text.isdigit():
            return int(text), os.getegid(), None  # as containers have them
        raise StartError(f"--user {text}: there is no such user.") from None
    return found.pw_uid, found.pw_gid, found.pw_name


def _group(text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise StartError(f"--group {text}: there is no such group.") from None


# --- the pid file ---


class _PidFile:
    """A file with this process's id. One that a dead process left is replaced, that of a living one
    is an error."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._shown = path
        self._written = False
        folder = os.path.dirname(self._path)
        if not os.path.isdir(folder):
            raise StartError(f"--pid {path}: there is no folder {folder}.")
        self._check_free()

    def write(self) -> None:
        if self._written:
            return
        self._check_free()
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            # Not through a link, nor into a file that somebody was quicker to put there.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fill(os.open(self._path, flags, 0o644))
        except OSError as error:
            raise StartError(f"--pid {self._shown}: {error.strerror or error}.") from None
        self._written = True

    def _fill(self, descriptor: int) -> None:
        """Closes it. A file that says nothing, on a full disk, does not stay."""
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{os.getpid()}\n")
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            raise

    def remove(self) -> None:
        if self._written and self._read() == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _check_free(self) -> None:
        pid = self._read()
        if pid is not None and pid != os.getpid() and _lives(pid):
            raise StartError(f"--pid {self._shown}: process {pid} has written it, and runs.")

    def _read(self) -> int | None:
        """Whose it is; None for no file, and for one without a number, which is replaced."""
        try:
            # Neither a link is followed, nor does a pipe keep us waiting.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, encoding="ascii", errors="replace") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise StartError(f"--pid {self._shown}: it is no regular file.")
                text = file.read(32).strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StartError(f"--pid {self._shown}: the file is a symbolic link.") from None
            raise StartError(f"--pid {self._shown}: {error.strerror or error}.") from None
        if text and not text.isdigit():
            raise StartError(f"--pid {self._shown}: the file exists and holds no process id.")
        return int(text) if text else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def exit_status(serve: Callable[[], int]) -> int:
    """What a process ends with: ``serve``'s result, or what stands for why it did not start, which
    is logged.
    """
    try:
        return serve()
    except StartError as problem:
        logs.report(problem)
        return problem.exit_code
    except Interrupted as interrupted:
        return interrupted.exit_code
