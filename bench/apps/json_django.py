"""A route that answers JSON, in Django: `app` under WSGI, `asgi` under ASGI."""

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY="of a benchmark", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[]
)
django.setup()


def hello(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"message": "Hello, World!"})


async def hello_async(request: HttpRequest) -> JsonResponse:
    return hello(request)


urlpatterns = [path("json", hello), path("async", hello_async)]
app = get_wsgi_application()
asgi = get_asgi_application()
