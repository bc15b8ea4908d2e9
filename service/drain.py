"""What a client goes on sending after it was refused is taken for a while, then its connection is closed.

A client in the middle of an upload reads an answer only once it has sent all, or sees that it can send no
more; when the server closed at once, what it had sent by then would destroy the answer on its way (RFC 9112,
9.6). The HTTP server alone would take whatever comes, without an end.
"""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SMALL_BYTES = 64 * 1024
IDLE_S = 2.0
"""One that sends nothing for so long has heard the answer, or never will."""


class DrainMiddleware:
    """Plain ASGI, outside of all else: by then the request has no place, no file and no log line any more."""

    def __init__(self, app: ASGIApp, most_bytes: int, most_s: float) -> None:
        """most_bytes, most_s: what is taken after an answer, and for how long."""
        self._app, self._most_bytes, self._most_s = app, most_bytes, most_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        expects = _waits_for_a_word(scope)
        asked, arrived = False, False
        last: Message | None = None

        async def watched() -> Message:
            nonlocal asked, arrived
            asked = True
            message = await receive()
            arrived = arrived or message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def held(message: Message) -> None:
            nonlocal last
            if message["type"] == "http.response.start" and not arrived and (asked or not expects):
                # A small body often lies here already, and its connection may then go on.
                await self._drain(watched, SMALL_BYTES, 0)
            if message["type"] == "http.response.start" and not arrived:
                MutableHeaders(scope=message)["Connection"] = "close"
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                last = {"type": "http.response.body", "body": b""}
                message = {**message, "more_body": True}
            await send(message)

        await self._app(scope, watched, held)
        if last is not None:
            if not arrived and (asked or not expects):
                await self._drain(watched, self._most_bytes, self._most_s)
            await send(last)

    async def _drain(self, receive: Receive, most_bytes: int, most_s: float) -> None:
        taken = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while taken <= most_bytes:
                    async with asyncio.timeout(IDLE_S):
                        message = await receive()
                    taken += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _waits_for_a_word(scope: Scope) -> bool:
    """Whether the client sends its body only when it is told to (RFC 9110, 10.1.1)."""
    return Headers(scope=scope).get("expect", "").lower() == "100-continue"
