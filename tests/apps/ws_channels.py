"""Django Channels; /chat is a synchronous consumer, which runs in a thread."""

import django
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import QueryDict
from django.urls import path
from ws_contract import BYE, SUBPROTOCOL, Failure

settings.configure(SECRET_KEY="tests", ALLOWED_HOSTS=["*"], INSTALLED_APPS=["channels"])
django.setup()


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)


class Room(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        answer = {
            "name": self.scope["url_route"]["kwargs"]["name"],
            "q": QueryDict(self.scope["query_string"])["q"],
            "field": dict(self.scope["headers"])[b"x-test"].decode(),
            "got": content,
        }
        await self.send_json(answer)


class Chat(WebsocketConsumer):
    def connect(self):
        assert SUBPROTOCOL in self.scope["subprotocols"]
        self.accept(SUBPROTOCOL)

    def receive(self, text_data=None, bytes_data=None):
        self.send(f"{SUBPROTOCOL}: {text_data}")


class Bye(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.close(*BYE)


class Deny(AsyncWebsocketConsumer):
    async def connect(self):
        await self.close()


class Fail(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        raise Failure("channels")


sockets = [
    path("echo", Echo.as_asgi()),
    path("room/<name>", Room.as_asgi()),
    path("chat", Chat.as_asgi()),
    path("bye", Bye.as_asgi()),
    path("deny", Deny.as_asgi()),
    path("fail", Fail.as_asgi()),
]
app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter(sockets)})
