"""A route that answers JSON, in Litestar."""

from litestar import Litestar, get


@get("/json")
async def hello() -> dict[str, str]:
    return {"message": "Hello, World!"}


app = Litestar([hello])
