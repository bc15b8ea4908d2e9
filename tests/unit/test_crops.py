"""Faces that a client has cut itself: the answer is that to its clip, and nothing else passes for crops."""

import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.bundle import open_bundle
from pipeline.credentials import Credentials
from pipeline.detect.registry import open_detector
from pipeline.errors import MalformedCrops
from pipeline.explain import Shown, explained
from pipeline.golden import GOLDEN
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.prepared import Outline
from pipeline.scores import TrackScores
from pipeline.verdict import decide
from service.crops import GIVEN, MAGIC, read_crops, write_crops
from service.decoder import HEADER, LOOKED, PREPARED
from service.upload import CROPS_TYPE
from tests.bundles import tiny_bundle
from tests.media import face_clip
from tests.running import Running

MAX_FACES = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny", kind="native", side=32, frames=2, grid=2)
    return path


@pytest.fixture(scope="module")
def bundle(models):
    return open_bundle(models / "tiny")


@pytest.fixture(scope="module")
def detector():
    return open_detector("yunet", threads=1)


def prepared(bundle, detector, path, max_faces=MAX_FACES):
    manifest = bundle.manifest
    return prepare(
        path,
        crop=manifest.crop,
        sampling=manifest.sampling,
        detector=detector,
        limits=Limits(),
        max_faces=max_faces,
    )


@pytest.fixture(scope="module")
def clip(bundle, detector):
    return prepared(bundle, detector, GOLDEN)


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    return face_clip(tmp_path_factory.mktemp("media") / "group.mp4", seconds=1.0, size=960, faces=3)


@pytest.fixture
def running(models, tmp_path):
    one = Running(models, tmp_path, max_faces=MAX_FACES)
    one.runner.run(one.start())
    yield one
    one.runner.run(one.stop())
    one.runner.close()


def cut(clip, bundle) -> bytes:
    file = io.BytesIO()
    write_crops(file, clip, bundle)
    return file.getvalue()


def read(data, tmp_path, bundle, max_faces=MAX_FACES):
    path = tmp_path / "faces.crops"
    path.write_bytes(data)
    return read_crops(path, bundle.manifest, max_faces)


def frames_of(data):
    """Header and frames of a file of crops."""
    (size,) = struct.unpack_from("<I", data, len(MAGIC))
    at = len(MAGIC) + 4 + size
    frames = []
    while at < len(data):
        kind, length = HEADER.unpack_from(data, at)
        frames.append((kind, data[at + HEADER.size : at + HEADER.size + length]))
        at += HEADER.size + length
    return data[len(MAGIC) + 4 : len(MAGIC) + 4 + size], frames


def joined(header, frames):
    body = b"".join(HEADER.pack(kind, len(content)) + content for kind, content in frames)
    return MAGIC + struct.pack("<I", len(header)) + header + body


def test_what_is_read_is_what_was_cut(clip, bundle, tmp_path):
    looks, outline = read(cut(clip, bundle), tmp_path, bundle)
    samples = {(looked.number, k): s for looked in looks for k, s in enumerate(looked.samples)}
    back = outline.filled(samples)
    assert (back.media, back.coverage, back.faces_seen) == (clip.media, clip.coverage, clip.faces_seen)
    assert len(back.tracks) == len(clip.tracks) == 1
    np.testing.assert_array_equal(back.tracks[0].samples, clip.tracks[0].samples)
    np.testing.assert_array_equal(back.tracks[0].start_s, clip.tracks[0].start_s)
    assert back.timing_ms == {}


def test_faces_that_are_not_to_be_judged_stay_with_the_client(bundle, detector, group, tmp_path):
    looks, outline = read(cut(prepared(bundle, detector, group, max_faces=2), bundle), tmp_path, bundle)
    assert outline.faces_seen >= 3
    assert len(outline.tracks) == 2
    assert sum(len(looked.samples) for looked in looks) == sum(len(t.cuts) for t in outline.tracks)


