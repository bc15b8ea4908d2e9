"""Keys of the API: a file with a hash on each line, read again when it changes.

What is wrong with the file is told by line and never quoted: somebody may have written a key into it.
"""

import hashlib
import hmac
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY_S = 2.0
"""Seconds between two looks at whether the file has changed."""
MOST_KEYS = 1000
"""Each request is compared with all of them, and each name is a label of a metric."""
FORMAT = "NAME sha256:64-HEX-DIGITS [rate=N/s or rate=N/min] [burst=N]"
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_COUNT = r"[1-9][0-9]{0,5}"
_LINE = re.compile(
    rf"({NAME.pattern})\s+sha256:([0-9A-Fa-f]{{64}})"
    rf"(?:\s+rate=({_COUNT})/(s|min)(?:\s+burst=({_COUNT}))?)?"
)
_SECONDS = {"s": 1.0, "min": 60.0}

log = logging.getLogger(__name__)


class KeysError(ValueError):
    """The file of keys can not be read, or a line of it can not be used. The message is one line."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a key may be used: once in `interval_s` seconds, and up to `burst` times at once."""

    interval_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the file. digest: SHA-256 of the key itself, which is stored nowhere."""

    name: str
    digest: bytes
    rate: Rate | None


def line_for(name: str, key: str) -> str:
    """The line of the file for a key."""
    return f"{name} sha256:{_digest(key.encode()).hex()}"


def read_keys(path: Path) -> tuple[Key, ...]:
    """All keys of a file. Raises KeysError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise KeysError(f"can not be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise KeysError("is not text in UTF-8") from None
    return _parsed(text)


class KeyRing:
    """The keys of a file as it is now.

    Keys that were read stay in force while the file is missing or malformed; before any could be read there
    are none, so that nobody is let in. clock: seconds, monotonic. changed: called with the names in force
    whenever the file was read.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float], changed: Callable[[frozenset[str]], None]
    ) -> None:
        self._path, self._clock, self._changed = path, clock, changed
        self._keys: tuple[Key, ...] = ()
        self._seen: tuple[int, ...] | None = None
        self._failure: str | None = None
        self._look_at = clock()
        self._look()

    def find(self, sent: bytes) -> Key | None:
        """The key that was sent, None when it is in no line.

        All hashes are compared, each in constant time, so that the time taken says nothing of any.
        """
        self._look()
        digest = _digest(sent)
        found = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found

    def _look(self) -> None:
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        seen = _signature(self._path)
        if seen is None or seen != self._seen:
            self._read(seen)

    def _read(self, seen: tuple[int, ...] | None) -> None:
        try:
            self._keys = read_keys(self._path)
        except KeysError as e:
            self._keep(str(e))
            return
        self._seen, self._failure = seen, None
        names = frozenset(key.name for key in self._keys)
        self._changed(names)
        level = logging.INFO if names else logging.WARNING  # nobody is let in
        log.log(level, "keys read", extra={"file": str(self._path), "keys": len(self._keys)})

    def _keep(self, why: str) -> None:
        """Go on with the keys there are, and try again at the next look."""
        if why != self._failure:
            log.error(
                "the file of keys can not be used; those read before stay in force",
                extra={"file": str(self._path), "reason": why},
            )
        self._seen, self._failure = None, why


def _signature(path: Path) -> tuple[int, ...] | None:
    """What differs when a file was written or replaced, None when it can not be seen.

    A mounted Kubernetes Secret is replaced through a link, which `stat` follows.
    """
    try:
        s = path.stat()
    except OSError:
        return None
    return s.st_mtime_ns, s.st_ctime_ns, s.st_dev, s.st_ino, s.st_size


def _parsed(text: str) -> tuple[Key, ...]:
    keys: list[Key] = []
    digests: dict[bytes, int] = {}
    rates: dict[str, Rate | None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        key = _key(content, number)
        if (first := digests.setdefault(key.digest, number)) != number:
            raise KeysError(f"line {number} has the hash of line {first}")
        if rates.setdefault(key.name, key.rate) != key.rate:
            raise KeysError(f"line {number} has another rate than the line of that name before it")
        keys.append(key)
    if len(keys) > MOST_KEYS:
        raise KeysError(f"has {len(keys)} keys; there may be {MOST_KEYS}")
    return tuple(keys)


def _key(content: str, number: int) -> Key:
    match = _LINE.fullmatch(content)
    if match is None:
        raise KeysError(f"line {number} is not {FORMAT}")
    name, digest, count, unit, burst = match.groups()
    rate = Rate(_SECONDS[unit] / int(count), int(burst or count)) if count else None
    return Key(name, bytes.fromhex(digest), rate)


def _digest(key: bytes) -> bytes:
    """Without salt or stretching: a key is 256 random bits, which no list of guesses holds."""
    return hashlib.sha256(key).digest()
