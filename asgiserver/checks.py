"""What can be found wrong before anything is bound, forked or imported."""

from . import importer, logs, tls, watch
from .application import Application, load
from .config import Config
from .errors import StartError


def check_files(config: Config) -> None:
    """Raises StartError for what can be seen without binding anything or running the application:
    files and folders that are missing or cannot be read, libraries that are not installed.
    """
    if config.env_file is not None:
        importer.check_env_file(config.env_file)
    if isinstance(config.log_config, str):
        importer.check_readable("--log-config", config.log_config)
    importer.check_folder(config.app_dir)
    if config.reload:
        watch.check(config)


def check(config: Config) -> Application:
    """Everything up to the application's import that binds nothing. Raises StartError."""
    check_files(config)
    logs.configure(config)
    check_core()
    tls.load(config, tls.new_ticket_key())
    return load(config)


def check_core() -> None:
    """Raises StartError where the C core is not built, or not for this Python."""
    try:
        from . import _core  # noqa: F401, PLC0415
    except ImportError as error:
        raise StartError(
            f"The C core of asgiserver cannot be loaded ({error}). Install asgiserver again."
        ) from None
