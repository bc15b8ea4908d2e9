"""The client for programs that wait for each answer."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    model_path,
    parsed,
    refusal,
    translated,
)
from deepfake_detect_client.errors import ClientError, Unavailable, Unreachable
from deepfake_detect_client.events import MEDIA_TYPE, Event, EventParser, event_of
from deepfake_detect_client.retry import Attempts, Deadline, Retries
from deepfake_detect_client.upload import OnProgress, Source, opened

T = TypeVar("T")


class Client:
    """Asks one service. May be used by several threads at once.

    url: where the service is, `https://detector.example`. api_key: sent as `X-API-Key`. http: a client of
    httpx with proxies, certificates or timeouts of one's own, which is left open. Raises ValueError for a
    url or a key that can be none.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        retries: Retries | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self._url, self._key = checked_url(url), checked_key(api_key)
        self._retries = retries or Retries()
        self._http = http or httpx.Client(timeout=TIMEOUT)
        self._own = http is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless `http` was given."""
        if self._own:
            self._http.close()

    def detect(
        self, source: Source, *, on_progress: OnProgress | None = None, **options: Unpack[Options]
    ) -> Answer:
        """Was a face in this clip manipulated?

        on_progress: called as the clip is sent, anew for each attempt. Raises ClientError, or OSError for a
        file that can not be read.
        """
        with opened(source, on_progress) as upload:
            return self._ask(detecting(upload, **options), lambda response: answered(_read(response), upload))

    def detect_crops(
        self, source: Source, *, on_progress: OnProgress | None = None, **options: Unpack[Options]
    ) -> Answer:
        """The same for faces that `deepfake-detect crop` has cut out of a clip."""
        with opened(source, on_progress) as upload:
            call = detecting(upload, crops=True, **options)
            return self._ask(call, lambda response: answered(_read(response), upload))

    @contextmanager
    def stream(
        self, source: Source, *, on_progress: OnProgress | None = None, **options: Unpack[Options]
    ) -> Iterator[Iterator[Event]]:
        """Ask as `detect` does, and be told how far the clip was looked at. The answer is the last event."""
        with opened(source, on_progress) as upload:
            call = detecting(upload, events=True, **options)
            response = self._ask(call, lambda response: response)
            try:
                check_digest(response, upload)
                yield _events(response, call.deadline)
            finally:
                response.close()

    def models(self) -> ModelList:
        """The models that are served."""
        call = Call("/v1/models", Deadline(None))
        return self._ask(call, lambda response: parsed(_read(response), ModelList))

    def model(self, name: str) -> ModelCard:
        """One model's card and manifest."""
        call = Call(model_path(name), Deadline(None))
        return self._ask(call, lambda response: parsed(_read(response), ModelCard))

    def ready(self) -> bool:
        """Whether the service takes work now. Asks once. Raises Unreachable when there is none."""
        try:
            self._once(Call("/readyz", Deadline(None)), _read)
        except Unavailable:
            return False
        return True

    def _ask(self, call: Call, take: Callable[[httpx.Response], T]) -> T:
        attempts = Attempts(self._retries, call.deadline)
        while True:
            try:
                return self._once(call, take)
            except ClientError as e:
                wait_s = attempts.wait_after(e, repeatable=call.repeatable)
            time.sleep(wait_s)

    def _once(self, call: Call, take: Callable[[httpx.Response], T]) -> T:
        with translated(call.deadline):
            request = call.request(self._http, self._url, self._key, _pieces(call))
            response = self._http.send(request, stream=True, follow_redirects=False)
            try:
                return take(_accepted(response))
            except BaseException:
                response.close()
                raise


def _pieces(call: Call) -> Iterator[bytes] | None:
    return None if call.upload is None else _checked(call.upload.pieces(), call.deadline)


def _checked(pieces: Iterator[bytes], deadline: Deadline) -> Iterator[bytes]:
    for piece in pieces:
        deadline.check()
        yield piece


def _accepted(response: httpx.Response) -> httpx.Response:
    if response.status_code != httpx.codes.OK:
        raise refusal(_read(response))
    return response


def _read(response: httpx.Response) -> httpx.Response:
    response.read()
    return response


def _events(response: httpx.Response, deadline: Deadline) -> Iterator[Event]:
    if not response.headers.get("content-type", "").startswith(MEDIA_TYPE):
        yield parsed(_read(response), Answer)
        return
    parser = EventParser()
    with translated(deadline):
        for piece in response.iter_bytes():
            for name, data in parser.feed(piece):
                event = event_of(name, data)
                if event is not None:
                    yield event
                if isinstance(event, Answer):
                    return
    raise Unreachable("the events ended before the answer")
