"""What the service manager's environment says."""

from __future__ import annotations

import os

import pytest

from asgiserver import notify
from asgiserver.errors import StartError


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("600000", None, 0.3),  # twice in its time, as sd_watchdog_enabled(3) advises
        ("600000", "me", 0.3),
        ("600000", "1", None),  # another process is watched
        (None, None, None),
        ("0", None, None),
        ("-1", None, None),
        ("soon", None, None),
    ],
)
def test_watchdog_interval(monkeypatch, microseconds, pid, seconds):
    for name, value in {"WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "me" else value)
    assert notify.watchdog_interval() == seconds


def test_passed_descriptors_that_are_no_number(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "many")
    with pytest.raises(StartError, match="LISTEN_FDS=many in the environment is not a number"):
        notify.passed_descriptors()
    assert "LISTEN_FDS" not in os.environ
