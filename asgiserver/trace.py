"""``--log-level trace``: every ASGI message in the log, bodies by their size."""

import logging
from typing import Any

from .interface import ASGI3Application, Receive, Scope, Send
from .logs import TRACE

logger = logging.getLogger("asgiserver.asgi")


def _short(message: Any) -> dict[str, Any]:
    shown = {key: message[key] for key in message if key not in ("headers", "state")}
    for key in ("body", "bytes"):
        if isinstance(shown.get(key), bytes):
            shown[key] = f"<{len(shown[key])} bytes>"
    if isinstance(shown.get("text"), str):
        shown["text"] = f"<{len(shown['text'])} characters>"
    return shown


def trace(app: ASGI3Application) -> ASGI3Application:
    """``app`` with a line for each call, message and end."""
    count = 0

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        count += 1
        number = count

        async def traced_receive() -> dict[str, Any]:
            message = await receive()
            logger.log(TRACE, "[%d] receive %s", number, _short(message))
            return message

        async def traced_send(message: dict[str, Any]) -> None:
            logger.log(TRACE, "[%d] send %s", number, _short(message))
            await send(message)

        logger.log(TRACE, "[%d] started %s", number, _short(scope))
        try:
            await app(scope, traced_receive, traced_send)
        except BaseException as error:
            logger.log(TRACE, "[%d] raised %r", number, error)
            raise
        logger.log(TRACE, "[%d] finished", number)

    return traced
