"""The order in which a supervisor does things, where a client could be lost between two of them."""

from __future__ import annotations

import signal
from typing import Any
from unittest.mock import Mock

import pytest

from asgiserver.config import Config
from asgiserver.process import Process
from asgiserver.roster import Slot, describe_end
from asgiserver.supervisor import Supervisor


@pytest.fixture
def supervisor() -> Any:
    config = Config("app:app")
    made: Any = Supervisor(config, Process(config), lambda: config)
    yield made
    made._free()


def test_lets_go_of_its_sockets_first(supervisor: Any) -> None:
    """Workers accept who has connected before they let go: the last socket must be one of theirs."""
    done = Mock()
    supervisor._generation, supervisor._roster = done.generation, done.roster
    supervisor._roster.workers.return_value = []
    supervisor._stop(signal.SIGTERM)
    names = [name for name, _, _ in done.mock_calls]
    assert names == ["generation.stop_listening", "roster.all_leave"]


@pytest.mark.parametrize(
    ("status", "ready", "text"),
    [
        (3, True, "ended with status 3"),
        (1, False, "ended with status 1 before it was ready"),
        (-signal.SIGKILL, True, "was killed by SIGKILL"),
        (-40, True, "was killed by signal 40"),  # a real-time one has no name
    ],
)
def test_how_a_worker_ended(status: int, ready: bool, text: str) -> None:
    assert describe_end(Mock(ready=ready, hung=False), status) == text


def test_a_worker_that_lived_long_is_replaced_at_once() -> None:
    slot = Slot(0)
    slot.count_end(Mock(ready=True, began=100.0), 105.0)
    assert slot.backoff.at > 105.0
    slot.count_end(Mock(ready=True, began=100.0), 1000.0)
    assert slot.backoff.at <= 1000.0
