"""Django in one file, under either interface.

Needs: pip install django
Serve it with `asgiserver examples.django_app:asgi` or `asgiserver examples.django_app:wsgi`.
"""

import asyncio
import hashlib
import secrets

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_http_methods

settings.configure(
    SECRET_KEY=secrets.token_urlsafe(50),  # a real site keeps one key
    ALLOWED_HOSTS=["127.0.0.1", "localhost", "[::1]"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
)
django.setup()

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Django on asgiserver</title>
<h1>Django {version} on asgiserver</h1>
<p>This request came by <strong>{interface}</strong>.</p>
<p><a href="/hello/Ada">A greeting in JSON</a> · <a href="/later">An asynchronous view</a></p>
"""


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    interface = "ASGI" if hasattr(request, "scope") else "WSGI"
    return HttpResponse(PAGE.format(version=django.get_version(), interface=interface))


@require_GET
def hello(request: HttpRequest, name: str) -> JsonResponse:
    return JsonResponse({"hello": name, "client": request.META.get("REMOTE_ADDR")})


@require_GET
async def later(request: HttpRequest) -> HttpResponse:
    """Under ASGI the server goes on with other requests while this one waits."""
    await asyncio.sleep(0.5)
    return HttpResponse("Half a second later.\n", content_type="text/plain")


@require_http_methods(["PUT"])
def upload(request: HttpRequest) -> JsonResponse:
    size, digest = 0, hashlib.sha256()
    while piece := request.read(65536):
        size += len(piece)
        digest.update(piece)
    return JsonResponse({"bytes": size, "sha256": digest.hexdigest()})


urlpatterns = [
    path("", index),
    path("hello/<str:name>", hello),
    path("later", later),
    path("upload", upload),
]

asgi = get_asgi_application()
wsgi = get_wsgi_application()
