"""The client: the shapes of answers, what it sends, when it asks again, and what it raises."""

import asyncio
import base64
import email.utils
import hashlib
import io
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

import deepfake_detect_client as client_package
from deepfake_detect_client import (
    Answer,
    AsyncClient,
    BadRequest,
    Client,
    ClipRefused,
    ClipTooLarge,
    DeadlineExceeded,
    KeyRefused,
    ModelCard,
    ModelList,
    NotFound,
    Options,
    Problem,
    ProblemError,
    Progress,
    Retries,
    Running,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    WrongDigest,
)
from deepfake_detect_client.errors import retry_after_s
from deepfake_detect_client.events import EventParser
from deepfake_detect_client.upload import PIECE_BYTES
from service import events as served_events

ROOT = Path(__file__).resolve().parents[2]
OPENAPI = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = json.loads(re.search(r"<!-- answer: [^>]*-->\n```json\n(.*?)```", README, re.DOTALL)[1])
CLIP = bytes(range(256)) * 4096
PARAMETERS = OPENAPI["paths"]["/v1/detect"]["post"]["parameters"]
QUERY = {p["name"] for p in PARAMETERS if p["in"] == "query"}


def differences(theirs: dict, mine: dict, path: str, *, given: dict, known: dict) -> list[str]:
    """How a part of the client's schema is not what the service promises, a line each; none when it fits."""
    theirs, mine = resolved(theirs, given), resolved(mine, known)
    if "anyOf" in theirs or "anyOf" in mine:
        (their_parts, may_be_null), (my_parts, takes_null) = alternatives(theirs), alternatives(mine)
        if may_be_null and not takes_null:
            return [f"{path}: may be null, which the client does not take"]
        if len(their_parts) != 1 or len(my_parts) != 1:
            return [] if their_parts == my_parts else [f"{path}: other alternatives"]
        return differences(their_parts[0], my_parts[0], path, given=given, known=known)
    kinds = (theirs.get("type"), mine.get("type"))
    if kinds[0] != kinds[1] and kinds != ("integer", "number") and mine != {}:
        return [f"{path}: is {kinds[0]}, the client wants {kinds[1]}"]
    found = []
    values = set(theirs.get("enum", [theirs["const"]] if "const" in theirs else []))
    if "enum" in mine and not values <= set(mine["enum"]):
        found.append(f"{path}: the client does not know {sorted(values - set(mine['enum']))}")
    if (theirs.get("minItems"), theirs.get("maxItems")) != (mine.get("minItems"), mine.get("maxItems")):
        found.append(f"{path}: the lists are of other lengths")
    inner = [("[]", theirs["items"], mine.get("items", {}))] if "items" in theirs else []
    inner += [
        ("[]", *pair)
        for pair in zip(theirs.get("prefixItems", []), mine.get("prefixItems", []), strict=False)
    ]
    their_fields, my_fields = theirs.get("properties", {}), mine.get("properties", {})
    for name in sorted(their_fields.keys() | my_fields.keys()):
        if name not in my_fields:
            found.append(f"{path}.{name}: is missing in the client")
        elif name not in their_fields:
            found.append(f"{path}.{name}: is unknown to the service")
        elif name in mine.get("required", []) and name not in theirs.get("required", []):
            found.append(f"{path}.{name}: is optional, the client always wants it")
        else:
            inner.append((f".{name}", their_fields[name], my_fields[name]))
    for step, a, b in inner:
        found += differences(a, b, path + step, given=given, known=known)
    return found


def resolved(schema: dict, definitions: dict) -> dict:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    return schema


def alternatives(schema: dict) -> tuple[list[dict], bool]:
    """Alternatives but for null, and whether null is one."""
    parts = schema.get("anyOf", [schema])
    return [p for p in parts if p.get("type") != "null"], {"type": "null"} in parts


def against(theirs: dict, kind: type, given: dict) -> list[str]:
    mine = kind.model_json_schema()
    return differences(theirs, mine, kind.__name__, given=given, known=mine.get("$defs", {}))


@pytest.mark.parametrize("kind", [Answer, ModelList, ModelCard, Problem], ids=lambda k: k.__name__)
def test_the_shapes_are_those_of_the_committed_document(kind):
    schemas = OPENAPI["components"]["schemas"]
    assert against(schemas[kind.__name__], kind, schemas) == []


@pytest.mark.parametrize("kind", [Progress, Running], ids=lambda k: k.__name__)
def test_the_shapes_of_events_are_those_that_are_sent(kind):
    theirs = getattr(served_events, kind.__name__).model_json_schema()
    assert against(theirs, kind, theirs.get("$defs", {})) == []


