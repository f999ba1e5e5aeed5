"""What the process around a server wants to hear from it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import _core


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Service:
    """Callbacks, all on the thread that serves.

    ``started`` when clients can connect; ``stopping`` when it is told to end; ``tick`` every
    ``interval`` seconds as long as the loop goes round, which it does not while an application
    blocks it; ``exhausted`` once, when ``max_requests`` requests were seen (0: never). ``idle``:
    seconds that idle connections have for another request when the server retires; None: as many as
    at other times. ``opened`` and ``closing`` get the core, whose figures are of use between them.
    """

    started: Callable[[], None] = _nothing
    tick: Callable[[], None] | None = None
    interval: float = 1.0
    max_requests: int = 0
    stopping: Callable[[], None] = _nothing
    exhausted: Callable[[], None] = _nothing
    idle: float | None = None
    opened: "Callable[[_core.Server], None]" = _nothing
    closing: "Callable[[_core.Server], None]" = _nothing

    def followed_by(self, action: Callable[[], None]) -> "Service":
        """The same with something that is done last at the start."""
        started = self.started

        def both() -> None:
            started()
            action()

        return replace(self, started=both)

    def patience(self, keep_alive: float) -> float:
        """``idle``, where the usual time is ``keep_alive``."""
        return keep_alive if self.idle is None else self.idle
