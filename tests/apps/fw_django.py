"""Django under both interfaces: ``app`` is ASGI, ``wsgi_app`` is WSGI."""

import json

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import path
from fw_contract import Failure, alines, lines, uploaded

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    LOGGING_CONFIG=None,
    USE_TZ=True,
)
django.setup()


def hello(request):
    return HttpResponse("hello", content_type="text/plain")


async def item(request, name):
    return JsonResponse({"name": name, "q": request.GET.get("q")})


def echo_json(request):
    return JsonResponse(json.loads(request.body))


def upload(request):
    file = request.FILES["file"]
    return JsonResponse(uploaded(request.POST["title"], file.name, file.read()))


def stream(request):
    source = alines() if hasattr(request, "scope") else lines()
    return StreamingHttpResponse(source, content_type="text/plain")


def redirect(request):
    return HttpResponseRedirect("/hello")


def cookies(request):
    response = JsonResponse(request.COOKIES)
    response.set_cookie("flavour", "oat")
    return response


def echo(request):
    return HttpResponse(request.headers["X-Test"], content_type="text/plain")


def fail(request):
    raise Failure("django")


urlpatterns = [
    path("hello", hello),
    path("item/<name>", item),
    path("json", echo_json),
    path("upload", upload),
    path("stream", stream),
    path("redirect", redirect),
    path("cookies", cookies),
    path("echo", echo),
    path("fail", fail),
]

app = get_asgi_application()
wsgi_app = get_wsgi_application()
