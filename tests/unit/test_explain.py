"""Maps say what the model says when parts of a face are taken away, and are withheld where they mislead."""

import base64
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from export.bundle import export_checkpoint
from pipeline import explain
from pipeline.bundle import Calibration, Thresholds, open_bundle
from pipeline.engine import Engine, driven, encoded, scored
from pipeline.explain import DRAWS, WITHHELD, Encode, Score, Shown, explained, unexplained
from pipeline.prepared import Coverage, MediaFacts, PreparedClip, PreparedTrack, Quality
from pipeline.scores import TrackScores, log_odds
from pipeline.verdict import decide
from tests.bundles import GAIN, tiny_bundle
from training.checkpoint import save_checkpoint
from training.model import DetectorNetwork, native_config

LOOKS = 3
QUALITY = Quality(size_px=200, sharpness=300, brightness=0.5, yaw=0.1, detection=0.9)


def clip_of(samples, crop, *, quality=QUALITY, faces=1) -> PreparedClip:
    """A clip whose faces all have the same samples, uint8 [T, F, S, S, 3], a look each second."""
    each = crop.samples_per_burst
    looks = len(samples) // each
    starts = np.repeat(np.arange(looks, dtype=np.float32), each)
    tracks = [
        PreparedTrack(
            track=n,
            samples=samples,
            start_s=starts,
            end_s=starts + np.float32(0.08),
            boxes=np.array([[k, 100, 80, 120, 140] for k in range(looks)], np.float32),
            quality=quality,
            bursts=looks,
            frames_used=looks,
        )
        for n in range(faces)
    ]
    media = MediaFacts("ab" * 32, 1, "mp4", "h264", 640, 480, 3.0, 25.0, 75, looks)
    return PreparedClip(media, Coverage(0.2, 0.1, looks, truncated=False), tracks, faces)


def answered(bundle, clip, drive=None):
    """The explained answer to a clip. drive: what answers the work's questions, an engine unless given."""
    engine = Engine(bundle, threads=1)
    features = encoded(engine, clip)
    scores = scored(engine, features)
    shown = [Shown(f, t.samples) for f, t in zip(features, clip.tracks, strict=True)]
    answer = decide(clip, scores, bundle, explain=True)
    work = explained(answer, clip, scores, shown.__getitem__, bundle)
    return drive(work) if drive else driven(engine, work)


def painted(windows, crop):
    """Samples of even windows, from values 0 to 1 of [T]: the redder, the more they look manipulated."""
    samples = np.zeros((len(windows), crop.frames, crop.side, crop.side, 3), np.uint8)
    samples[..., 0] = np.rint(255 * np.asarray(windows)).astype(np.uint8)[:, None, None, None]
    return samples


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    path = tiny_bundle(tmp_path_factory.mktemp("windows") / "tiny", kind="native", grid=3, frames=2)
    return open_bundle(path)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    return open_bundle(tiny_bundle(tmp_path_factory.mktemp("aligned") / "tiny"))


PLAIN = Calibration(
    id=None, thresholds=Thresholds(authentic_below=0.4, manipulated_above=0.6), data="the network's softmax"
)
FACE = np.array([0.1, 0.1, 0.1, 0.9, 0.8, 0.7, 0.1, 0.2, 0.1])
"""Windows of a face whose middle row looks manipulated."""


def odds(values):
    return log_odds(float(np.mean(1 / (1 + np.exp(-GAIN * np.asarray(values))))), PLAIN)


def test_each_cell_tells_what_the_score_loses_with_its_window(windows):
    crop = windows.manifest.crop
    quieter = 0.8 * FACE
    clip = clip_of(painted(np.concatenate([quieter, FACE, quieter]), crop), crop)
    face = answered(windows, clip).faces[0]
    explanation = face.explanation
    assert (explanation.method, explanation.withheld) == ("window-ablation", None)
    assert [f.time_s for f in explanation.frames] == [1.0, 0.0, 2.0]
    assert [f.fake for f in explanation.frames] == [f.fake for f in face.evidence]
    first = explanation.frames[0]
    values = np.rint(255 * FACE) / 255
    lost = [odds(values) - odds(np.delete(values, c)) for c in range(9)]
    np.testing.assert_allclose(np.ravel(first.grid), lost, atol=1e-3)
    assert (np.array(first.grid)[1] > 0).all()
    named = odds(values) - odds(np.delete(values, [3, 4, 5]))
    assert first.faithfulness.deletion == pytest.approx(named, abs=1e-3)
    assert first.faithfulness.random < 0.3 * named
    assert first.faithfulness.area == pytest.approx(1 / 3, abs=1e-4)
    # Windows of 32 pixels over a square of 1.3 times the width of the box, about its middle.
    assert first.region == (82, 72, 156, 156)
    assert first.box == (100, 80, 120, 140)
    assert cv2.imdecode(png(first.overlay), cv2.IMREAD_COLOR).shape == (128, 128, 3)


