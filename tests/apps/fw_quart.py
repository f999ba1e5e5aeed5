from fw_contract import Failure, alines, uploaded
from quart import Quart, Response, jsonify, redirect, request

app = Quart(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 << 20


@app.get("/hello")
async def hello():
    return Response("hello", mimetype="text/plain")


@app.get("/item/<name>")
async def item(name):
    return jsonify(name=name, q=request.args.get("q"))


@app.post("/json")
async def echo_json():
    return jsonify(await request.get_json())


@app.post("/upload")
async def upload():
    file = (await request.files)["file"]
    return jsonify(uploaded((await request.form)["title"], file.filename, file.read()))


@app.get("/stream")
async def stream():
    return Response(alines(), mimetype="text/plain")


@app.get("/redirect")
async def redirected():
    return redirect("/hello")


@app.get("/cookies")
async def cookies():
    response = jsonify(dict(request.cookies))
    response.set_cookie("flavour", "oat")
    return response


@app.get("/echo")
async def echo():
    return Response(request.headers["X-Test"], mimetype="text/plain")


@app.get("/fail")
async def fail():
    raise Failure("quart")
