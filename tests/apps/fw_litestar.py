from typing import Annotated, Any

from fw_contract import Failure, alines, uploaded
from litestar import Litestar, MediaType, Request, get, post
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import Redirect, Response, Stream


@get("/hello", media_type=MediaType.TEXT)
async def hello() -> str:
    return "hello"


@get("/item/{name:str}")
async def item(name: str, q: str | None = None) -> dict[str, Any]:
    return {"name": name, "q": q}


@post("/json", status_code=200)
async def echo_json(data: dict[str, Any]) -> dict[str, Any]:
    return data


@post("/upload", status_code=200)
async def upload(
    data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    file: UploadFile = data["file"]
    return uploaded(data["title"], file.filename, await file.read())


@get("/stream")
async def stream() -> Stream:
    return Stream(alines(), media_type="text/plain")


@get("/redirect")
async def redirect() -> Redirect:
    return Redirect("/hello")


@get("/cookies")
async def cookies(request: Request) -> Response[dict[str, str]]:
    response = Response(dict(request.cookies))
    response.set_cookie("flavour", "oat")
    return response


@get("/echo", media_type=MediaType.TEXT)
async def echo(request: Request) -> str:
    return request.headers["x-test"]


@get("/fail")
async def fail() -> None:
    raise Failure("litestar")


app = Litestar([hello, item, echo_json, upload, stream, redirect, cookies, echo, fail])