def png(uri):
    head, content = uri.split(",")
    assert head == "data:image/png;base64"
    return np.frombuffer(base64.b64decode(content), np.uint8)


def test_a_crop_is_explained_by_hiding_its_cells(aligned):
    crop = aligned.manifest.crop
    samples = np.zeros((LOOKS, 1, 32, 32, 3), np.uint8)
    samples[..., 0] = 40
    # A spot in one cell. Its local mean spreads it over twice the cell's width.
    samples[:, :, 10:14, 18:22, 0] = 255
    explanation = answered(aligned, clip_of(samples, crop)).faces[0].explanation
    first = explanation.frames[0]
    assert (explanation.method, len(explanation.frames)) == ("occlusion", 3)
    assert np.shape(first.grid) == (4, 4)
    assert np.unravel_index(np.argmax(first.grid), (4, 4)) == (1, 2)
    hidden = samples[0, 0].copy()
    hidden[8:16, 16:24] = cv2.blur(samples[0, 0], (8, 8))[8:16, 16:24]
    means = [s.mean(axis=(0, 1))[0] / 255 for s in (samples[0, 0], hidden)]
    assert np.max(first.grid) == pytest.approx(odds([means[0]]) - odds([means[1]]), abs=1e-3)
    assert first.region[2] == first.region[3]


def network_of(crop):
    """A small network whose features and states differ enough for parts to matter."""
    torch.manual_seed(7)
    config = native_config().model_copy(update={"feature_size": 8, "hidden": 6, "width": 4, "crop": crop})
    network = DetectorNetwork(config).eval()
    with torch.no_grad():
        network.head.lstm.weight_ih_l0 *= 30
        network.head.linear.weight *= 6
        network.head.linear.bias[:] = torch.tensor([-0.4, 0.4])
    return network


def exported(network, path):
    save_checkpoint(
        path / "model.pt",
        network.config,
        network.state_dict(),
        {
            "calibration": {
                "id": "made-up",
                "scale": 1.5,
                "bias": 0.2,
                "thresholds": {"authentic_below": 0.05, "manipulated_above": 0.9},
                "data": "none",
            },
            "summary": {},
        },
    )
    return open_bundle(export_checkpoint(path / "model.pt", path / "small"))


@pytest.mark.parametrize("grid", [3, 1], ids=["window-ablation", "occlusion"])
def test_maps_are_those_of_pytorch(tmp_path, grid):
    """What is taken away here is taken away there, of the whole sequence and not only up to the look."""
    crop = native_config().crop.model_copy(update={"side": 16, "grid": grid})
    network = network_of(crop)
    bundle = exported(network, tmp_path)
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, (LOOKS * grid * grid, *network.config.sample_shape))
    noise *= rng.uniform(1, 40, (len(noise), 1, 1, 1, 1))
    samples = np.clip(128 + noise, 0, 255).astype(np.uint8)
    frames = answered(bundle, clip_of(samples, crop)).faces[0].explanation.frames
    calibration, each = bundle.manifest.calibration, grid * grid

    def torch_odds(samples, first, count):
        with torch.no_grad():
            steps = network.step_logits(torch.from_numpy(samples)[None])[0].softmax(-1)
        return log_odds(float(steps[first : first + count, 1].mean()), calibration)

    def hidden(first, cell):
        changed = samples.copy()
        y, x = (4 * k for k in divmod(cell, 4))
        for frame in changed[first]:
            frame[y : y + 4, x : x + 4] = cv2.blur(frame, (4, 4))[y : y + 4, x : x + 4]
        return changed

    assert len(frames) == LOOKS
    compared = 0
    for frame in frames:
        first = round(frame.time_s) * each
        whole = torch_odds(samples, first, each)
        for cell in range(each if grid == 3 else 16):
            if grid == 3:
                rest = torch_odds(np.delete(samples, first + cell, axis=0), first, each - 1)
            else:
                rest = torch_odds(hidden(first, cell), first, 1)
            if frame.grid is not None:
                compared += 1
                assert np.ravel(frame.grid)[cell] == pytest.approx(whole - rest, abs=1e-4)
        if frame.grid is not None:
            assert np.ptp(frame.grid) > 5e-3
    assert compared


def withheld(answer):
    return [f.explanation.withheld.split(":")[0] for f in answer.faces]


def nobody(work):
    """Answers no questions."""
    with pytest.raises(StopIteration) as done:
        next(work)
    return done.value.value


def test_a_face_that_looks_genuine_is_not_explained(windows):
    crop = windows.manifest.crop
    blue = clip_of(painted(np.full(27, 0.5), crop)[..., ::-1], crop)
    answer = answered(windows, blue, nobody)
    assert (answer.verdict, withheld(answer)) == ("authentic", ["low_score"])
    assert answer.faces[0].explanation.frames == []


