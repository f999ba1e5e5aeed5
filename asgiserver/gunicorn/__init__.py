"""Worker classes for gunicorn: ``gunicorn -k asgiserver.gunicorn.ASGIWorker module:app``.

gunicorn's master binds, forks, watches, reloads and logs as it always does; in its workers, the
core of this package serves. docs/gunicorn.md tells what becomes of each of gunicorn's settings.
"""

from .workers import ASGIWorker, WSGIWorker

__all__ = ["ASGIWorker", "WSGIWorker"]
