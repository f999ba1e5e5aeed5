"""Servers of applications that several files of tests ask: the probes (tests/apps/probe_asgi.py, probe_wsgi.py)
and the rules of WSGI (wsgi_spec.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.server import Server

Factory = Callable[..., Server]


@pytest.fixture
def probe(shared: Factory, backend: Any) -> Server:
    """The probe application over the backend, with default options."""
    return shared(f"probe_{backend.interface}:app", **backend.options)


@pytest.fixture
def log_probe(shared: Factory, backend: Any) -> Server:
    """The same for tests that look at lines about refused requests, whose rate is limited: no other
    test's requests use that up.
    """
    return shared(f"probe_{backend.interface}:app", "--access-log", **backend.options)


@pytest.fixture
def asgi_probe(shared: Factory, loop: str) -> Server:
    return shared("probe_asgi:app", interface="asgi", loop=loop)


@pytest.fixture
def with_options(serve: Factory, backend: Any) -> Callable[..., Server]:
    """A fresh server over the backend with the given options."""
    return lambda *args, **options: serve(
        f"probe_{backend.interface}:app", *args, **backend.options, **options
    )


@pytest.fixture(params=[None, 4], ids=["inline", "threads"])
def threads(request: pytest.FixtureRequest) -> int | None:
    """Every rule holds in each mode."""
    found: int | None = request.param
    return found


@pytest.fixture
def wsgi_rules(shared: Factory, threads: int | None) -> Server:
    return shared("wsgi_spec:app", interface="wsgi", threads=threads)
