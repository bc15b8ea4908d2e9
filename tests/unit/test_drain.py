"""What comes after an answer is taken up to a bound; who was told to wait is not waited for."""

import asyncio

import pytest
from starlette.responses import Response

from service.drain import DrainMiddleware

PIECE = 1000


class Client:
    """Sends so many pieces, None for no end, and keeps what it was sent. here: the first is there already."""

    def __init__(self, pieces, headers=(), *, here=False):
        self.here = here
        self.pieces, self.taken, self.sent, self.answered = pieces, 0, [], []
        names = [(b"content-length", b"5000"), *headers]
        self.scope = {"type": "http", "method": "POST", "path": "/", "headers": names}

    async def receive(self):
        if not self.here:
            await asyncio.sleep(0)
        self.here = False
        self.answered.append(b"no" in [part.get("body") for part in self.sent])
        if self.taken == self.pieces:
            await asyncio.Event().wait()
        self.taken += 1
        return {"type": "http.request", "body": bytes(PIECE), "more_body": self.taken != self.pieces}

    async def send(self, message):
        self.sent.append(message)

    def served(self, app, most_bytes=10 * PIECE, most_s=30.0):
        asyncio.run(DrainMiddleware(app, most_bytes, most_s)(self.scope, self.receive, self.send))
        head, *body = self.sent
        assert [part.get("more_body", False) for part in body] == [True] * (len(body) - 1) + [False]
        assert b"".join(part["body"] for part in body) == b"no"
        return dict(head["headers"]).get(b"connection")


async def refuses(scope, receive, send):
    await Response("no", 413)(scope, receive, send)


async def reads_all(scope, receive, send):
    while (await receive())["more_body"]:
        pass
    await refuses(scope, receive, send)


async def reads_some(scope, receive, send):
    await receive()
    await refuses(scope, receive, send)


@pytest.mark.parametrize("app", [refuses, reads_some])
def test_the_rest_of_an_upload_is_taken_and_the_connection_closed(app):
    client = Client(pieces=5)
    assert client.served(app) == b"close"
    assert client.taken == 5


def test_the_answer_is_sent_before_the_rest_is_taken():
    client = Client(pieces=5)
    client.served(refuses)
    assert client.answered == [True] * 5


def test_no_more_is_taken_than_an_upload_may_have():
    client = Client(pieces=None)
    assert client.served(refuses) == b"close"
    assert client.taken == 11


def test_one_who_stops_sending_is_not_waited_for_without_end():
    client = Client(pieces=None)

    async def never():
        await asyncio.Event().wait()

    client.receive = never
    assert client.served(refuses, most_s=0.01) == b"close"


def test_what_was_read_by_its_handler_leaves_the_connection_open():
    client = Client(pieces=5)
    assert client.served(reads_all) is None
    assert client.taken == 5


def test_a_small_body_that_is_there_already_leaves_the_connection_open():
    client = Client(pieces=1, here=True)
    assert client.served(refuses) is None
    assert client.taken == 1


def test_who_asks_before_it_sends_is_not_asked_for_more():
    client = Client(pieces=None, headers=[(b"expect", b"100-continue")])
    assert client.served(refuses) == b"close"
    assert client.taken == 0


def test_who_was_told_to_send_is_read():
    client = Client(pieces=3, headers=[(b"expect", b"100-continue")])
    assert client.served(reads_some) == b"close"
    assert client.taken == 3


def test_a_request_without_a_body_is_left_alone():
    client = Client(pieces=None)
    client.scope["headers"] = []
    assert client.served(refuses) is None
    assert client.taken == 0
