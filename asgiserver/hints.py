"""What to say when someone types another server's option, or one that does not exist yet.

docs/migration.md has the same by server; a test compares the two.
"""

from difflib import get_close_matches

_NOT_YET = "is not supported yet"
_CERTFILE = "is spelled --ssl-certfile here"
_KEYFILE = "is spelled --ssl-keyfile here"
_CA_CERTS = "is spelled --ssl-ca-certs here"
_CERT_REQS = "is spelled --ssl-cert-reqs here"
_TLS_VERSION = "is spelled --ssl-min-version here: TLSv1.2 or TLSv1.3"
_HANDSHAKE = "is not needed: handshakes are made beside other work (--timeout-tls-handshake)"
_HTTP2 = f"{_NOT_YET}: put a proxy that speaks HTTP/2 in front"
_STATIC = "is not a server's task here: let a proxy, or the application, serve files"
_METRICS = f"{_NOT_YET}; the access log has times and sizes (--access-log-format)"
_STATSD = f"{_NOT_YET} on its own; under gunicorn (asgiserver.gunicorn) gunicorn's own works"
_SERVICE = "is left to the service manager (systemd, a container)"
_ONE_PARSER = "is not needed: HTTP/1.1 has one implementation here"
_STRICT = "is refused on purpose: what it lets in is how requests are smuggled"
_INTERFACE = "is not needed: --interface auto finds out what the application speaks"
_ONE_LOOP_THREAD = "is not needed: one thread of each of the --workers does all input and output"
_HEAD = "is spelled --limit-request-head here (for all fields together)"
_GRACE = "is spelled --timeout-graceful-shutdown here"
_KEEP_ALIVE = "is spelled --timeout-keep-alive here"
_HEALTHCHECK = "is spelled --timeout-worker-healthcheck here"
_RSS = "is not needed: every worker's memory is looked at (--limit-max-rss)"
_APP_DIR = "is spelled --app-dir here"
_ERRORS = "is spelled --log-file here"
_ACCESS_FILE = "is spelled --access-log-file here"
_ACCESS_FORMAT = "is spelled --access-log-format here"
_BIND = "is spelled --bind here"
_PREFIX = "is spelled --root-path here"
_PROXIES = "is spelled --forwarded-allow-ips here, one list for both"
_RELOAD_DIR = "is spelled --reload-dir here"
_RELOAD_EXCLUDE = "is spelled --reload-exclude here, with a pattern as the shell has them"
_NO_POLLING = "is not needed: the kernel tells of changes"
_GUNICORN = "is gunicorn's: run gunicorn with asgiserver.gunicorn's workers"