def test_answer_is_that_to_the_clip(running, clip, bundle, detector, group):
    for path in (GOLDEN, group):
        crops = cut(prepared(bundle, detector, path), bundle)
        given = running.ask("POST", "/v1/detect/crops", content=crops, headers={"content-type": CROPS_TYPE})
        whole = running.ask(
            "POST", "/v1/detect", content=path.read_bytes(), headers={"content-type": "video/mp4"}
        )
        assert (given.status_code, whole.status_code) == (200, 200)
        a, b = given.json(), whole.json()
        assert a.pop("id") != b.pop("id")
        assert a.pop("reasons") == [*b.pop("reasons"), GIVEN]
        for answer in (a, b):
            answer.pop("timing_ms")
        assert a == b
    assert list(running.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("/v1/detect/crops", "video/mp4", "this route takes application/vnd.deepfake-detect.crops"),
        ("/v1/detect", CROPS_TYPE, "crops are judged at /v1/detect/crops"),
    ],
)
def test_each_route_takes_its_own_kind(running, clip, bundle, url, kind, says):
    response = running.ask("POST", url, content=cut(clip, bundle), headers={"content-type": kind})
    assert (response.status_code, response.json()["type"]) == (415, "/problems/unsupported-media-type")
    assert says in response.json()["detail"]


def test_what_is_no_crops_has_its_own_problem(running):
    response = running.ask(
        "POST", "/v1/detect/crops", content=GOLDEN.read_bytes(), headers={"content-type": CROPS_TYPE}
    )
    assert (response.status_code, response.json()["type"]) == (422, "/problems/malformed-crops")


def test_crops_of_a_model_that_sees_other_ones_are_refused(clip, bundle, tmp_path):
    other = open_bundle(
        tiny_bundle(tmp_path / "other", name="other", kind="native", side=48, grid=2, frames=2)
    )
    with pytest.raises(MalformedCrops, match="cut for 'tiny', which sees other ones than 'other'"):
        read(cut(clip, bundle), tmp_path, other)


def test_more_faces_than_asked_for_are_refused(bundle, detector, group, tmp_path):
    crops = cut(prepared(bundle, detector, group), bundle)
    with pytest.raises(MalformedCrops):
        read(crops, tmp_path, bundle, max_faces=1)


def test_what_is_larger_than_it_can_be_is_not_parsed(clip, bundle, tmp_path):
    header, frames = frames_of(cut(clip, bundle))
    outline = Outline.from_bytes(frames[-1][1])
    huge = replace(outline, tracks=[replace(outline.tracks[0], cuts=((0, 0),) * 100_000)])
    with pytest.raises(MalformedCrops, match="larger than it can be"):
        read(joined(header, [*frames[:-1], (PREPARED, huge.to_bytes())]), tmp_path, bundle)
    with pytest.raises(MalformedCrops, match="bytes at most"):
        read(MAGIC + bytes(10_000_000), tmp_path, bundle)


def test_an_outline_without_its_arrays_is_malformed(clip, bundle, tmp_path):
    header, frames = frames_of(cut(clip, bundle))
    content = frames[-1][1]
    (size,) = struct.unpack_from("<I", content)
    said = json.loads(content[4 : 4 + size])
    del said["tracks"][0]["shapes"]["boxes"]
    short = json.dumps(said).encode()
    frames[-1] = (PREPARED, struct.pack("<I", len(short)) + short + content[4 + size :])
    with pytest.raises(MalformedCrops, match="an array is missing"):
        read(joined(header, frames), tmp_path, bundle)


def test_crops_have_no_partial_answer_and_are_refused_when_it_would_be_late(running, clip, bundle):
    running.service.pace.seconds, running.service.pace.working = 10.0, 2
    crops, headers = cut(clip, bundle), {"content-type": CROPS_TYPE}
    late = running.ask("POST", "/v1/detect/crops?deadline_ms=5000", content=crops, headers=headers)
    running.service.pace.working = 0
    assert (late.status_code, late.json()["type"]) == (503, "/problems/overloaded")


