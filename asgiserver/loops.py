"""Choosing the event loop for ASGI."""

import asyncio
from collections.abc import Callable

from .errors import StartError


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop that the option names. Raises StartError where uvloop is wanted but
    missing.
    """
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop  # noqa: PLC0415 (optional)
    except ImportError:
        if name == "uvloop":
            raise StartError("--loop uvloop: it is not installed. pip install uvloop") from None
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """ "uvloop" or "asyncio", or the module of any other loop."""
    return type(loop).__module__.partition(".")[0]
