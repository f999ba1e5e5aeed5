"""The loggers, and the level below debug."""

import logging

TRACE = 5

error = logging.getLogger("asgiserver.error")
access = logging.getLogger("asgiserver.access")
asgi = logging.getLogger("asgiserver.asgi")
parent = logging.getLogger("asgiserver")