@pytest.mark.parametrize(
    "what", ["nothing behind", "two outlines", "more behind", "no outline", "look twice"]
)
def test_order_of_the_frames_is_kept(clip, bundle, tmp_path, what):
    header, frames = frames_of(cut(clip, bundle))
    assert [kind for kind, _ in frames] == [LOOKED] * (len(frames) - 1) + [PREPARED]
    changed = {
        "nothing behind": [],
        "two outlines": [*frames, frames[-1]],
        "more behind": [*frames, (b"X", b"")],
        "no outline": frames[:-1],
        "look twice": [frames[0], *frames],
    }
    read(joined(header, frames), tmp_path, bundle)
    with pytest.raises(MalformedCrops):
        read(joined(header, changed[what]), tmp_path, bundle)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("media", "width", -1),
        ("media", "bytes", 2**53),
        ("media", "duration_s", 1e12),
        ("media", "container", "x" * 300),
        ("media", "codec", "a\nb"),
        ("coverage", "fraction", 1.5),
        ("coverage", "bursts", -3),
        ("coverage", "spans", ((2.0, 1.0),)),
        ("coverage", "spans", ((-1.0, 1.0),)),
        ("coverage", "spans", ((0.0, 1e9),)),
        ("coverage", "spans", ((0.0, 1.0),) * 5),
        ("quality", "size_px", -5.0),
        ("quality", "sharpness", 1e300),
        ("quality", "quantiser", -1.0),
        ("quality", "quantiser", 51.1),
        ("start_s", None, -1.0),
        ("end_s", None, 1e9),
        ("boxes", None, 3e38),
    ],
)
def test_numbers_that_no_decoder_gives_are_refused(clip, bundle, tmp_path, part, name, value):
    header, frames = frames_of(cut(clip, bundle))
    outline = Outline.from_bytes(frames[-1][1])
    track = outline.tracks[0]
    if part == "quality":
        track = replace(track, quality=replace(track.quality, **{name: value}))
    elif name is None:
        track = replace(track, **{part: np.full_like(getattr(track, part), value)})
    else:
        outline = replace(outline, **{part: replace(getattr(outline, part), **{name: value})})
    frames[-1] = (PREPARED, replace(outline, tracks=[track]).to_bytes())
    with pytest.raises(MalformedCrops, match=r"out of range|too long|order of time"):
        read(joined(header, frames), tmp_path, bundle)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_leads_to_anything_but_its_problem(clip, bundle, tmp_path, data):
    """What is read in spite of it can be judged."""
    crops = bytearray(cut(clip, bundle))
    outline_at = len(crops) - len(frames_of(bytes(crops))[1][-1][1])
    for _ in range(data.draw(st.integers(1, 4))):
        low = data.draw(st.sampled_from([0, outline_at]))
        at = data.draw(st.integers(low, min(len(crops) - 1, low + 4000)))
        crops[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del crops[data.draw(st.integers(0, len(crops))) :]
    try:
        _, outline = read(bytes(crops), tmp_path, bundle)
    except MalformedCrops:
        return
    scores = [
        TrackScores(np.full((len(t.start_s), 2), 0.5, np.float32), np.full(2, 0.5, np.float32))
        for t in outline.tracks
    ]
    answer = decide(outline, scores, bundle, explain=True)
    shown = [
        Shown(np.zeros((len(t.start_s), 3), np.float32), np.zeros((len(t.start_s), 1, 32, 32, 3), np.uint8))
        for t in outline.tracks
    ]
    work = explained(answer, outline, scores, shown.__getitem__, bundle)
    asked = next(work, None)
    while asked is not None:
        same = [TrackScores(np.full((len(s), 2), 0.5, np.float32), np.zeros(2)) for s in asked.sequences]
        try:
            asked = work.send(same)
        except StopIteration as done:
            answer, asked = done.value, None
    json.loads(answer.model_dump_json())


def test_a_client_can_not_say_that_a_manifest_is_valid(running, clip, bundle, tmp_path):
    signed = replace(
        clip, media=replace(clip.media, c2pa="present"), credentials=Credentials(valid=True, trusted=True)
    )
    crops, headers = cut(signed, bundle), {"content-type": CROPS_TYPE}
    provenance = running.ask("POST", "/v1/detect/crops", content=crops, headers=headers).json()["media"][
        "provenance"
    ]
    assert (provenance["c2pa"], provenance["valid"], provenance["trusted"]) == ("present", None, None)
    assert provenance["unchecked"] == "crops"
    header, frames = frames_of(crops)
    content = frames[-1][1]
    (size,) = struct.unpack_from("<I", content)
    said = json.loads(content[4 : 4 + size])
    assert "credentials" not in said
    said["credentials"] = {"valid": True}
    forged = json.dumps(said).encode()
    frames[-1] = (PREPARED, struct.pack("<I", len(forged)) + forged + content[4 + size :])
    with pytest.raises(MalformedCrops):
        read(joined(header, frames), tmp_path, bundle)