# By uvicorn's, gunicorn's, granian's or hypercorn's spelling.
_HINTS = {
    "-p": "is spelled --port N or --pid FILE here",
    "--insecure-bind": _BIND,
    "--quic-bind": f"{_NOT_YET}: there is no HTTP/3 so far",
    "--uds-permissions": "is spelled --uds-mode here",
    "--worker-class": _INTERFACE,
    "-k": _INTERFACE,
    "--http": _ONE_PARSER,
    "--http-parser": _ONE_PARSER,
    "--protocol": f"{_NOT_YET} (uwsgi): let the proxy speak HTTP",
    "--uwsgi-allow-from": f"{_NOT_YET} (uwsgi): let the proxy speak HTTP",
    "--http2": _HTTP2,
    "--http-protocols": _HTTP2,
    "--blocking-threads": "is spelled --threads here",
    "--blocking-threads-idle-timeout": "is not needed: --threads stay",
    "--task-impl": "is not needed: tasks are asyncio's",
    "--asgi-loop": "is spelled --loop here",
    "--asgi-lifespan": "is spelled --lifespan here",
    "--asgi-disconnect-grace-period": "is spelled --timeout-cancel here",
    "--timeout": "is spelled --timeout-worker-healthcheck here (the watchdog for workers); "
    "see --timeout-request-body and --timeout-write for clients",
    "-t": _HEALTHCHECK,
    "--graceful-timeout": _GRACE,
    "--workers-kill-timeout": _GRACE,
    "--keep-alive": _KEEP_ALIVE,
    "--keepalive": _KEEP_ALIVE,
    "--read-timeout": "is spelled --timeout-request-body here",
    "--max-requests": "is spelled --limit-max-requests here",
    "--max-requests-jitter": "is spelled --limit-max-requests-jitter here",
    "--workers-lifetime": "is spelled --limit-max-age here, in seconds",
    "--workers-max-rss": "is spelled --limit-max-rss here, in bytes",
    "--rss-sample-interval": _RSS,
    "--rss-samples": _RSS,
    "--respawn-failed-workers": "is not needed: a worker that died is replaced",
    "--respawn-interval": "is not needed: a worker that died is replaced, ever later if it dies again",
    "--worker-connections": "is spelled --limit-connections here",
    "--backpressure": "is spelled --limit-concurrency here",
    "--limit-request-field_size": "is spelled --limit-request-field-size here",
    "--limit-request-header-size": _HEAD,
    "--h11-max-incomplete-event-size": "is spelled --limit-request-head here",
    "--http1-buffer-size": "is spelled --limit-pipeline here",
    "--http1-header-read-timeout": "is spelled --timeout-request-head here, in seconds",
    "--http1-keep-alive": _KEEP_ALIVE,
    "--no-http1-keep-alive": "is spelled --timeout-keep-alive 0 here",
    "--http1-pipeline-flush": "is not needed: answers that are ready leave together",
    "--permit-obsolete-folding": _STRICT,
    "--strip-header-spaces": _STRICT,
    "--permit-unconventional-http-method": _STRICT,
    "--permit-unconventional-http-version": _STRICT,
    "--casefold-http-method": _STRICT,
    "--header-map": "is not needed: a field with an underscore in its name never reaches environ",
    "--forwarder-headers": f"{_NOT_YET}; see --forwarded-allow-ips and --root-path",
    "--proxy-allow-from": _PROXIES,
    "--server-name": "is left to a proxy, or to the application (ALLOWED_HOSTS, TrustedHost)",
    "--no-sendfile": "is not needed: where files cannot be sent so, they are read",
    "--reload-delay": _NO_POLLING,
    "--reload-tick": _NO_POLLING,
    "--reload-engine": _NO_POLLING,
    "--reload-paths": _RELOAD_DIR,
    "--reload-extra-file": "is spelled --reload-include here",
    "--reload-ignore-dirs": _RELOAD_EXCLUDE,
    "--reload-ignore-patterns": _RELOAD_EXCLUDE,
    "--reload-ignore-paths": _RELOAD_EXCLUDE,
    "--reload-ignore-worker-failure": "is how --reload is: it waits for the next change",
    "--certfile": _CERTFILE,
    "--ssl-certificate": _CERTFILE,
    "--keyfile": _KEYFILE,
    "--keyfile-password": "is spelled --ssl-keyfile-password here",
    "--ca-certs": _CA_CERTS,
    "--ssl-ca": _CA_CERTS,
    "--cert-reqs": _CERT_REQS,
    "--verify-mode": f"{_CERT_REQS}: none, optional or required",
    "--ssl-client-verify": f"{_CERT_REQS}: required",
    "--no-ssl-client-verify": f"{_CERT_REQS}: none, which is the default",
    "--ciphers": "is spelled --ssl-ciphers here",
    "--ssl-version": _TLS_VERSION,
    "--ssl-protocol-min": _TLS_VERSION,
    "--ssl-crl": f"{_NOT_YET}: give out certificates for a short time instead",
    "--suppress-ragged-eofs": "is not needed: HTTP tells where a message ends",
    "--do-handshake-on-connect": _HANDSHAKE,
    "--no-ws": "is spelled --ws off here",
    "--websocket-max-message-size": "is spelled --ws-max-size here",
    "--websocket-ping-interval": "is spelled --ws-ping-interval here",
    "--chdir": _APP_DIR,
    "--working-dir": _APP_DIR,
    "--pythonpath": "is spelled PYTHONPATH (a variable), or --app-dir",
    "--env": "is spelled --env-file here; or set it in the environment",
    "-e": "is spelled --env-file here; or set it in the environment",
    "--env-files": "is spelled --env-file here",
    "--log": "is spelled --log-level and --quiet here",
    "--no-log": "is spelled --log-level critical --quiet here",
    "--error-log": _ERRORS,
    "--error-logfile": _ERRORS,
    "--access-logfile": _ACCESS_FILE,
    "--access-logformat": _ACCESS_FORMAT,
    "--access-log-fmt": _ACCESS_FORMAT,
    "--log-config-json": "is spelled --log-config here",
    "--logger-class": "is not needed: the standard logging is used (--log-config)",
    "--capture-output": "is left to the service manager: what the application prints goes its way",
    "--disable-redirect-access-to-syslog": "is not needed: see --log-config",
    "--debug": "is spelled --log-level debug here",
    "--spew": "is not here; --log-level trace shows every message of ASGI",
    "--reset-contextvars": "is not needed: every request has a context of its own",
    "--url-path-prefix": _PREFIX,
    "-m": "is spelled --umask here, and --uds-mode for the Unix socket",
    "--pid-file": "is spelled --pid here",
    "-u": "is spelled --user here",
    "-g": "is spelled --group here",
    "--initgroups": "is how --user is: the groups of that user are taken",
    "--daemon": _SERVICE,
    "-D": _SERVICE,
    "-R": _SERVICE,
    "--enable-stdio-inheritance": _SERVICE,
    "--name": f"{_NOT_YET}; processes are known by --pid",
    "-n": f"{_NOT_YET}; processes are known by --pid",
    "--process-name": f"{_NOT_YET}; processes are known by --pid",
    "--worker-tmp-dir": "is not needed: signs of life go through a pipe",
    "--paste": "is not here: write a module with a call of paste.deploy.loadapp, and serve that",
    "--paster": "is not here: write a module with a call of paste.deploy.loadapp, and serve that",
    "--paste-global": "is not here: write a module with a call of paste.deploy.loadapp",
    "--statsd-host": _STATSD,
    "--statsd-prefix": _STATSD,
    "--dogstatsd-tags": _STATSD,
    "--enable-backlog-metric": _STATSD,
    "--metrics": _METRICS,
    "--no-control-socket": "is how it is: there is no control socket",
}

# Whole families.
_PREFIXES = {
    "--http2-": _HTTP2,
    "--runtime-": _ONE_LOOP_THREAD,
    "--static-path-": _STATIC,
    "--metrics-": _METRICS,
    "--log-syslog": "is not needed: logging.handlers.SysLogHandler by --log-config does it",
    "--dirty-": _GUNICORN,
    "--control-socket": _GUNICORN,
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