def test_a_face_that_is_not_judged_is_not_explained(windows):
    crop = windows.manifest.crop
    clip = clip_of(painted(np.tile(FACE, 3), crop), crop, quality=replace(QUALITY, size_px=9))
    assert withheld(answered(windows, clip, nobody)) == ["not_judged"]


def test_a_look_that_looks_genuine_has_no_map(windows):
    crop = windows.manifest.crop
    samples = painted(np.concatenate([FACE, FACE, np.zeros(9)]), crop)
    samples[18:, ..., 2] = 90
    frames = answered(windows, clip_of(samples, crop)).faces[0].explanation.frames
    assert [f.withheld and f.withheld.split(":")[0] for f in frames] == [None, None, "low_score"]
    assert (frames[2].grid, frames[2].overlay, frames[2].faithfulness) == (None, None, None)


def test_a_map_of_evidence_that_is_everywhere_is_withheld(windows):
    crop = windows.manifest.crop
    explanation = answered(windows, clip_of(painted(np.full(27, 0.5), crop), crop)).faces[0].explanation
    assert explanation.withheld == f"not_better_than_random: {WITHHELD['not_better_than_random']}"
    for frame in explanation.frames:
        assert (frame.grid, frame.overlay) == (None, None)
        assert frame.faithfulness.deletion == pytest.approx(frame.faithfulness.random, abs=1e-3)


@pytest.mark.parametrize("named", [0.3, 0.7, 0.9])
def test_a_map_is_withheld_unless_no_random_deletion_does_more(windows, named):
    """A made-up model: single windows matter as the face is painted, what is left of several is as asked."""
    crop = windows.manifest.crop
    clip = clip_of(painted(FACE, crop), crop)
    told = []

    def drive(work):
        answers = None
        while True:
            try:
                asked = work.send(answers)
            except StopIteration as done:
                return done.value
            answers = []
            for sequence in asked.sequences:
                told.append(len(sequence))
                several = len(sequence) == 6
                drawn = told.count(6)
                fake = (1 - named if drawn > DRAWS else 0.2 + 0.02 * drawn) if several else 0.6
                answers.append(TrackScores(np.full((len(sequence), 2), fake, np.float32), np.zeros(2)))

    (frame,) = answered(windows, clip, drive).faces[0].explanation.frames
    assert told.count(8) == 9
    assert told.count(6) == DRAWS + 1
    # The most that a draw takes away leaves 0.22.
    assert (frame.grid is not None) == (named > 0.78)
    assert frame.faithfulness.deletion == pytest.approx(
        odds(np.rint(255 * FACE) / 255) - np.log((1 - named) / named), abs=1e-3
    )


@pytest.mark.parametrize(("faces", "looks"), [(1, [3]), (2, [3, 3]), (3, [2, 2, 2]), (7, [1] * 6 + [0])])
def test_what_is_explained_of_a_clip_has_a_bound(windows, faces, looks):
    crop = windows.manifest.crop
    answer = answered(windows, clip_of(painted(np.tile(FACE, 4), crop), crop, faces=faces))
    assert [len(f.explanation.frames) for f in answer.faces] == looks
    assert [f.explanation.withheld is None for f in answer.faces] == [n > 0 for n in looks]
    if faces == 7:
        assert answer.faces[6].explanation.withheld == f"many_faces: {WITHHELD['many_faces']}"


def test_no_more_is_asked_at_once_than_memory_is_meant_for(windows, aligned, monkeypatch):
    monkeypatch.setattr(explain, "AT_ONCE", 5)
    for bundle, kinds in ((windows, {Score}), (aligned, {Score, Encode})):
        engine = Engine(bundle, threads=1)
        asked = []

        def noting(work, engine=engine, asked=asked):
            def watched():
                answers = None
                while True:
                    try:
                        question = work.send(answers)
                    except StopIteration as done:
                        return done.value
                    asked.append(question)
                    answers = yield question

            return driven(engine, watched())

        crop = bundle.manifest.crop
        samples = painted(np.tile(FACE, 2), crop)
        answer = answered(bundle, clip_of(samples, crop), noting)
        assert answer == answered(bundle, clip_of(samples, crop))
        sizes = [len(a.samples if isinstance(a, Encode) else a.sequences) for a in asked]
        assert (max(sizes), {type(a) for a in asked}) == (5, kinds)


def test_all_explanations_can_be_withheld_for_one_reason(windows):
    crop = windows.manifest.crop
    answer = answered(windows, clip_of(painted(np.tile(FACE, 2), crop), crop, faces=2))
    without = unexplained(answer, windows.manifest, "out_of_time")
    assert withheld(without) == ["out_of_time"] * 2
    assert without.probabilities == answer.probabilities
