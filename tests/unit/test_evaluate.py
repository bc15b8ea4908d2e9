"""Evaluation: tables, conditions, what is counted, and the command from clips to figures in the card."""

import csv
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.main import main
from pipeline.bundle import Thresholds, open_bundle
from pipeline.decode import open_clip
from pipeline.frames import Frame
from tests.bundles import tiny_bundle
from tests.media import TEXT, face_clip, pattern, rotated, write_clip
from training.card import headline, write_card
from training.evaluate import Evaluation, EvaluationError, evaluate
from training.figures import measure, order_of_pairs
from training.labelled import LabelledClip, LabelledPair, TableError, read_clips, read_pairs
from training.plots_evaluation import write_plots
from training.report import interval, report, table
from training.scoring import Pipeline, Scored, score_clips, sharpness
from training.transcode import CONDITIONS, PUBLISHED, Condition, Encoder, under


def frames_of(path: Path) -> list[Frame]:
    with open_clip(path) as clip:
        return [f for burst in clip.bursts([range(len(clip.times_s))]) for f in burst]


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, sorted({k for r in rows for k in r}))
        writer.writeheader()
        writer.writerows(rows)
    return path


# Tables


def test_a_table_needs_no_more_than_file_and_label(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_text("﻿file,label\na.mp4,real\n b.mp4 ,FAKE\n", encoding="utf-8")
    found = read_clips(path)
    assert [(c.file, c.fake) for c in found.clips] == [("a.mp4", False), ("b.mp4", True)]
    assert len({c.person for c in found.clips}) == 2
    assert (found.named, found.root) == (0, tmp_path)


def test_splits_are_never_mixed_unasked(tmp_path: Path) -> None:
    rows = [{"file": f"{s}.mp4", "label": "real", "split": s, "identity": "p"} for s in ("train", "measure")]
    path = write_table(tmp_path / "clips.csv", rows)
    with pytest.raises(TableError, match="measure, train: name one"):
        read_clips(path)
    with pytest.raises(TableError, match="no clip of the split test"):
        read_clips(path, "test")
    assert [c.file for c in read_clips(path, "measure").clips] == ["measure.mp4"]
    assert read_clips(path, "measure").named == 1
    assert len(read_clips(path, "all").clips) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file\na\n", "no column label"),
        ("file,label\n", "no rows"),
        ("file,label\na,real\na,fake\n", "row 3: a is listed twice"),
        ("file,label\na,maybe\n", "row 2.*maybe"),
        ("file,label\n,real\n", "row 2: no file"),
        ("file,label\na\n", "row 2: label is ''"),
    ],
)
def test_a_malformed_table_says_where(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "clips.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=said):
        read_clips(path)


def test_a_table_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="can not be read"):
        read_clips(tmp_path / "absent.csv")
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(TableError, match=r"noise\.csv"):
        read_clips(tmp_path / "noise.csv")


def test_pairs_of_other_splits_are_left_out(tmp_path: Path) -> None:
    rows = [{"real_file": f"r{s}", "fake_file": f"f{s}", "split": s} for s in ("train", "measure")]
    path = write_table(tmp_path / "pairs.csv", rows)
    assert [p.fake for p in read_pairs(path, "measure")] == ["fmeasure"]
    assert len(read_pairs(path)) == len(read_pairs(path, "all")) == 2


# Conditions


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    return write_clip(path, pattern(30, 202, 102), rate=30, options={"crf": "10"})


def test_half_size_halves_both_sides_and_keeps_the_frames(plain: Path, tmp_path: Path) -> None:
    before, after = frames_of(plain), frames_of(under(_of("half-size"), plain, tmp_path / "a.mp4"))
    assert (after[0].width, after[0].height) == (100, 52)
    assert [f.time_s for f in after] == pytest.approx([f.time_s for f in before], abs=1e-4)


def test_15_fps_drops_every_other_frame_of_30_and_none_of_15(plain: Path, tmp_path: Path) -> None:
    before, after = frames_of(plain), frames_of(under(_of("15-fps"), plain, tmp_path / "a.mp4"))
    assert [f.time_s for f in after] == pytest.approx([f.time_s for f in before[::2]], abs=1e-4)
    slow = write_clip(tmp_path / "slow.mp4", pattern(15), rate=15)
    assert len(frames_of(under(_of("15-fps"), slow, tmp_path / "b.mp4"))) == 15


