"""Functions that take what a configuration takes."""

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

P = ParamSpec("P")


def settings_of(
    config: Callable[P, object],
) -> Callable[[Callable[..., None]], Callable[P, None]]:
    """Gives a function the parameters of a configuration, for type checkers and ``help()``."""

    def decorate(function: Callable[..., None]) -> Callable[P, None]:
        signature = inspect.signature(config).replace(return_annotation=None)
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return decorate


def made_with(
    _config: Callable[P, object],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """The same for a method."""
    return lambda method: method