def test_a_difference_is_named_with_its_place():
    schemas = json.loads(json.dumps(OPENAPI["components"]["schemas"]))
    face, answer = schemas["Face"], schemas["Answer"]
    face["properties"]["gaze"] = {"type": "array", "items": {"type": "number"}}
    face["properties"]["box"]["maxItems"] = 5
    del face["properties"]["usable"]
    face["properties"]["track"] = {"type": "string"}
    face["properties"]["timeline"] = {"anyOf": [face["properties"]["timeline"], {"type": "null"}]}
    answer["properties"]["verdict"]["enum"].append("undecided")
    answer["required"].remove("media")
    assert against(answer, Answer, schemas) == [
        "Answer.media: is optional, the client always wants it",
        "Answer.faces[].gaze: is missing in the client",
        "Answer.faces[].usable: is unknown to the service",
        "Answer.faces[].box: the lists are of other lengths",
        "Answer.faces[].timeline: may be null, which the client does not take",
        "Answer.faces[].track: is string, the client wants integer",
        "Answer.verdict: the client does not know ['undecided']",
    ]


def test_all_that_can_be_asked_can_be_asked_here():
    """wait_s is the header Prefer, deadline_s the parameter deadline_ms."""
    assert {"deadline_ms" if o == "deadline_s" else o for o in Options.__annotations__} - {"wait_s"} == QUERY
    assert [p["name"] for p in PARAMETERS if p["in"] == "header"] == ["Prefer"]


def test_an_answer_is_read_and_written_as_it_came():
    assert Answer.model_validate(SHOWN).model_dump(mode="json") == SHOWN


def test_a_newer_service_is_read_and_what_it_adds_is_kept():
    newer = json.loads(json.dumps(SHOWN))
    newer["weather"] = {"rain": None}
    newer["faces"][0] |= {"gaze": [{"time_s": 0.0, "at": [1, 2]}], "mood": []}
    answer = Answer.model_validate(newer)
    assert answer.faces[0].model_extra["mood"] == []
    assert answer.model_dump(mode="json") == newer


def test_nothing_is_exported_that_is_not_there():
    assert all(hasattr(client_package, name) for name in client_package.__all__)


@dataclass
class Scripted:
    """A transport that answers as it is told, and remembers what was asked."""

    replies: list
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply(request) if callable(reply) else reply


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def fine(request: httpx.Request) -> httpx.Response:
    """What the service answers to a clip that arrived whole."""
    return httpx.Response(200, json=SHOWN, headers={"content-digest": digest(request.content)})


def refused(status: int, name: str, **headers: str) -> httpx.Response:
    body = {
        "type": f"/problems/{name}",
        "title": "Title",
        "status": status,
        "detail": "why",
        "request_id": "r",
    }
    kind = {"content-type": "application/problem+json"}
    return httpx.Response(status, content=json.dumps(body), headers=kind | headers)


def busy(seconds: object = 3) -> httpx.Response:
    return refused(503, "overloaded", **{"retry-after": str(seconds)})


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited between attempts; no time passes."""
    slept: list[float] = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Calls a method of a client of either kind, whose transport answers as scripted."""

    def sync(script, method, *args, retries=None, key=None, url="http://service", **options):
        with httpx.Client(transport=httpx.MockTransport(script)) as http:
            asked = getattr(Client(url, http=http, retries=retries, api_key=key), method)(*args, **options)
            if method != "stream":
                return asked
            with asked as events:
                return list(events)

    async def asynchronous(script, method, *args, retries=None, key=None, url="http://service", **options):
        async with httpx.AsyncClient(transport=httpx.MockTransport(script)) as http:
            asked = getattr(AsyncClient(url, http=http, retries=retries, api_key=key), method)(
                *args, **options
            )
            if method != "stream":
                return await asked
            async with asked as events:
                return [event async for event in events]

    if request.param == "sync":
        return sync
    return lambda *args, **given: asyncio.run(asynchronous(*args, **given))


@pytest.mark.parametrize("form", ["bytes", "view", "path", "string", "file"])
def test_a_clip_is_sent_whole_in_whatever_form_it_is_given(ask, tmp_path, form):
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIP)
    script = Scripted([fine])
    with path.open("rb") as file:
        source = {"bytes": CLIP, "view": memoryview(CLIP), "path": path, "string": str(path), "file": file}[
            form
        ]
        answer = ask(script, "detect", source)
        assert not file.closed
    (sent,) = script.requests
    assert answer == Answer.model_validate(SHOWN)
    assert (sent.method, sent.url.path, sent.content) == ("POST", "/v1/detect", CLIP)
    assert sent.headers["content-length"] == str(len(CLIP))
    assert "transfer-encoding" not in sent.headers
    assert sent.url.params == httpx.QueryParams()


