"""What ends a start: one line, an exit status, and the application's own exception."""

START_FAILED = 1
USAGE = 2  # click's own
LIFESPAN_FAILED = 3


class StartError(Exception):
    """The server cannot start.

    ``str()`` is one line that says what is wrong and what helps. ``exit_code`` is the status that
    the process ends with. ``cause`` is the exception that the application itself raised, with the
    frames of the import machinery and of this package left out of its traceback; None when the
    application is not at fault.
    """

    def __init__(
        self, message: str, *, exit_code: int = START_FAILED, cause: BaseException | None = None
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.cause = cause
