"""A route that answers JSON, in FastAPI."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/json")
async def hello() -> dict[str, str]:
    return {"message": "Hello, World!"}