def test_a_crop_keeps_the_middle_untouched(plain: Path, tmp_path: Path) -> None:
    before = frames_of(plain)[3]
    after = frames_of(under(_of("crop-70", crf=0), plain, tmp_path / "a.mp4"))[3]
    assert (after.width, after.height) == (142, 72)
    assert np.array_equal(after.y, before.y[14 : 14 + 72, 30 : 30 + 142])
    assert np.array_equal(after.u, before.u[7 : 7 + 36, 15 : 15 + 71])


def test_brightness_scales_luma_above_black(plain: Path, tmp_path: Path) -> None:
    before = frames_of(plain)[0].y.astype(float)
    for name, gain in (("brighter", 1.3), ("darker", 0.7)):
        after = frames_of(under(_of(name, crf=0), plain, tmp_path / f"{name}.mp4"))[0].y
        assert np.abs(after - np.clip(16 + (before - 16) * gain, 0, 255)).max() <= 0.51


def test_a_higher_crf_leaves_less(plain: Path, tmp_path: Path) -> None:
    sizes = [under(_of(f"crf-{crf}"), plain, tmp_path / f"{crf}.mp4").stat().st_size for crf in (23, 30, 38)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.5 * sizes[2]


@pytest.mark.parametrize(
    ("encoder", "levels"), [("libx265", (18, 40)), ("libvpx-vp9", (24, 60)), ("mpeg4", (2, 31))]
)
def test_other_encoders_keep_times_and_leave_less_too(
    plain: Path, tmp_path: Path, encoder: Encoder, levels: tuple[int, int]
) -> None:
    sizes, times = [], [f.time_s for f in frames_of(plain)]
    for level in levels:
        path = under(Condition(crf=level, encoder=encoder), plain, tmp_path / f"{level}.mp4")
        assert [f.time_s for f in frames_of(path)] == pytest.approx(times, abs=1e-3)
        sizes.append(path.stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]


def test_a_turned_clip_stays_upright(tmp_path: Path) -> None:
    turned = rotated(tmp_path / "turned.mp4", pattern(4, 96, 64), 90)
    before, after = frames_of(turned), frames_of(under(_of("crf-23"), turned, tmp_path / "again.mp4"))
    assert (after[0].width, after[0].height) == (before[0].width, before[0].height) == (64, 96)
    assert np.abs(after[0].y.astype(float) - before[0].y).mean() < 4


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0, 40, 55, 200, 260, 300]
    uneven = write_clip(tmp_path / "a.mp4", pattern(6), times_ms=times)
    after = frames_of(under(_of("crf-23"), uneven, tmp_path / "b.mp4"))
    assert [f.time_s * 1000 for f in after] == pytest.approx(times, abs=0.1)


def _of(name: str, crf: int | None = None) -> Condition:
    condition = CONDITIONS[name][1]
    assert condition is not None
    return condition if crf is None else Condition(**{**_fields(condition), "crf": crf})


def _fields(condition: Condition) -> dict[str, float]:
    return {name: getattr(condition, name) for name in Condition.__slots__}


# What is counted


def clip(name: str, fake: bool, **known: str) -> LabelledClip:
    of = {"split": "", "person": name, "source": "", "method": "", "family": ""} | known
    return LabelledClip(name, fake, **of)


def scored(p: float | None, verdict: str = "") -> Scored:
    called = "manipulated" if p is not None and p >= 0.7 else "authentic" if (p or 0) < 0.3 else "uncertain"
    return Scored(p, verdict or called, sharpness=1.0, why="broken" if verdict == "unreadable" else "")


def test_figures_of_known_scores() -> None:
    clips = [clip(f"r{i}", False, family="tv", source="a") for i in range(4)]
    clips += [clip(f"f{i}", True, method="m", family="swap", source="b") for i in range(4)]
    answers = [scored(p) for p in (0.1, 0.2, 0.8, 0.5, 0.6, 0.9, 0.95, 0.2)]
    figures = measure(clips, {PUBLISHED: answers})
    of = figures["conditions"][PUBLISHED]["figures"]
    assert of["auc"]["value"] == pytest.approx((3 + 4 + 4 + 1.5) / 16, abs=1e-4)
    assert of["false_positive_rate"]["value"] == 0.25
    assert of["true_positive_rate"]["value"] == 0.5
    assert of["false_negative_rate"]["value"] == 0.25
    assert of["accuracy"]["value"] == 5 / 8
    assert of["not_applicable"]["value"] == 0
    assert "100 real clips; there are 4" in of["true_positive_rate_at_fpr_0.01"]["why"]
    assert figures["methods"]["m"]["auc"] == of["auc"]
    assert figures["families"]["swap"]["true_positive_rate"] == of["true_positive_rate"]
    assert figures["footage"]["tv"]["false_positive_rate"] == of["false_positive_rate"]
    assert "no fake" in figures["sources"]["a"]["auc"]["why"]
    assert sum(b["clips"] for b in figures["reliability"]) == 8


