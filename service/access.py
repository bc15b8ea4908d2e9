"""Who may ask: a key for everything below /v1, and how often it may be used.

Plain ASGI around the routes: what is refused was neither routed nor read (`service.drain`
takes and drops what a client sends all the same).
"""

import time
from collections.abc import Callable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.keys import Key, KeyRing, Rate
from service.metrics import Metrics
from service.problems import MissingKey, RateLimited, ServiceError, UnknownKey, problem_of, problem_response

HEADER = "X-API-Key"
OPEN = frozenset({"/v1/keys"})
"""Whoever is shown a receipt needs the public keys, and need not be a client."""
_ALMOST = 1 - 1e-6
"""A token, less what floating-point seconds may lack of it."""


def guarded(path: str) -> bool:
    """Whether a path needs a key where there are keys."""
    return path not in OPEN and (path == "/v1" or path.startswith("/v1/"))


class AccessMiddleware:
    """Lets a request below /v1 pass when its key is known and within its rate.

    clock: seconds, monotonic, so that setting the time of day changes nobody's rate.
    """

    def __init__(
        self, app: ASGIApp, keys_file: Path, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._metrics, self._clock = app, metrics, clock
        self._buckets: dict[str, Bucket] = {}
        self._keys = KeyRing(keys_file, clock=clock, changed=self._forget_others)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] == "http" and guarded(scope["path"]):
            try:
                self._check(scope)
            except ServiceError as e:
                await self._refuse(e, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Tell the log and the metrics whose request it is. Raises MissingKey, UnknownKey, RateLimited."""
        sent = sent_key(Headers(scope=scope))
        if sent is None:
            raise MissingKey(f"send a key as 'Authorization: Bearer KEY' or as '{HEADER}: KEY'")
        key = self._keys.find(sent)
        if key is None:
            raise UnknownKey("the key that was sent is not a valid one")
        scope["state"]["key"] = key.name
        if key.rate is not None:
            self._spend(key, key.rate)

    def _spend(self, key: Key, rate: Rate) -> None:
        now = self._clock()
        bucket = self._buckets.setdefault(key.name, Bucket(rate.burst, now))
        if (wait_s := bucket.take(rate, now)) > 0:
            raise RateLimited(f"the key {key.name!r} is used too often", retry_after_s=wait_s)

    def _forget_others(self, names: frozenset[str]) -> None:
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in names}
        self._metrics.keep_keys(names)

    async def _refuse(self, error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
        name = problem_of(error)
        self._metrics.rejections.labels(name).inc()
        response = problem_response(
            name, str(error), request_id=scope["state"]["request_id"], headers=error.headers
        )
        await response(scope, receive, send)


class Bucket:
    """Tokens of one name: a request takes one, and one is put in each `interval_s` up to `burst`."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self._tokens, self._at = tokens, now

    def take(self, rate: Rate, now: float) -> float:
        """Take a token. Returns the seconds until there is one, 0 when it was taken."""
        self._tokens = min(rate.burst, self._tokens + (now - self._at) / rate.interval_s)
        self._at = now
        if self._tokens < _ALMOST:
            return (1 - self._tokens) * rate.interval_s
        self._tokens -= 1
        return 0.0


def sent_key(headers: Headers) -> bytes | None:
    """The key of a request. `X-API-Key` comes first: a proxy may need `Authorization` for itself."""
    if own := headers.get(HEADER, "").strip():
        return own.encode("latin-1")
    scheme, _, key = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        return None
    return key.strip().encode("latin-1")
