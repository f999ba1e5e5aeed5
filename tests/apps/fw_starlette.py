from fw_contract import Failure, alines, uploaded
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route


async def hello(request):
    return PlainTextResponse("hello")


async def item(request):
    return JSONResponse({"name": request.path_params["name"], "q": request.query_params.get("q")})


async def echo_json(request):
    return JSONResponse(await request.json())


async def upload(request):
    async with request.form() as form:
        file = form["file"]
        return JSONResponse(uploaded(form["title"], file.filename, await file.read()))


async def stream(request):
    return StreamingResponse(alines(), media_type="text/plain")


async def redirect(request):
    return RedirectResponse("/hello")


async def cookies(request):
    response = JSONResponse(request.cookies)
    response.set_cookie("flavour", "oat")
    return response


async def echo(request):
    return PlainTextResponse(request.headers["x-test"])


async def fail(request):
    raise Failure("starlette")


app = Starlette(
    routes=[
        Route("/hello", hello),
        Route("/item/{name}", item),
        Route("/json", echo_json, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/redirect", redirect),
        Route("/cookies", cookies),
        Route("/echo", echo),
        Route("/fail", fail),
    ]
)
