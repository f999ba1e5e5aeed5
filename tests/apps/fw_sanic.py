from fw_contract import Failure, lines, uploaded
from sanic import Sanic
from sanic.response import json, redirect, text

app = Sanic("fw_sanic", configure_logging=False)


@app.get("/hello")
async def hello(request):
    return text("hello")


@app.get("/item/<name>", unquote=True)
async def item(request, name):
    return json({"name": name, "q": request.args.get("q")})


@app.post("/json")
async def echo_json(request):
    return json(request.json)


@app.post("/upload")
async def upload(request):
    file = request.files.get("file")
    return json(uploaded(request.form.get("title"), file.name, file.body))


@app.get("/stream")
async def stream(request):
    response = await request.respond(content_type="text/plain")
    for line in lines():
        await response.send(line)
    await response.eof()


@app.get("/redirect")
async def redirected(request):
    return redirect("/hello")


@app.get("/cookies")
async def cookies(request):
    response = json({name: request.cookies.get(name) for name in request.cookies})
    response.add_cookie("flavour", "oat", secure=False)
    return response


@app.get("/echo")
async def echo(request):
    return text(request.headers["x-test"])


@app.get("/fail")
async def fail(request):
    raise Failure("sanic")