def test_what_is_asked_is_sent(ask):
    script = Scripted([fine])
    options = {"model": "a b", "explain": True, "max_faces": 2, "timeline": False, "wait_s": 7}
    ask(script, "detect", CLIP, key="secret", url="https://host/detector/", **options)
    (sent,) = script.requests
    assert sent.url.path == "/detector/v1/detect"
    assert dict(sent.url.params) == {"model": "a b", "explain": "true", "max_faces": "2", "timeline": "false"}
    assert (sent.headers["prefer"], sent.headers["x-api-key"]) == ("wait=7", "secret")


def test_a_deadline_is_told_with_what_is_left_of_it(ask):
    script = Scripted([fine])
    ask(script, "detect", CLIP, deadline_s=20)
    told = int(script.requests[0].url.params["deadline_ms"])
    assert 10_000 < told <= 19_500
    assert script.requests[0].extensions["timeout"]["read"] <= 20


def test_crops_go_to_their_own_route_with_their_own_type(ask):
    script = Scripted([fine])
    ask(script, "detect_crops", CLIP)
    assert script.requests[0].url.path == "/v1/detect/crops"
    assert script.requests[0].headers["content-type"] == "application/vnd.deepfake-detect.crops"


def test_progress_is_told_piece_by_piece(ask):
    told = []
    ask(Scripted([fine]), "detect", CLIP, on_progress=lambda sent, total: told.append((sent, total)))
    assert len(told) == len(CLIP) // PIECE_BYTES == 4
    assert told[-1] == (len(CLIP), len(CLIP))
    assert told[0] == (PIECE_BYTES, len(CLIP))


def test_no_more_than_one_piece_is_read_at_once(ask):
    class Watched(io.BytesIO):
        largest = 0

        def read(self, size=-1):
            self.largest = max(self.largest, size if size >= 0 else len(CLIP))
            return super().read(size)

    file = Watched(CLIP)
    ask(Scripted([fine]), "detect", file)
    assert file.largest == PIECE_BYTES


class Pipe(io.RawIOBase):
    """Bytes that come once."""

    def __init__(self, content: bytes) -> None:
        self._left = io.BytesIO(content)

    def readable(self):
        return True

    def read(self, size=-1):
        return self._left.read(size)


def test_a_pipe_is_sent_without_its_length(ask):
    told = []
    script = Scripted([fine])
    ask(script, "detect", Pipe(CLIP), on_progress=lambda sent, total: told.append((sent, total)))
    assert script.requests[0].headers["transfer-encoding"] == "chunked"
    assert script.requests[0].content == CLIP
    assert told[-1] == (len(CLIP), None)


def test_text_is_no_clip(ask):
    with pytest.raises(TypeError, match="bytes"):
        ask(Scripted([fine]), "detect", io.StringIO("clip"))


def test_a_clip_that_becomes_shorter_is_not_sent_as_if_it_were_whole(ask, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIP)
    with path.open("rb") as file, pytest.raises(OSError, match="shorter"):
        ask(Scripted([fine]), "detect", file, on_progress=lambda *_: path.write_bytes(b""))


BROKEN = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("no route"),
    httpx.ReadError("reset"),
    httpx.WriteError("reset"),
    httpx.RemoteProtocolError("Server disconnected without sending a response."),
]


@pytest.mark.parametrize("error", BROKEN, ids=lambda e: type(e).__name__)
def test_a_broken_connection_is_tried_again_with_the_whole_clip(ask, waits, error):
    script = Scripted([error, fine])
    file = io.BytesIO(b"skipped" + CLIP)
    file.seek(7)
    ask(script, "detect", file)
    assert script.requests[-1].content == CLIP
    assert len(waits) == 1


def test_no_attempt_comes_before_the_time_that_the_service_names(ask, waits):
    soon = email.utils.formatdate(time.time() + 60, usegmt=True)
    limited = refused(429, "rate-limited", **{"retry-after": "5"})
    script = Scripted([busy(3), limited, busy(soon), httpx.Response(502), busy(0), fine])
    ask(script, "detect", CLIP)
    assert len(waits) == 5
    assert 3 <= waits[0] <= 3.75
    assert 5 <= waits[1] <= 6.25
    assert 55 <= waits[2] <= 75
    assert 2 <= waits[3] <= 4
    assert 0.5 <= waits[4] <= 0.625
    assert [r.content for r in script.requests] == [CLIP] * 6


