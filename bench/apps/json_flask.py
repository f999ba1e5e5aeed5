"""A route that answers JSON, in Flask."""

from flask import Flask

app = Flask(__name__)


@app.get("/json")
def hello() -> dict[str, str]:
    return {"message": "Hello, World!"}
