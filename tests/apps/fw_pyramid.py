from fw_contract import Failure, lines, uploaded
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response
from pyramid.view import view_config


@view_config(route_name="hello")
def hello(request):
    return Response("hello", content_type="text/plain")


@view_config(route_name="item", renderer="json")
def item(request):
    return {"name": request.matchdict["name"], "q": request.GET.get("q")}


@view_config(route_name="json", renderer="json", request_method="POST")
def echo_json(request):
    return request.json_body


@view_config(route_name="upload", renderer="json", request_method="POST")
def upload(request):
    file = request.POST["file"]
    return uploaded(request.POST["title"], file.filename, file.file.read())


@view_config(route_name="stream")
def stream(request):
    return Response(app_iter=lines(), content_type="text/plain")


@view_config(route_name="redirect")
def redirect(request):
    return HTTPFound("/hello")


@view_config(route_name="cookies", renderer="json")
def cookies(request):
    request.response.set_cookie("flavour", "oat")
    return dict(request.cookies)


@view_config(route_name="echo")
def echo(request):
    return Response(request.headers["X-Test"], content_type="text/plain")


@view_config(route_name="fail")
def fail(request):
    raise Failure("pyramid")


def make_app():
    with Configurator() as config:
        for name in ("hello", "json", "upload", "stream", "redirect", "cookies", "echo", "fail"):
            config.add_route(name, f"/{name}")
        config.add_route("item", "/item/{name}")
        config.scan(__name__)
        return config.make_wsgi_app()


app = make_app()
