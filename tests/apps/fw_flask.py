from flask import Flask, Response, jsonify, redirect, request
from fw_contract import Failure, lines, uploaded

app = Flask(__name__)


@app.get("/hello")
def hello():
    return Response("hello", mimetype="text/plain")


@app.get("/item/<name>")
def item(name):
    return jsonify(name=name, q=request.args.get("q"))


@app.post("/json")
def echo_json():
    return jsonify(request.get_json())


@app.post("/upload")
def upload():
    file = request.files["file"]
    return jsonify(uploaded(request.form["title"], file.filename, file.read()))


@app.get("/stream")
def stream():
    return Response(lines(), mimetype="text/plain")


@app.get("/redirect")
def redirected():
    return redirect("/hello")


@app.get("/cookies")
def cookies():
    response = jsonify(dict(request.cookies))
    response.set_cookie("flavour", "oat")
    return response


@app.get("/echo")
def echo():
    return Response(request.headers["X-Test"], mimetype="text/plain")


@app.get("/fail")
def fail():
    raise Failure("flask")
