"""One HTTP/1.1 connection (RFC 9112): what is sent when, and when the answer came, by the clock."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import h11

from benchmarks.load import Call

READ_BYTES = 65536
CHUNK_BYTES = 65536
EXPECT_S = 1.0
"""How long a client waits for a word before it sends the body uninvited (RFC 9110, 10.1.1)."""


@dataclass(slots=True)
class Reply:
    """What came of a request.

    status: 0 where no head came; begun_s: when its head was sent, by `time.perf_counter`; head_s, end_s: from
    then to the head and the end of the answer; sent: bytes of the body that were sent; lost: why there is no
    whole answer.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    begun_s: float = 0.0
    head_s: float = 0.0
    end_s: float = 0.0
    sent: int = 0
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How a client sends a body.

    expect: ask first, with `Expect: 100-continue`; chunk, pause_s: so many bytes at a time, with pauses;
    leaves_after: close the connection after so many bytes.
    """

    expect: bool = False
    chunk: int = CHUNK_BYTES
    pause_s: float = 0.0
    leaves_after: int | None = None


PLAIN = Manner()


class Connection:
    """A connection to the server at `url`, opened when there is something to send and none is open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._http = h11.Connection(our_role=h11.CLIENT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close it, if one is open."""
        if self._streams is not None:
            self._streams[1].close()
            with suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None

    async def ask(self, call: Call, *, limit_s: float, manner: Manner = PLAIN) -> Reply:
        """Send a request and take the answer, as far as there is one within `limit_s`. Raises nothing."""
        reply = Reply()
        reply.begun_s = time.perf_counter()
        try:
            async with asyncio.timeout(limit_s):
                reader, writer = await self._opened()
                reply.begun_s = time.perf_counter()
                await self._exchange(reader, writer, call, manner, reply)
        except TimeoutError:
            reply.lost = f"no whole answer within {limit_s:g} s"
        except (OSError, EOFError, h11.RemoteProtocolError) as e:
            reply.lost = f"{type(e).__name__}: {e}"
        reply.end_s = time.perf_counter() - reply.begun_s
        if not reply.status:
            reply.head_s = reply.end_s
        await self._reused(reply)
        return reply

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._http = h11.Connection(our_role=h11.CLIENT)
            self._streams = await asyncio.open_connection(self._host, self._port)
        return self._streams

    async def _reused(self, reply: Reply) -> None:
        done = {self._http.our_state, self._http.their_state} == {h11.DONE}
        if reply.lost is None and done:
            self._http.start_next_cycle()
        else:
            await self.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        call: Call,
        manner: Manner,
        reply: Reply,
    ) -> None:
        target = "/" + call.url.split("/", 3)[3]
        headers = [("host", f"{self._host}:{self._port}"), ("content-length", str(len(call.body)))]
        headers += list(call.headers.items())
        if manner.expect:
            headers.append(("expect", "100-continue"))
        request = h11.Request(method="POST", target=target, headers=headers)
        writer.write(self._http.send(request) or b"")
        invited = asyncio.Event()
        if not manner.expect:
            invited.set()
        sending = asyncio.create_task(self._send(writer, call.body, manner, invited, reply))
        try:
            await self._receive(reader, invited, reply)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(
        self, writer: asyncio.StreamWriter, body: bytes, manner: Manner, invited: asyncio.Event, reply: Reply
    ) -> None:
        """A server may have closed its side before all is sent: what it has said by then still counts."""
        with suppress(TimeoutError):
            await asyncio.wait_for(invited.wait(), EXPECT_S)
        with suppress(OSError):
            for at in range(0, len(body), manner.chunk):
                if manner.leaves_after is not None and at >= manner.leaves_after:
                    writer.close()
                    return
                piece = body[at : at + manner.chunk]
                writer.write(self._http.send(h11.Data(data=piece)) or b"")
                reply.sent += len(piece)
                await writer.drain()
                await asyncio.sleep(manner.pause_s)
            self._http.send(h11.EndOfMessage())

    async def _receive(self, reader: asyncio.StreamReader, invited: asyncio.Event, reply: Reply) -> None:
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await reader.read(READ_BYTES))
            elif isinstance(event, h11.InformationalResponse):
                invited.set()
            elif isinstance(event, h11.Response):
                reply.head_s = time.perf_counter() - reply.begun_s
                reply.status = event.status_code
                reply.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                reply.body = bytes(body)
                return
            else:
                raise EOFError("the connection was closed")
