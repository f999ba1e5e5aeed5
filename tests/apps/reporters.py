"""Error reporters as middleware, with a transport that stays here: GET /reports gives what they would have sent.

Each report: {"message": of the exception, "method", "url"}.
"""

import json
import os

import rollbar
import sentry_sdk
from fw_contract import Failure
from rollbar.contrib.starlette import ReporterMiddleware as RollbarAsgi
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport
from webob import Request

reports = []


class KeepEnvelopes(Transport):
    """Sentry's transport; nothing leaves the process."""

    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            request = event["request"]
            reports.append(
                {
                    "message": event["exception"]["values"][-1]["value"],
                    "method": request["method"],
                    "url": request["url"] + "?" + (request.get("query_string") or ""),
                }
            )


def keep_payload(payload, _token=None):
    """Rollbar's way out."""
    data = payload["data"]
    chain = data["body"].get("trace_chain") or [data["body"]["trace"]]
    request = data["request"]
    reports.append(
        {
            "message": chain[0]["exception"]["message"],
            "method": request["method"],
            "url": request["url"],
        }
    )


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/fail":
        raise Failure(scope["query_string"].decode())
    if scope["path"] == "/fail-late":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise Failure(scope["query_string"].decode())
    body = b"fine"
    headers = [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise Failure(environ["QUERY_STRING"])
    start_response(
        "200 OK", [("Content-Length", "4")] if environ["PATH_INFO"] != "/fail-late" else []
    )
    if environ["PATH_INFO"] == "/fail-late":
        return failing_body(environ["QUERY_STRING"])
    return [b"fine"]


def failing_body(text):
    yield b"x"
    raise Failure(text)


class RollbarWsgi:
    """What rollbar's documentation shows for plain WSGI."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        try:
            yield from self.inner(environ, start_response)
        except Exception:
            rollbar.report_exc_info(request=Request(environ))
            raise


def show_asgi(inner):
    async def app(scope, receive, send):
        if scope.get("path") != "/reports":
            await inner(scope, receive, send)
            return
        body = json.dumps(reports).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % len(body))],
            }
        )
        await send({"type": "http.response.body", "body": body})

    return app


def show_wsgi(inner):
    def app(environ, start_response):
        if environ["PATH_INFO"] != "/reports":
            return inner(environ, start_response)
        body = json.dumps(reports).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    return app


if os.environ["REPORTER"] == "sentry":
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", transport=KeepEnvelopes(), default_integrations=False
    )
    asgi_app = show_asgi(SentryAsgiMiddleware(asgi))
    wsgi_app = show_wsgi(SentryWsgiMiddleware(wsgi))
else:
    rollbar.init("token", "test", handler="blocking", verify_https=False)
    rollbar.send_payload = keep_payload
    asgi_app = show_asgi(RollbarAsgi(asgi))
    wsgi_app = show_wsgi(RollbarWsgi(wsgi))