def test_waits_grow_and_are_spread(ask, waits):
    with pytest.raises(Unreachable):
        ask(
            Scripted([httpx.ConnectError("x") for _ in range(6)]), "models", retries=Retries(longest_wait_s=3)
        )
    bounds = [0.5, 1, 2, 3, 3]
    assert len(waits) == len(bounds)
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    assert len(set(waits)) == len(waits)


def test_attempts_are_bounded(ask, waits):
    script = Scripted([busy() for _ in range(9)])
    with pytest.raises(Unavailable) as caught:
        ask(script, "detect", CLIP, retries=Retries(attempts=3))
    assert len(script.requests) == 3
    assert caught.value.retry_after_s == 3


@pytest.mark.parametrize(
    "given", [{"deadline_s": 30}, {"retries": Retries(patience_s=30)}], ids=["call", "client"]
)
def test_a_wait_that_would_end_too_late_is_not_begun(ask, waits, given):
    script = Scripted([busy(31), fine])
    with pytest.raises(Unavailable) as caught:
        ask(script, "detect", CLIP, **given)
    assert (len(script.requests), waits) == (1, [])
    assert caught.value.retry_after_s == 31


def test_what_can_not_be_rewound_is_sent_once(ask, waits):
    script = Scripted([busy(), fine])
    with pytest.raises(Unavailable):
        ask(script, "detect", Pipe(CLIP))
    assert (len(script.requests), waits) == (1, [])


PROBLEMS = [
    (400, "unknown-parameter", BadRequest),
    (401, "missing-key", KeyRefused),
    (403, "unknown-key", KeyRefused),
    (404, "unknown-model", NotFound),
    (408, "upload-too-slow", ProblemError),
    (413, "upload-too-large", ClipTooLarge),
    (415, "unsupported-media", ClipRefused),
    (422, "undecodable-media", ClipRefused),
    (500, "internal-error", ProblemError),
    (504, "deadline-exceeded", DeadlineExceeded),
]


@pytest.mark.parametrize(("status", "name", "kind"), PROBLEMS, ids=str)
def test_a_refusal_that_another_attempt_does_not_help_is_raised_at_once(ask, waits, status, name, kind):
    script = Scripted([refused(status, name), fine])
    with pytest.raises(kind) as caught:
        ask(script, "detect", CLIP)
    error = caught.value
    assert type(error) is kind
    assert (error.type, error.status, error.detail) == (f"/problems/{name}", status, "why")
    assert error.problem.request_id == "r"
    assert (len(script.requests), waits) == (1, [])


def test_every_status_of_the_document_has_been_thought_of():
    statuses = {int(s) for path in OPENAPI["paths"].values() for o in path.values() for s in o["responses"]}
    assert statuses - {200} <= {status for status, *_ in PROBLEMS} | {429, 503}


def test_a_proxy_need_not_speak_as_the_service_does(ask, waits):
    page = httpx.Response(403, content=b"<html>forbidden</html>")
    with pytest.raises(KeyRefused, match="403 Forbidden: <html>forbidden"):
        ask(Scripted([page]), "models")
    with pytest.raises(UnexpectedAnswer, match="no ModelList"):
        ask(Scripted([httpx.Response(200, content=b"<html>")]), "models")
    moved = httpx.Response(308, headers={"location": "https://other/"})
    with pytest.raises(UnexpectedAnswer, match="https://other/"):
        ask(Scripted([moved]), "detect", CLIP)


def test_other_bytes_than_were_sent_are_noticed(ask):
    wrong = httpx.Response(200, json=SHOWN, headers={"content-digest": digest(b"other")})
    for method in ("detect", "detect_crops", "stream"):
        with pytest.raises(WrongDigest, match=re.escape(digest(CLIP))):
            ask(Scripted([wrong]), method, CLIP)
    assert ask(Scripted([httpx.Response(200, json=SHOWN)]), "detect", CLIP).id == SHOWN["id"]


def test_a_service_that_says_nothing_is_not_asked_again(ask, waits):
    script = Scripted([httpx.ReadTimeout("slow"), fine])
    with pytest.raises(TimedOut):
        ask(script, "detect", CLIP)
    assert (len(script.requests), waits) == (1, [])


