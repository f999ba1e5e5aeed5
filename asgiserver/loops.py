"""Choosing the event loop for ASGI."""

import asyncio
from collections.abc import Callable

from . import logs
from .errors import StartError

_PATIENCE = 5.0  # seconds for the application's tasks to end, once they are cancelled


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


def close(runner: asyncio.Runner) -> None:
    """As ``Runner.close``, which would wait for ever for a task that is not to be cancelled."""
    if runner.run(_cancel_all()):
        runner.close()
    else:
        runner.get_loop().close()


async def _cancel_all() -> bool:
    """Whether all tasks of the loop but this one have ended."""
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    if running:
        _, running = await asyncio.wait(running, timeout=_PATIENCE)
    if running:
        logs.error.warning("Tasks that resist being cancelled: %d", len(running))
    return not running


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """ "uvloop" or "asyncio", or the module of any other loop."""
    return type(loop).__module__.partition(".")[0]
