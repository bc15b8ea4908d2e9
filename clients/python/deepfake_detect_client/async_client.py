"""The client for programs on asyncio."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from deepfake_detect_client.answers import Answer, ModelCard, ModelList
from deepfake_detect_client.calls import (
    TIMEOUT,
    Call,
    Options,
    answered,
    check_digest,
    checked_key,
    checked_url,
    detecting,
    least,
    model_path,
    parsed,
    refusal,
    translated,
)
from deepfake_detect_client.errors import ClientError, Unavailable, Unreachable
from deepfake_detect_client.events import MEDIA_TYPE, Event, EventParser, event_of
from deepfake_detect_client.retry import Attempts, Deadline, Retries
from deepfake_detect_client.upload import OnProgress, Source, Upload, opened

T = TypeVar("T")


class AsyncClient:
    """As Client, for asyncio; what is said there holds here."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        retries: Retries | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._url, self._key = checked_url(url), checked_key(api_key)
        self._retries = retries or Retries()
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT)
        self._own = http is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, unless `http` was given."""
        if self._own:
            await self._http.aclose()

    async def detect(
        self, source: Source, *, on_progress: OnProgress | None = None, **options: Unpack[Options]
    ) -> Answer:
        """Was a face in this clip manipulated?

        on_progress: called as the clip is sent, anew for each attempt. Raises ClientError, or OSError for a
        file that can not be read.
        """
        with opened(source, on_progress) as upload:
            return await self._ask(detecting(upload, **options), _answering(upload))

    async def detect_crops(
        self, source: Source, *, on_progress: OnProgress | None = None, **options: Unpack[Options]
    ) -> Answer:
        """The same for faces that `deepfake-detect crop` has cut out of a clip."""
        with opened(source, on_progress) as upload:
            return await self._ask(detecting(upload, crops=True, **options), _answering(upload))

    @asynccontextmanager
    async def stream(
        self, source: Source, *, on_progress: OnProgress | None = None, **options: Unpack[Options]
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Ask as `detect` does, and be told how far the clip was looked at. The answer is the last event."""
        with opened(source, on_progress) as upload:
            call = detecting(upload, events=True, **options)
            response = await self._ask(call, _itself)
            try:
                check_digest(response, upload)
                yield _events(response, call.deadline)
            finally:
                await response.aclose()

    async def models(self) -> ModelList:
        """The models that are served."""
        response = await self._ask(Call("/v1/models", Deadline(None)), _read)
        return parsed(response, ModelList)

    async def model(self, name: str) -> ModelCard:
        """One model's card and manifest."""
        response = await self._ask(Call(model_path(name), Deadline(None)), _read)
        return parsed(response, ModelCard)

    async def ready(self) -> bool:
        """Whether the service takes work now. Asks once. Raises Unreachable when there is none."""
        try:
            await self._once(Call("/readyz", Deadline(None)), _read)
        except Unavailable:
            return False
        return True

    async def _ask(self, call: Call, take: Callable[[httpx.Response], Awaitable[T]]) -> T:
        attempts = Attempts(self._retries, call.deadline)
        while True:
            try:
                return await self._once(call, take)
            except ClientError as e:
                wait_s = attempts.wait_after(e, repeatable=call.repeatable)
            await asyncio.sleep(wait_s)

    async def _once(self, call: Call, take: Callable[[httpx.Response], Awaitable[T]]) -> T:
        with translated(call.deadline):
            async with asyncio.timeout(least(None, call.deadline.left_s())):
                content = None if call.upload is None else call.upload.pieces_async()
                request = call.request(self._http, self._url, self._key, content)
                response = await self._http.send(request, stream=True, follow_redirects=False)
                try:
                    return await take(await _accepted(response))
                except BaseException:
                    await response.aclose()
                    raise


def _answering(upload: Upload) -> Callable[[httpx.Response], Awaitable[Answer]]:
    async def take(response: httpx.Response) -> Answer:
        return answered(await _read(response), upload)

    return take


async def _itself(response: httpx.Response) -> httpx.Response:
    return response


async def _accepted(response: httpx.Response) -> httpx.Response:
    if response.status_code != httpx.codes.OK:
        raise refusal(await _read(response))
    return response


async def _read(response: httpx.Response) -> httpx.Response:
    await response.aread()
    return response


async def _events(response: httpx.Response, deadline: Deadline) -> AsyncIterator[Event]:
    if not response.headers.get("content-type", "").startswith(MEDIA_TYPE):
        yield parsed(await _read(response), Answer)
        return
    parser = EventParser()
    with translated(deadline):
        async for piece in response.aiter_bytes():
            for name, data in parser.feed(piece):
                event = event_of(name, data)
                if event is not None:
                    yield event
                if isinstance(event, Answer):
                    return
    raise Unreachable("the events ended before the answer")