def test_an_upload_that_takes_longer_than_the_deadline_is_given_up(ask, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("deepfake_detect_client.retry.time.monotonic", lambda: now[0])

    def slowly(sent, total):
        now[0] += 30

    with pytest.raises(TimedOut, match="40 s"):
        ask(Scripted([fine]), "detect", CLIP, deadline_s=40, on_progress=slowly)


def test_models_cards_and_readiness(ask):
    summary = {
        "id": "a/b",
        "digest": "sha256:0",
        "trained": True,
        "precision": "int8",
        "calibration": None,
        "provider": None,
    }
    listed = ask(Scripted([httpx.Response(200, json={"default": "a/b", "models": [summary]})]), "models")
    assert listed.models[0].id == listed.default == "a/b"
    script = Scripted([httpx.Response(200, json=summary | {"card": "# A", "manifest": {"x": 1}})])
    assert ask(script, "model", "a/b").manifest == {"x": 1}
    assert script.requests[0].url.raw_path == b"/v1/models/a%2Fb"
    assert ask(Scripted([httpx.Response(200, json={"ready": True})]), "ready") is True
    assert ask(Scripted([busy()]), "ready") is False
    with pytest.raises(Unreachable):
        ask(Scripted([httpx.ConnectError("refused")]), "ready")


def events(*pairs: tuple[str, object]) -> bytes:
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in pairs).encode()


PROGRESS = {"bursts": 1, "planned": 8, "seconds_looked_at": 0.1, "faces": 1}
RUNNING = {"verdict": "uncertain", "probabilities": {"real": 0.5, "fake": 0.5}, "seconds_looked_at": 0.1}


def streamed(content: bytes) -> httpx.Response:
    return httpx.Response(200, content=content, headers={"content-type": "text/event-stream; charset=utf-8"})


def test_events_come_typed_and_the_answer_is_the_last(ask, waits):
    told = events(("progress", PROGRESS), ("news", {}), ("running", RUNNING), ("answer", SHOWN))
    script = Scripted([busy(), streamed(told)])
    got = ask(script, "stream", CLIP)
    assert [type(e) for e in got] == [Progress, Running, Answer]
    assert (got[0].planned, got[1].verdict, got[2].id) == (8, "uncertain", SHOWN["id"])
    assert script.requests[0].headers["accept"].startswith("text/event-stream")
    assert len(waits) == 1


def test_a_service_without_events_answers_all_the_same(ask):
    assert [type(e) for e in ask(Scripted([fine]), "stream", CLIP)] == [Answer]


def test_a_problem_among_the_events_is_raised(ask):
    problem = {"type": "/problems/no-frames", "title": "T", "status": 422, "detail": "why"}
    with pytest.raises(ClipRefused) as caught:
        ask(Scripted([streamed(events(("progress", PROGRESS), ("problem", problem)))]), "stream", CLIP)
    assert caught.value.type == "/problems/no-frames"


def test_events_that_break_off_are_no_answer(ask):
    with pytest.raises(Unreachable, match="before the answer"):
        ask(Scripted([streamed(events(("progress", PROGRESS)))]), "stream", CLIP)
    with pytest.raises(UnexpectedAnswer, match="progress"):
        ask(Scripted([streamed(events(("progress", {})))]), "stream", CLIP)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_joined_from_whatever_pieces_they_come_in(size):
    lines = [
        "event: a\r",
        'data: {"x": "\u2028\x85é"}',
        ": comment",
        "",
        "event: b",
        "data: 1",
        "data: 2",
        "",
        "",
        "event: c",
    ]
    content = "\n".join([*lines, "", ""]).encode()
    parser, got = EventParser(), []
    for at in range(0, len(content), size):
        got += parser.feed(content[at : at + size])
    assert got == [("a", '{"x": "\u2028\x85é"}'), ("b", "1\n2")]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None), ("nan", None), ("inf", None)],
)
def test_retry_after_is_a_number_or_a_date(value, seconds):
    assert retry_after_s(value) == seconds


def test_retry_after_may_be_a_date_that_has_passed():
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host", "http://", "", "http://host/?x=1", "http://host:port"]
)
def test_an_address_that_can_be_none_is_refused_at_once(kind, url):
    with pytest.raises(ValueError, match="address"):
        kind(url)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
def test_a_key_that_can_be_none_is_refused_and_not_told(kind, key):
    with pytest.raises(ValueError, match="a key has") as caught:
        kind("http://host", api_key=key)
    assert not key or key not in str(caught.value)


def test_a_key_is_not_shown():
    assert "secret" not in repr(Client("http://host", api_key="secret"))


def test_one_s_own_http_client_stays_open():
    with httpx.Client() as http:
        with Client("http://host", http=http):
            pass
        assert not http.is_closed
    with Client("http://host") as own:
        pass
    assert own._http.is_closed
