"""What is served: the application that a configuration names, imported or made."""

from dataclasses import dataclass
from typing import Any

from . import importer, interface, logs
from .config import Config
from .errors import USAGE, StartError
from .interface import TITLES, Interface


@dataclass(frozen=True, slots=True)
class Application:
    """What is served."""

    app: Any
    name: str
    interface: Interface


def load(config: Config) -> Application:
    """Imports the application that ``config`` names, or makes it. Raises StartError."""
    if config.env_file is not None:
        importer.load_env_file(config.env_file)
    if config.app is None or isinstance(config.app, str):
        app, name = importer.load(config.app, config.app_dir)
    else:
        app, name = config.app, _name(config.app)
    if config.factory:
        app = importer.call_factory(app, name)
    elif interface.is_factory(app):
        logs.error.warning("%s is a factory, and was called; say so with --factory.", name)
        app = importer.call_factory(app, name)
    importer.check_callable(app, name)
    found, warning = interface.resolve(app, config.interface, name)
    if warning:
        logs.error.warning("%s", warning)
    if config.threads and found != "wsgi":
        raise StartError(
            f"--threads: is for WSGI applications; {name} is {TITLES[found]}.", exit_code=USAGE
        )
    return Application(app, name, found)


def _name(app: Any) -> str:
    """What to call an application that was not imported by name."""
    kind = app if hasattr(app, "__qualname__") else type(app)
    return f"{kind.__module__}:{kind.__qualname__}"
