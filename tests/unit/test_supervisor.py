"""The order in which a supervisor does things, where a client could be lost between two of them."""

from __future__ import annotations

import signal
from typing import Any
from unittest.mock import Mock

import pytest

from asgiserver.config import Config
from asgiserver.process import Process
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
