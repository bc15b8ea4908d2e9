"""Multipart bodies around a sound clip, right or wrong (RFC 7578, RFC 2046)."""

from collections.abc import Callable
from random import Random

BOUNDARY = b"a-boundary-of-27-characters"
PRINTABLE = bytes(range(33, 127)).decode()
DISPOSITION = b'Content-Disposition: form-data; name="file"; filename="clip.mp4"'
TYPE = b"multipart/form-data; boundary="

Form = tuple[bytes, bytes]
"""The value of Content-Type and the body."""


def part(clip: bytes, *headers: bytes, boundary: bytes = BOUNDARY) -> bytes:
    """One part with its delimiter."""
    lines = headers or (DISPOSITION, b"Content-Type: video/mp4")
    return b"--" + boundary + b"\r\n" + b"\r\n".join((*lines, b"", clip)) + b"\r\n"


def form(clip: bytes, boundary: bytes = BOUNDARY) -> Form:
    """A form as it should be."""
    return TYPE + boundary, part(clip, boundary=boundary) + b"--" + boundary + b"--\r\n"


def _type(rng: Random, clip: bytes) -> Form:
    """Content-Type changed in a few characters."""
    kind, body = form(clip)
    text = bytearray(kind)
    for _ in range(rng.randint(1, 4)):
        text[rng.randrange(1, len(text))] = ord(rng.choice(PRINTABLE + '";=\\ *%'))
    return bytes(text).rstrip(), body


def _odd_type(rng: Random, clip: bytes) -> Form:
    ends = (
        b"",
        b"=",
        b'="',
        b'=""',
        b"=;",
        b"*=utf-8''" + BOUNDARY,
        b"*=" + BOUNDARY,
        b"*0=a; boundary*1=b",
        b"=" + BOUNDARY + b"; boundary=other",
        b"=" + BOUNDARY * 20,
        b'="' + BOUNDARY + b'"',
        b'="a\\"b"',
        b"=" + BOUNDARY + b"; charset=utf-7",
    )
    return b"multipart/form-data; boundary" + rng.choice(ends), form(clip)[1]


def _boundary(rng: Random, clip: bytes) -> Form:
    """A boundary that is no good, or that stands within the clip."""
    odd = "".join(
        rng.choice(PRINTABLE.replace('"', "").replace(";", "")) for _ in range(rng.choice((1, 9, 70, 300)))
    )
    kind, body = form(clip, odd.encode())
    return rng.choice(((kind, body), (kind, body.replace(b"\r\n", b"\r\n--" + odd.encode(), 3))))


def _headers(rng: Random, clip: bytes) -> Form:
    """Headers of the part that are long, many, missing or no headers."""
    odd = (
        (b"X: " + b"a" * rng.choice((100, 20_000, 200_000)), DISPOSITION),
        (*(b"X-%d: y" % k for k in range(rng.choice((50, 5000)))), DISPOSITION),
        (b"Content-Type: video/mp4",),
        (b"Content-Disposition: form-data",),
        (b"Content-Disposition: form-data; name=file",),
        (b"Content-Disposition: form-data; name*=utf-8''file",),
        (b'Content-Disposition: form-data; name="\xff\xfe"',),
        (b'Content-Disposition: form-data; name="fi\\le"; name="file"',),
        (b'Content-Disposition: form-data; name="file',),
        (DISPOSITION, DISPOSITION),
        (DISPOSITION, b"Content-Transfer-Encoding: base64"),
        (DISPOSITION + b'; filename="' + b"a" * 5000 + b'"',),
        (DISPOSITION, b"no header at all"),
        (DISPOSITION, b": empty name"),
        (DISPOSITION, b"X: \x00\x01\x7f"),
        (b"content-disposition:form-data;name=file",),
        (b" folded: " + DISPOSITION,),
    )
    return TYPE + BOUNDARY, part(clip, *rng.choice(odd)) + b"--" + BOUNDARY + b"--\r\n"


def _parts(rng: Random, clip: bytes) -> Form:
    """No part, two, many, one in another, one without a clip."""
    end = b"--" + BOUNDARY + b"--\r\n"
    inner = b"Content-Type: multipart/mixed; boundary=inner"
    other = b'Content-Disposition: form-data; name="other"'
    bodies = (
        end,
        part(clip) * 2 + end,
        part(b"") + end,
        part(b"", other) * 500 + end,
        part(clip) + part(b"x", other) + end,
        part(part(clip, boundary=b"inner") + b"--inner--", DISPOSITION, inner) + end,
        b"a preamble\r\n" + part(clip) + end + b"an epilogue " * 1000,
        part(clip) + end + part(clip) + end,
        end + part(clip) + end,
    )
    return TYPE + BOUNDARY, rng.choice(bodies)


def _ends(rng: Random, clip: bytes) -> Form:
    """It breaks off."""
    kind, body = form(clip)
    near = rng.choice((rng.randrange(200), len(body) - rng.randrange(1, 40), rng.randrange(len(body))))
    return kind, body[:near]


def _lines(_rng: Random, clip: bytes) -> Form:
    """Lines that end otherwise."""
    kind, body = form(clip)
    head, _, rest = body.partition(clip)
    return kind, head.replace(b"\r\n", b"\n") + clip + rest.replace(b"\r\n", b"\n")


def _framing(rng: Random, clip: bytes) -> Form:
    """Flipped bits in all but the clip."""
    kind, body = form(clip)
    text = bytearray(body)
    around = body.index(clip)
    for _ in range(rng.randint(1, 6)):
        at = rng.choice((rng.randrange(around), rng.randrange(around + len(clip), len(body))))
        text[at] ^= 1 << rng.randrange(8)
    return kind, bytes(text)


FORMS: dict[str, Callable[[Random, bytes], Form]] = {
    "type": _type,
    "odd-type": _odd_type,
    "boundary": _boundary,
    "headers": _headers,
    "parts": _parts,
    "ends": _ends,
    "lines": _lines,
    "framing": _framing,
}
