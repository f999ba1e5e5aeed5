from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Form, Header, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fw_contract import Failure, lines, uploaded

started = []


@asynccontextmanager
async def lifespan(app):
    started.append(app)
    yield {"ready": True}


app = FastAPI(lifespan=lifespan)


@app.get("/hello", response_class=PlainTextResponse)
def hello(request: Request):
    assert started
    assert request.state.ready
    return "hello"


@app.get("/item/{name}")
async def item(name: str, q: str | None = None):
    return {"name": name, "q": q}


@app.post("/json")
async def echo_json(body: dict[str, Any]):
    return body


@app.post("/upload")
async def upload(title: Annotated[str, Form()], file: UploadFile):
    return uploaded(title, file.filename, await file.read())


@app.get("/stream")
def stream():
    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/redirect")
async def redirect():
    return RedirectResponse("/hello")


@app.get("/cookies")
async def cookies(request: Request):
    response = JSONResponse(request.cookies)
    response.set_cookie("flavour", "oat")
    return response


@app.get("/echo", response_class=PlainTextResponse)
async def echo(x_test: Annotated[str, Header()]):
    return x_test


@app.get("/fail")
def fail():
    raise Failure("fastapi")
