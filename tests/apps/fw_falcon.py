"""Falcon under both interfaces: ``app`` is ASGI, ``wsgi_app`` is WSGI."""

import falcon
import falcon.asgi
from fw_contract import Failure, alines, lines, uploaded


class Hello:
    def on_get(self, req, resp):
        resp.content_type, resp.text = "text/plain", "hello"


class Item:
    def on_get(self, req, resp, name):
        resp.media = {"name": name, "q": req.get_param("q")}


class Json:
    def on_post(self, req, resp):
        resp.media = req.get_media()


class Upload:
    def on_post(self, req, resp):
        title = filename = content = None
        for part in req.get_media():
            if part.name == "title":
                title = part.text
            else:
                filename, content = part.filename, part.stream.read()
        resp.media = uploaded(title, filename, content)


class Stream:
    def on_get(self, req, resp):
        resp.content_type, resp.stream = "text/plain", lines()


class Redirect:
    def on_get(self, req, resp):
        raise falcon.HTTPFound("/hello")


class Cookies:
    def on_get(self, req, resp):
        resp.set_cookie("flavour", "oat", secure=False)
        resp.media = req.cookies


class Echo:
    def on_get(self, req, resp):
        resp.content_type, resp.text = "text/plain", req.get_header("x-test")


class Fail:
    def on_get(self, req, resp):
        raise Failure("falcon")


def make_async(responder):
    async def run(self, req, resp, **params):
        responder(self, req, resp, **params)

    return run


class AsyncJson:
    async def on_post(self, req, resp):
        resp.media = await req.get_media()


class AsyncUpload:
    async def on_post(self, req, resp):
        title = filename = content = None
        async for part in await req.get_media():
            if part.name == "title":
                title = await part.text
            else:
                filename, content = part.filename, await part.stream.read()
        resp.media = uploaded(title, filename, content)


class AsyncStream:
    async def on_get(self, req, resp):
        resp.content_type, resp.stream = "text/plain", alines()


def async_version(cls):
    return type(f"Async{cls.__name__}", (), {"on_get": make_async(cls.on_get)})


def add_routes(app, asynchronous):
    for cls in (Hello, Redirect, Cookies, Echo, Fail):
        resource = async_version(cls) if asynchronous else cls
        app.add_route(f"/{cls.__name__.lower()}", resource())
    app.add_route("/item/{name}", (async_version(Item) if asynchronous else Item)())
    app.add_route("/json", AsyncJson() if asynchronous else Json())
    app.add_route("/upload", AsyncUpload() if asynchronous else Upload())
    app.add_route("/stream", AsyncStream() if asynchronous else Stream())


app = falcon.asgi.App()
add_routes(app, asynchronous=True)
wsgi_app = falcon.App()
add_routes(wsgi_app, asynchronous=False)