def test_every_figure_has_its_interval_or_says_why_not() -> None:
    """Whatever the input: no value stands alone, and none is invented."""
    mixed = [clip(f"{i}", i % 2 == 1, method="m", family="x", source="s") for i in range(6)]
    for clips, answers in (
        (mixed, [scored(p) for p in (0.1, 0.8, 0.4, 0.9, 0.6, 0.2)]),
        (mixed, [scored(None, "not_applicable")] * 6),
        (mixed, [scored(None, "unreadable")] * 6),
        (mixed, [scored(0.5)] * 6),
        ([c for c in mixed if c.fake], [scored(0.9)] * 3),
        (mixed[:1], [scored(0.2)]),
    ):
        figures = measure(clips, {PUBLISHED: answers})
        found = list(_figures_in(figures))
        assert len(found) > 15
        for figure in found:
            if figure["value"] is None:
                assert figure["low"] is figure["high"] is None
                assert figure["why"]
            else:
                assert figure["low"] <= figure["high"]
        json.dumps(figures, allow_nan=False)


def _figures_in(part: object):  # type: ignore[no-untyped-def]
    if isinstance(part, dict):
        if "value" in part:
            yield part
        for inner in part.values():
            yield from _figures_in(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _figures_in(inner)


def test_real_clips_alone_give_a_false_positive_rate_and_no_auc() -> None:
    clips = [clip(str(i), False) for i in range(20)]
    of = measure(clips, {PUBLISHED: [scored(0.9 if i == 0 else 0.1) for i in range(20)]})
    figures = of["conditions"][PUBLISHED]["figures"]
    assert figures["false_positive_rate"]["value"] == 0.05
    assert figures["auc"]["value"] is None
    assert "no fake clip" in figures["auc"]["why"]


def test_faceless_and_unreadable_clips_are_counted_apart() -> None:
    clips = [clip(str(i), i >= 4) for i in range(8)]
    answers = [scored(None, "not_applicable"), scored(None, "unreadable"), *[scored(0.5)] * 6]
    figures = measure(clips, {PUBLISHED: answers})
    assert figures["unreadable"] == [{"file": "1", "condition": PUBLISHED, "why": "broken"}]
    of = figures["conditions"][PUBLISHED]
    assert of["confusion"]["real"] == {
        "authentic": 0,
        "uncertain": 2,
        "manipulated": 0,
        "not_applicable": 1,
        "unreadable": 1,
    }
    assert of["figures"]["not_applicable"]["value"] == pytest.approx(1 / 7, abs=1e-4)
    assert (of["real"], of["fake"], of["unreadable"]) == (2, 4, 1)


def test_a_pair_is_in_order_when_the_forged_one_scores_higher() -> None:
    pairs = [LabelledPair(f"r{i}", f"f{i}", "", f"p{i}", "m", "swap" if i < 2 else "lips") for i in range(4)]
    answers = [
        (pairs[0], scored(0.2), scored(0.3)),
        (pairs[1], scored(0.3), scored(0.3)),
        (pairs[2], scored(0.9), scored(0.95)),
        (pairs[3], scored(None, "not_applicable"), scored(0.9)),
    ]
    found = order_of_pairs(answers)
    assert (found["all"]["won"], found["all"]["pairs"], found["listed"]) == (2, 3, 4)
    assert (found["families"]["swap"]["won"], found["families"]["lips"]["won"]) == (1, 1)
    assert found["all"]["low"] < found["all"]["value"] < found["all"]["high"]


# Reports


def test_a_figure_is_never_printed_without_its_interval() -> None:
    assert interval({"value": 0.744, "low": 0.6, "high": 0.8}) == "0.74 (0.60 to 0.80)"
    assert interval({"value": None, "low": None, "high": None, "why": "no fakes"}) == "not measured: no fakes"


def test_names_can_not_break_a_table() -> None:
    lines = table(["a|b"], [["c\nd"], ["|"]]).splitlines()
    assert lines == ["| a\\|b |", "| --- |", "| c d |", "| \\| |"]


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    reals = [clip(f"r{i}", False, source="a" if i % 2 else "b" * 80) for i in range(6)]
    fakes = [clip(f"f{i}", True) for i in range(6)]
    for name, clips, expected in (
        ("reals", reals, ["sources.png"]),
        ("both", reals + fakes, ["reliability.png", "roc.png", "sources.png"]),
        ("unnamed", [clip(c.file, c.fake) for c in reals + fakes], ["reliability.png", "roc.png"]),
    ):
        answers = {PUBLISHED: [scored(0.1 * (k % 9)) for k in range(len(clips))]}
        written = write_plots(Evaluation(measure(clips, answers), clips, answers), tmp_path / name)
        assert sorted(p.name for p in written) == expected
        for path in written:
            pixels = np.asarray(Image.open(path).convert("L"))
            assert min(pixels.shape) > 100
            assert pixels.std() > 5


# The whole way


def tinted_clips(root: Path, reds: dict[str, int]) -> None:
    """A clip of a face for each name, with so much red added: a tiny bundle calls red fake."""
    face_clip(root / "face.mp4", seconds=0.4)
    rgb = [f.bgr()[..., ::-1] for f in frames_of(root / "face.mp4")]
    for name, red in reds.items():
        tinted = [np.clip(f + np.array([red, 0, 0]), 0, 255).astype(np.uint8) for f in rgb]
        write_clip(root / f"{name}.mp4", tinted)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real and two fake clips of faces, one of nothing, one broken and one that is not there."""
    root = tmp_path_factory.mktemp("corpus")
    tinted_clips(root, {"r0": -60, "r1": -50, "r2": -40, "f0": 20, "f1": 40, "f2": 60})
    write_clip(root / "nobody.mp4", pattern(8))
    (root / "broken.mp4").write_bytes(TEXT)
    rows = [
        {"file": f"{name}.mp4", "label": "fake" if name[0] == "f" else "real", "method": "tint"}
        for name in ("r0", "r1", "r2", "f0", "f1", "f2", "nobody", "broken", "=absent")
    ]
    write_table(root / "clips.csv", rows)
    write_table(root / "pairs.csv", [{"real_file": "r0.mp4", "fake_file": "f0.mp4", "family": "tinted"}])
    return root


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny", bursts=2)


def run(*args: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["deepfake-detect", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def test_from_clips_to_figures_in_the_report_and_in_the_card(
    corpus: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(
        "evaluate", bundle, "--clips", corpus / "clips.csv", "--pairs", corpus / "pairs.csv",
        "--conditions", "half-size", "--out", tmp_path / "out", "--card", "--workers", 1, capsys=capsys,
    )  # fmt: skip
    assert code == 0, err
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["evaluation.json", "evaluation.md", "reliability.png", "roc.png", "scores.csv"]
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    of = figures["conditions"][PUBLISHED]
    assert (of["real"], of["fake"], of["figures"]["auc"]["value"]) == (3, 3, 1.0)
    assert set(figures["conditions"]) == {PUBLISHED, "half-size"}
    assert figures["conditions"]["half-size"]["fake"] == 3
    assert {u["file"] for u in figures["unreadable"]} == {"broken.mp4", "=absent.mp4"}
    assert of["confusion"]["real"]["not_applicable"] == 1
    assert (figures["pairs"]["all"]["won"], figures["pairs"]["families"]["tinted"]["pairs"]) == (1, 1)
    assert figures["clips"]["with_identity"] == 0
    assert out == (tmp_path / "out" / "evaluation.md").read_text() == report(figures)
    assert "9 clips have no identity" in out
    with (tmp_path / "out" / "scores.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 18
    assert {row["file"] for row in rows} >= {"r0.mp4", "'=absent.mp4"}, "a name like a formula is guarded"
    assert all((row["fake"] == "") is (row["verdict"] in {"unreadable", "not_applicable"}) for row in rows)
    assert all(float(row["sharpness"]) > 0 for row in rows if row["fake"])

    opened = open_bundle(bundle)
    kept = opened.manifest.summary["evaluation"]
    assert kept["conditions"] == figures["conditions"]
    assert headline(kept)["auc"] == of["figures"]["auc"]
    assert "| tint |" in opened.card
    assert "9 clips" in opened.card


def test_what_a_card_says_in_words_stands_in_the_manifest(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    training = {
        "data": "Clips of pigeons.",
        "sources": [{"what": "pigeons", "clips": 3, "licence": "CC0"}],
        "limits": ["Nothing but pigeons."],
        "steps": 12,
        "commands": ["deepfake-detect train pigeons.toml"],
    }
    summary = {"training": training, "precision": {"largest": 0.002}}
    written = write_card(bundle, manifest.model_copy(update={"summary": summary}))
    opened = open_bundle(bundle)
    assert opened.manifest == written
    said = written.summary["card"]
    for text in (said["data"], said["intended_use"], said["licence"], *said["limits"], "CC0", "pigeons.toml"):
        assert text in opened.card
    assert "| steps | 12 |" in opened.card
    assert "## Precision\n\n|  |  |\n| --- | --- |\n| largest | 0.002 |" in opened.card
    assert "Nothing but pigeons." in said["limits"]
    assert "they meet" not in opened.card
    met = Thresholds(authentic_below=0.5, manipulated_above=0.5)
    calibration = manifest.calibration.model_copy(update={"thresholds": met})
    write_card(bundle, manifest.model_copy(update={"calibration": calibration}))
    assert "they meet" in open_bundle(bundle).card
    silent = write_card(bundle, manifest.model_copy(update={"summary": {}}))
    assert "did not say" in silent.summary["card"]["data"]


def test_unknown_conditions_and_splits_are_one_line(
    corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(
        "evaluate", bundle, "--clips", corpus / "clips.csv", "--conditions", "upside-down", capsys=capsys
    )
    assert code == 3
    assert "no condition is called upside-down" in err
    with pytest.raises(EvaluationError, match="crf-30"):
        evaluate(Pipeline(bundle), corpus / "clips.csv", conditions=["x"])
    code, _, err = run(
        "evaluate", bundle, "--clips", corpus / "clips.csv", "--split", "measure", capsys=capsys
    )
    assert (code, len(err.splitlines())) == (3, 1)
    assert "no clip of the split measure" in err


def test_a_worker_that_is_killed_costs_no_clip(corpus: Path, bundle: Path) -> None:
    killed = []

    def kill_all_once() -> None:
        if not killed:
            killed.extend(multiprocessing.active_children())
            for child in killed:
                os.kill(child.pid, signal.SIGKILL)

    clips = [(corpus / n, PUBLISHED) for n in ("r0.mp4", "f0.mp4")]
    answers = score_clips(Pipeline(bundle), clips, workers=1, on_done=kill_all_once)
    assert killed
    real, fake = (a.fake for a in answers)
    assert real is not None
    assert fake is not None
    assert real < fake


def test_a_clip_that_never_ends_is_given_up(corpus: Path, bundle: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (answer,) = score_clips(Pipeline(bundle), [(tmp_path / "fifo.mp4", PUBLISHED)], workers=1, limit_s=1.0)
    assert (answer.verdict, answer.fake) == ("unreadable", None)
    assert "not done in 1 s" in answer.why


def test_sharpness_is_of_luma_whatever_the_crop_holds(corpus: Path, tmp_path: Path) -> None:
    """Aligned RGB and native YUV of the same frames agree far better than either does with a soft copy."""
    from pipeline.detect.registry import open_detector
    from pipeline.media import Limits
    from pipeline.prepare import prepare
    from pipeline.spec import CropSpec, SamplingSpec

    sampling, faces = SamplingSpec(bursts=1, burst_frames=2), open_detector("yunet")
    soft = under(Condition(crf=40), corpus / "face.mp4", tmp_path / "soft.mp4")
    found = {}
    for crop in (
        CropSpec(kind="aligned", side=112),
        CropSpec(kind="native", side=64, colour="yuv", margin=0.8),
    ):
        for path in (corpus / "face.mp4", soft):
            prepared = prepare(path, crop=crop, sampling=sampling, detector=faces, limits=Limits())
            found[crop.kind, path == soft] = sharpness(prepared, crop)
        assert found[crop.kind, False] > 1.3 * found[crop.kind, True]
