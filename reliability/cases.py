"""The cases: each is a function of a number, made from one of the seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.load import Call
from reliability import tree
from reliability.forms import FORMS
from reliability.seeds import Seed

MULTIPART = "multipart"
FORM_SHARE = 0.12
STRUCTURAL_SHARE, BYTES_SHARE = 0.75, 0.3
"""Of the clips that can be taken apart: so many have their tree changed, and so many of these their bytes."""
TRIES = 20


@dataclass(frozen=True, slots=True)
class Case:
    """One upload. kind: the seed's, or that it is the form that is wrong; done: what was done to it."""

    number: int
    kind: str
    done: tuple[str, ...]
    content_type: bytes
    body: bytes

    def call(self, url: str) -> Call:
        """As a request to POST `url`, found again in the server's log by its id."""
        headers = {"content-type": self.content_type.decode("latin-1"), "x-request-id": f"case-{self.number}"}
        return Call(url, headers, self.body)


@dataclass(frozen=True, slots=True)
class Cases:
    """All cases of one run: `seed` and the clips decide each of them."""

    seed: int
    clips: Sequence[Seed]

    def case(self, number: int) -> Case:
        """The case of that number, whichever were made before."""
        rng = Random(f"{self.seed}/{number}")
        if rng.random() < FORM_SHARE:
            name = rng.choice(list(FORMS))
            return Case(number, MULTIPART, (name,), *FORMS[name](rng, rng.choice(self.clips).data))
        clip = rng.choice(self.clips)
        for _ in range(TRIES):
            done, data = self._mutated(rng, clip)
            if data != clip.data:
                break
        return Case(number, clip.name, done, b"application/octet-stream", data)

    def _mutated(self, rng: Random, clip: Seed) -> tuple[tuple[str, ...], bytes]:
        done: list[str] = []
        data = clip.data
        if clip.form is not None and rng.random() < STRUCTURAL_SHARE:
            nodes = clip.form.read(data)
            done += [tree.mutate(rng, nodes) for _ in range(rng.choice((1, 1, 2, 3)))]
            data = clip.form.write(nodes)
        if not done or rng.random() < BYTES_SHARE:
            name = rng.choice(list(BYTES))
            done.append(name)
            data = BYTES[name](rng, data, rng.choice(self.clips).data)
        return tuple(done), data


def _truncate(rng: Random, data: bytes, _other: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _flip(rng: Random, data: bytes, _other: bytes) -> bytes:
    changed = bytearray(data)
    reach = rng.choice((64, 1024, len(data)))
    for _ in range(rng.choice((1, 4, 32)) if data else 0):
        changed[rng.randrange(min(reach, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _splice(rng: Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def _scramble(rng: Random, data: bytes, _other: bytes) -> bytes:
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice((4, 64, 4096)))
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _insert(rng: Random, data: bytes, _other: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(rng.choice((1, 16, 5000))) + data[at:]


def _remove(rng: Random, data: bytes, _other: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + data[at + rng.choice((1, 16, 500)) :]


def _repeat(rng: Random, data: bytes, _other: bytes) -> bytes:
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice((16, 500, 5000)))
    return data[:end] + data[start:end] * rng.randint(1, 20) + data[end:]


def _random(rng: Random, data: bytes, _other: bytes) -> bytes:
    return data[:16] + rng.randbytes(rng.choice((0, 100, 20_000)))


BYTES: dict[str, Callable[[Random, bytes, bytes], bytes]] = {
    "truncate": _truncate,
    "flip": _flip,
    "splice": _splice,
    "scramble": _scramble,
    "insert": _insert,
    "remove": _remove,
    "repeat": _repeat,
    "random": _random,
}
"""What is done to bytes, whatever they are; the second clip is for those that want one."""
