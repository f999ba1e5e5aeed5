"""What to say when someone types another server's option, or one that does not exist yet."""

from difflib import get_close_matches

_NOT_YET = "is not supported yet"
_ONE_PROCESS = f"{_NOT_YET}: asgiserver serves from one process"
_TLS = f"{_NOT_YET}: put a TLS proxy such as nginx or HAProxy in front"
_WEBSOCKET = f"{_NOT_YET}: there are no WebSockets so far"
_LOG_FORMAT = f"{_NOT_YET}; the logger asgiserver.access has all fields (--log-config)"

# By uvicorn's, gunicorn's, granian's or hypercorn's spelling.
_HINTS = {
    "--bind": "is spelled --host ADDRESS --port N, --uds PATH or --fd N here",
    "-b": "is spelled --host ADDRESS --port N, --uds PATH or --fd N here",
    "-p": "is spelled --port here",
    "--workers": _ONE_PROCESS,
    "-w": _ONE_PROCESS,
    "--threads": f"{_NOT_YET}: WSGI applications run one request at a time",
    "--blocking-threads": f"{_NOT_YET}: WSGI applications run one request at a time",
    "--worker-class": "is not needed: --interface auto finds out what the application speaks",
    "-k": "is not needed: --interface auto finds out what the application speaks",
    "--http": "is not needed: HTTP/1.1 has one implementation here",
    "--http2": f"{_NOT_YET}: put a proxy that speaks HTTP/2 in front",
    "--timeout": f"(a watchdog for workers) {_NOT_YET}; see --timeout-request-body, "
    "--timeout-write and --timeout-graceful-shutdown",
    "-t": f"(a watchdog for workers) {_NOT_YET}",
    "--graceful-timeout": "is spelled --timeout-graceful-shutdown here",
    "--workers-kill-timeout": "is spelled --timeout-graceful-shutdown here",
    "--keep-alive": "is spelled --timeout-keep-alive here",
    "--keepalive": "is spelled --timeout-keep-alive here",
    "--reload": _NOT_YET,
    "--max-requests": _ONE_PROCESS,
    "--max-requests-jitter": _ONE_PROCESS,
    "--limit-max-requests": _ONE_PROCESS,
    "--limit-max-requests-jitter": _ONE_PROCESS,
    "--preload": _ONE_PROCESS,
    "--proxy-allow-from": "is spelled --forwarded-allow-ips here",
    "--certfile": _TLS,
    "--keyfile": _TLS,
    "--ws": _WEBSOCKET,
    "--websockets": _WEBSOCKET,
    "--chdir": "is spelled --app-dir here",
    "--working-dir": "is spelled --app-dir here",
    "--env": "is spelled --env-file FILE here; or set it in the environment",
    "--log-file": "is not needed: errors go to the standard error output; or use --log-config",
    "--access-logfile": "is spelled --access-log here, and goes to the standard output; "
    "or use --log-config",
    "--error-logfile": "is not needed: errors go to the standard error output; or use --log-config",
    "--access-log-format": _LOG_FORMAT,
    "--access-logformat": _LOG_FORMAT,
    "--config": f"{_NOT_YET}: use options or ASGISERVER_… variables",
    "-c": f"{_NOT_YET}: use options or ASGISERVER_… variables",
    "--worker-connections": "is spelled --limit-connections here",
    "--backpressure": "is spelled --limit-concurrency here",
    "--limit-request-field-size": "is spelled --limit-request-head here (for all fields together)",
    "--limit-request-field_size": "is spelled --limit-request-head here (for all fields together)",
    "--limit-request-header-size": "is spelled --limit-request-head here (for all fields together)",
    "--h11-max-incomplete-event-size": "is spelled --limit-request-head here",
    "--reset-contextvars": "is not needed: every request has a context of its own",
    "--url-path-prefix": "is spelled --root-path here",
    "--umask": "is spelled --uds-mode here, for the Unix socket",
    "-m": "is spelled --uds-mode here, for the Unix socket",
    "--uds-permissions": "is spelled --uds-mode here",
    "--daemon": "is left to the service manager (systemd, a container)",
    "-D": "is left to the service manager (systemd, a container)",
    "--pid": f"{_NOT_YET}; a service manager knows the process",
    "--user": "is left to the service manager (systemd, a container)",
    "-u": "is left to the service manager (systemd, a container)",
    "--group": "is left to the service manager (systemd, a container)",
}

# Whole families.
_PREFIXES = {
    "--ssl-": _TLS,
    "--reload-": _NOT_YET,
    "--ws-": _WEBSOCKET,
    "--timeout-worker-": _ONE_PROCESS,
    "--http2-": f"{_NOT_YET}: put a proxy that speaks HTTP/2 in front",
}


def hint(word: str) -> str | None:
    """What ``word`` (an option as it was typed, without its value) is here; None when it is
    unknown.
    """
    if word in _HINTS:
        return f"{word} {_HINTS[word]}."
    for prefix, text in _PREFIXES.items():
        if word.startswith(prefix):
            return f"{word} {text}."
    return None


def did_you_mean(word: str, known: list[str], prefix: str = "") -> str:
    """`` Did you mean x?`` with the nearest of ``known`` behind ``prefix``, or nothing."""
    near = get_close_matches(word, known, n=1)
    return f" Did you mean {prefix}{near[0]}?" if near else ""
