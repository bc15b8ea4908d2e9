"""Uploads are counted while they stream, hashed on the way, and leave nothing behind."""

import asyncio
import errno
import hashlib
import stat

import pytest
from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from service.problems import DeadlineExceeded, ServiceError, Unavailable, UploadTooLarge, UploadTooSlow
from service.upload import FRAMING_BYTES, UploadLimits, check_headers, received

CLIP = bytes(range(256)) * 5000
BOUNDARY = "xyz"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def part(name, content, filename="clip.mp4"):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


class Body:
    """What a client sends, in pieces; it can stop half-way or leave. Counts what was read of it."""

    def __init__(self, data, piece=65536, then="end"):
        self.pieces = [data[i : i + piece] for i in range(0, len(data), piece)] or [b""]
        self.then = then
        self.read = 0

    async def receive(self):
        if self.read < len(self.pieces):
            self.read += 1
            last = self.read == len(self.pieces) and self.then == "end"
            return {"type": "http.request", "body": self.pieces[self.read - 1], "more_body": not last}
        if self.then == "leave":
            return {"type": "http.disconnect"}
        return await asyncio.Event().wait()


def upload(tmp_path, body, kind=MULTIPART, *, max_bytes=10_000_000, slow_s=20.0, deadline_s=30.0, **headers):
    """Receive a body; the size, digest, bytes and mode of its file while it is there."""
    fields = {"content-type": kind, "transfer-encoding": "chunked"} | headers
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in fields.items() if v],
    }

    async def main():
        request = Request(scope, body.receive)
        now = asyncio.get_running_loop().time()
        limits = UploadLimits(tmp_path, max_bytes, now + slow_s, now + deadline_s)
        check_headers(request, limits)
        async with received(request, limits) as got:
            mode = stat.S_IMODE(got.path.stat().st_mode)
            return got.size, got.sha256, got.path.read_bytes(), mode

    try:
        return asyncio.run(main())
    finally:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("piece", [7919, 65536, 10_000_000])
def test_raw_body_and_form_give_the_same_private_file(tmp_path, piece):
    form = part("file", CLIP) + END
    for body, kind in [(CLIP, "video/mp4"), (CLIP, "application/octet-stream"), (form, MULTIPART)]:
        size, digest, content, mode = upload(tmp_path, Body(body, piece), kind)
        assert (size, digest, content) == (len(CLIP), hashlib.sha256(CLIP).digest(), CLIP)
        assert mode == 0o600


@settings(max_examples=60, deadline=None)
@given(content=st.binary(min_size=1, max_size=400), piece=st.integers(1, 50))
def test_form_gives_exactly_the_bytes_of_its_part(tmp_path_factory, content, piece):
    if f"\r\n--{BOUNDARY}".encode() in content:
        return
    tmp_path = tmp_path_factory.mktemp("scratch")
    assert upload(tmp_path, Body(part("file", content) + END, piece))[2] == content


@pytest.mark.parametrize(
    ("data", "kind", "problem"),
    [
        (b"", "video/mp4", "empty-body"),
        (part("file", b"") + END, MULTIPART, "empty-body"),
        (part("video", CLIP) + END, MULTIPART, "wrong-field"),
        (part("file", CLIP) + part("note", b"hello") + END, MULTIPART, "wrong-field"),
        (part("file", CLIP) + part("file", CLIP) + END, MULTIPART, "too-many-files"),
        (END, MULTIPART, "wrong-field"),
        (f"--{BOUNDARY}\r\nX-Other: 1\r\n\r\nabc\r\n".encode() + END, MULTIPART, "wrong-field"),
        (part("file", CLIP), MULTIPART, "malformed-multipart"),
        (part("file", CLIP)[:-50], MULTIPART, "malformed-multipart"),
        (CLIP, MULTIPART, "malformed-multipart"),
        (part("file", CLIP) + END, "multipart/form-data", "malformed-multipart"),
        (part("file", CLIP) + END, "multipart/form-data; boundary=" + "b" * 500, "malformed-multipart"),
        (part("file", CLIP) + END, "multipart/form-data; boundary=other", "malformed-multipart"),
        (b"\xff" * 100, MULTIPART, "malformed-multipart"),
        (CLIP, "text/html", "unsupported-media-type"),
        (CLIP, "application/x-www-form-urlencoded", "unsupported-media-type"),
        (CLIP, "", "unsupported-media-type"),
        (CLIP, ";;;=", "unsupported-media-type"),
        (CLIP, "audio/mpeg", "unsupported-media-type"),
    ],
)
def test_bad_body_has_its_own_problem(tmp_path, data, kind, problem):
    with pytest.raises(ServiceError) as caught:
        upload(tmp_path, Body(data), kind)
    assert caught.value.problem == problem


def test_compressed_body_is_refused(tmp_path):
    with pytest.raises(ServiceError) as caught:
        upload(tmp_path, Body(CLIP), "video/mp4", content_encoding="gzip")
    assert caught.value.problem == "unsupported-media-type"


def test_no_body_at_all_is_said_before_its_type(tmp_path):
    for headers in ({"transfer_encoding": ""}, {"content_length": "0"}):
        with pytest.raises(ServiceError) as caught:
            upload(tmp_path, Body(b""), "", **{"transfer-encoding": ""} | headers)
        assert caught.value.problem == "empty-body"


def test_announced_size_over_the_limit_is_refused_unread(tmp_path):
    body = Body(CLIP)
    with pytest.raises(UploadTooLarge):
        upload(tmp_path, body, "video/mp4", max_bytes=1000, content_length="1001")
    assert body.read == 0


@pytest.mark.parametrize("form", [False, True])
def test_body_over_the_limit_is_cut_off_while_it_streams(tmp_path, form):
    data = part("file", CLIP) + END if form else CLIP
    body = Body(data, piece=1000)
    with pytest.raises(UploadTooLarge):
        upload(tmp_path, body, MULTIPART if form else "video/mp4", max_bytes=5000)
    assert body.read <= 7


def test_clip_of_exactly_the_limit_is_taken(tmp_path):
    data = part("file", CLIP) + END
    assert upload(tmp_path, Body(data), max_bytes=len(CLIP), content_length=str(len(data)))[0] == len(CLIP)


def test_endless_framing_is_cut_off(tmp_path):
    body = Body(END + b"x" * 10 * FRAMING_BYTES, piece=1000)
    with pytest.raises(UploadTooLarge):
        upload(tmp_path, body, max_bytes=5000)
    assert body.read < 80


def test_slow_body_is_given_up(tmp_path):
    with pytest.raises(UploadTooSlow):
        upload(tmp_path, Body(CLIP, then="stall"), "video/mp4", slow_s=0.05)


def test_deadline_counts_while_the_body_is_received(tmp_path):
    with pytest.raises(DeadlineExceeded):
        upload(tmp_path, Body(CLIP, then="stall"), "video/mp4", deadline_s=0.05)


def test_client_that_leaves_half_way_leaves_no_file(tmp_path):
    with pytest.raises(ClientDisconnect):
        upload(tmp_path, Body(CLIP, then="leave"), "video/mp4")


@pytest.mark.parametrize("call", ["service.upload.os.write", "service.upload.tempfile.mkstemp"])
def test_a_full_disk_is_no_fault_of_the_client(tmp_path, monkeypatch, call):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(Unavailable) as refused:
        upload(tmp_path, Body(CLIP), "video/mp4")
    assert refused.value.problem == "overloaded"
    assert int(refused.value.headers["Retry-After"]) >= 1
