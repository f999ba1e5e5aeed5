"""What a signal asks for (asgiserver/stop.py), where no server is."""

from __future__ import annotations

import signal
import sys

import pytest

from asgiserver.stop import Level, StopRequest


def test_an_interruption_that_is_swallowed_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a callback within an import, say: Python would report it, and the level stays."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Late:
        def __init__(self, number: int) -> None:
            self.number = number

        def __del__(self) -> None:
            if not self.number:
                raise ValueError
            signal.raise_signal(self.number)

    request = StopRequest()
    with request.on_signals():
        Late(signal.SIGTERM)
        assert request.level == Level.DRAIN
        assert told == []
        Late(0)
        assert len(told) == 1  # others are
    Late(0)
    assert len(told) == 2
