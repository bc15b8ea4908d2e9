"""The folder of a run: whole parts, one run only, and what need not be scored again."""

import json
import os
from pathlib import Path

import pytest

from batch.clips import Clip
from batch.errors import BatchError
from batch.results import FINAL, RUN, Line, Run, claim, read_outcomes, write_part
from pipeline.bundle import open_bundle
from service.problems import PROBLEMS, problem_body
from service.settings import Settings
from tests.bundles import tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(tiny_bundle(tmp_path_factory.mktemp("models") / "tiny"))


def run(bundle, *, explain=False, timeline=True, **settings):
    return Run.of(
        Settings(models_dir=bundle.path.parent, **settings), bundle, explain=explain, timeline=timeline
    )


def clip(name, size=3, modified_ns=5):
    return Clip(f"/archive/{name}.mp4", size, modified_ns)


def refused(of, name="undecodable-media"):
    return Line(of, problem=problem_body(name, "why").model_dump(exclude_none=True))


def test_a_folder_takes_one_run_alone(bundle, tmp_path):
    claim(tmp_path / "new" / "out", run(bundle))
    claim(tmp_path / "new" / "out", run(bundle, decoders=7, threads=3, max_in_flight=2, max_upload_bytes=9))
    for other in (
        run(bundle, explain=True),
        run(bundle, timeline=False),
        run(bundle, max_faces=1),
        run(bundle, max_duration_s=5),
        run(bundle, max_pixels=5),
        run(bundle).model_copy(update={"digest": "sha256:0"}),
    ):
        (field,) = (k for k, v in other.model_dump().items() if v != run(bundle).model_dump()[k])
        with pytest.raises(BatchError, match=f"another run .*{field}"):
            claim(tmp_path / "new" / "out", other)


def test_another_face_detector_is_another_run(bundle, tmp_path):
    model = tmp_path / "yunet.onnx"
    model.write_bytes(b"one")
    first = run(bundle, face_model=model)
    model.write_bytes(b"two")
    assert run(bundle, face_model=model) != first
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "det.onnx").write_bytes(b"one")
    packed = run(bundle, face_detector="insightface", face_model=pack)
    (pack / "det.onnx").write_bytes(b"two")
    assert len({packed, run(bundle, face_detector="insightface", face_model=pack), first}) == 3


def test_parts_of_nobody_are_not_taken_up(bundle, tmp_path):
    write_part(tmp_path, [refused(clip("a"))])
    with pytest.raises(BatchError, match=f"no {RUN}"):
        claim(tmp_path, run(bundle))
    (tmp_path / RUN).write_text("{}")
    with pytest.raises(BatchError, match="can be taken up"):
        claim(tmp_path, run(bundle))


def test_a_part_is_there_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_part(tmp_path, [refused(clip("a"))])
    assert list(tmp_path.iterdir()) == []
    write_part(tmp_path, [refused(clip("a")), refused(clip("b"))])
    (part,) = tmp_path.iterdir()
    assert [json.loads(line)["file"] for line in part.read_text().splitlines()] == [
        "/archive/a.mp4",
        "/archive/b.mp4",
    ]


def test_what_a_killed_run_left_unfinished_is_no_part(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: None)
    write_part(tmp_path, [refused(clip("a"))])
    assert len(list(tmp_path.iterdir())) == 1
    assert read_outcomes(tmp_path) == {}


def test_the_same_clips_are_the_same_part(tmp_path):
    first = write_part(tmp_path, [refused(clip("a")), refused(clip("b"))])
    assert write_part(tmp_path, [refused(clip("a")), refused(clip("b"))]) == first
    others = [
        [clip("a")],
        [clip("b"), clip("a")],
        [clip("a", size=4), clip("b")],
        [clip("a"), clip("b", 3, 6)],
    ]
    assert len({write_part(tmp_path, [refused(c) for c in clips]) for clips in others} | {first}) == 5


def test_a_name_that_is_no_text_comes_back(tmp_path):
    odd = Clip(os.fsdecode(b"/archive/\xff.mp4"), 1, 1)
    write_part(tmp_path, [refused(odd)])
    assert list(read_outcomes(tmp_path)) == [odd]


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_another_try_could_mend_is_tried_again(tmp_path, name):
    """The clip's own faults stay; limits that the operator may raise, and the server's faults, may pass."""
    write_part(tmp_path, [refused(clip("a"), name)])
    outcome = read_outcomes(tmp_path)[clip("a")]
    assert outcome.name == f"/problems/{name}"
    assert outcome.final == (PROBLEMS[name].status in FINAL)
    passing = {"upload-too-large", "deadline-exceeded", "internal-error", "overloaded", "not-ready"}
    assert not (outcome.final and name in passing)


def test_a_file_that_could_not_be_read_is_tried_again_and_its_last_word_counts(tmp_path):
    gone = Line(clip("a"), problem={"type": "about:blank", "detail": "Stale file handle"})
    for lines in ([gone], [refused(clip("a")), refused(clip("b"))], [gone, refused(clip("c"))]):
        write_part(tmp_path, lines)
    outcomes = read_outcomes(tmp_path)
    assert len(outcomes) == 3
    assert all(outcome.final for outcome in outcomes.values())


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"file": "a", "bytes": 1, "modified_ns": 1}', "null"])
def test_a_damaged_part_is_named(tmp_path, text):
    part = write_part(tmp_path, [refused(clip("a"))])
    part.write_text(part.read_text() + text + "\n")
    with pytest.raises(BatchError, match=rf"{part.name}, line 2"):
        read_outcomes(tmp_path)
