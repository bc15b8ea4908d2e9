"""Quantisers are those that the encoder used, on one scale, where they are in the upright picture."""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from av import VideoFrame
from av.sidedata.encparams import VideoEncParamsType
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decode import open_clip
from pipeline.frames import U8
from pipeline.planes import Turn
from pipeline.quantiser import COARSEST, Quantisers, blocks_in, quantisers_of
from tests.media import animation, pattern, rotated, still, write_clip

BOX = (10, 10, 100, 60)
EVEN = "aq-mode=0:ipratio=1:pbratio=1"
TURNS = [Turn(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)]


def noisy(count: int = 12, width: int = 128, height: int = 96) -> list[U8]:
    noise = np.random.default_rng(0).integers(-20, 20, (height, width, 3))
    return [np.clip(f + noise, 0, 255).astype(np.uint8) for f in pattern(count, width, height)]


def found(path: Path, box: Iterable[float] = BOX, threads: int = 1) -> list[float | None]:
    with open_clip(path, threads=threads) as clip:
        frames = [f for burst in clip.bursts([range(len(clip.times_s))]) for f in burst]
    told = [f.quantisers() for f in frames]
    return [quantisers.under(tuple(box)) if quantisers else None for quantisers in told]


def of_blocks(kind: VideoEncParamsType, *blocks: tuple[int, ...], base: int = 0, bits: int = 8) -> Quantisers:
    return Quantisers(kind, base, bits, np.array(list(blocks), np.int32))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("pix_fmt", "qp", "expected"),
    [("yuv420p", 30, 30), ("yuv420p", 0, 0), ("yuv444p", 41, 41), ("yuv420p10le", 30, 18)],
)
def test_h264_is_told_as_it_was_set(
    tmp_path: Path, pix_fmt: str, qp: int, expected: float, interlaced: bool
) -> None:
    # Of ten bits x264 counts from -12, as libav does.
    options = {"qp": str(qp), "x264-params": EVEN}
    clip = write_clip(
        tmp_path / "a.mp4", noisy(), pix_fmt=pix_fmt, options=options, interlaced=interlaced and qp > 0
    )
    assert found(clip) == [expected] * 12


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "mpeg4"),
        ("a.mpg", "mpeg2video"),
        ("b.mpg", "mpeg1video"),
        ("a.flv", "flv1"),
        ("a.avi", "wmv2"),
    ],
)
def test_mpeg_and_its_kin_stand_where_h264_has_the_same_step(tmp_path: Path, name: str, codec: str) -> None:
    # A quantiser of 10 is a step of 20 levels, and so is 30 in H.264: 0.625 times 2 to the fifth.
    options = {"qmin": "10", "qmax": "10", "b": "2000000"}
    values = found(write_clip(tmp_path / name, noisy(), codec=codec, options=options))
    # Of the last picture of MPEG-1 and 2, which comes when nothing follows, libav tells nothing.
    assert values[:-1] == [pytest.approx(30)] * 11


@pytest.mark.parametrize(("index", "step"), [(0, 0.5), (1, 1), (40, 5.875), (160, 38.125), (255, 228.5)])
def test_vp9_is_placed_by_its_step(index: int, step: float) -> None:
    whole = of_blocks(VideoEncParamsType.VP9, (0, 0, 64, 64, 0), base=index)
    expected = min(max(6 * np.log2(step / 0.625), 0), COARSEST)
    assert whole.under((0, 0, 64, 64)) == pytest.approx(expected, abs=0.15)


def test_vp9_tells_of_whole_pictures_and_of_segments(tmp_path: Path) -> None:
    fine = {"qmin": "10", "qmax": "10", "crf": "10", "b": "0"}
    coarse = {"qmin": "55", "qmax": "55", "crf": "55", "b": "0"}
    segments = {"aq-mode": "3", "deadline": "realtime", "cpu-used": "6", "b": "60000"}
    values = []
    for k, options in enumerate((fine, coarse, segments)):
        clip = write_clip(tmp_path / f"{k}.webm", noisy(), codec="libvpx-vp9", options=options)
        values.append(np.array(found(clip), np.float64))
    assert (values[0] < 22).all()
    assert (values[1] > 40).all()
    assert ((values[2] > 0) & (values[2] < COARSEST)).all()


def test_what_is_not_told_is_not_known(tmp_path: Path) -> None:
    frames = noisy(4)
    silent = [
        write_clip(tmp_path / "a.mp4", frames, codec="libx265", options={"x265-params": "log-level=0"}),
        write_clip(tmp_path / "b.webm", frames, codec="libvpx"),
        write_clip(tmp_path / "c.avi", frames, codec="mjpeg", pix_fmt="yuvj420p"),
        animation(tmp_path / "d.gif", frames),
        animation(tmp_path / "e.webp", frames),
        still(tmp_path / "f.jpg", frames[0], orientation=6),
    ]
    for path in silent:
        assert set(found(path)) == {None}


def test_a_box_gets_the_mean_of_its_blocks_by_area() -> None:
    both = of_blocks(VideoEncParamsType.H264, (0, 0, 16, 16, -5), (16, 0, 16, 16, 5), base=30)
    assert both.under((0, 0, 32, 16)) == 30
    assert both.under((8, 4, 12, 4)) == pytest.approx((8 * 25 + 4 * 35) / 12)
    assert both.under((-50, -50, 60, 60)) == 25
    assert both.under((32, 0, 5, 5)) is None
    assert both.under((4, 4, 0, 5)) is None


@given(st.sampled_from(TURNS), st.integers(2, 9), st.integers(2, 9), st.data())
def test_a_box_is_turned_back_with_the_picture(
    turn: Turn, height: int, width: int, data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    plane = np.zeros((height, width), np.uint8)
    plane[y : y + h, x : x + w] = 1
    rows, columns = np.nonzero(turn.apply(plane))
    left, top = int(columns.min()), int(rows.min())
    upright = (left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top)
    assert turn.undone(upright, width, height) == (x, y, w, h)


def test_a_turned_clip_has_its_blocks_where_they_are_seen(tmp_path: Path) -> None:
    frames = noisy(4)
    for frame in frames:
        frame[:, 64:] = 90
    plain = found(rotated(tmp_path / "a.mp4", frames, 0), (0, 0, 32, 96))
    assert plain != found(tmp_path / "a.mp4", (96, 0, 32, 96))
    assert found(rotated(tmp_path / "b.mp4", frames, 180), (96, 0, 32, 96)) == plain
    for degrees, box in ((90, (0, 0, 96, 32)), (270, (0, 96, 96, 32))):
        turned = rotated(tmp_path / f"{degrees}.mp4", frames, degrees)
        assert found(turned, box) == pytest.approx(plain)


def test_threads_change_nothing(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", noisy(30), options={"crf": "30"})
    alone = found(clip)
    assert len(set(alone)) > 1
    assert found(clip, threads=4) == alone


@pytest.mark.parametrize(
    ("count", "size", "start"),
    [(3, 20, 64), (2, 24, 64), (2, 20, 65), (2**31, 20, 64), (1, 16, 64), (1, 21, 64), (1, 0, 64)],
)
def test_a_table_that_does_not_fit_is_none(count: int, size: int, start: int) -> None:
    content = memoryview(bytes(range(64 + 40)))
    assert blocks_in(content, 2, 20, 64) is not None
    assert blocks_in(content, count, size, start) is None


def test_larger_blocks_of_a_later_libav_are_read_by_their_size() -> None:
    rows = np.arange(14, dtype="i4").reshape(2, 7)
    table = blocks_in(memoryview(bytes(8) + rows.tobytes()), 2, 28, 8)
    assert table is not None
    assert table.tolist() == rows.tolist()


@given(st.lists(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 5), min_size=1, max_size=5))
@pytest.mark.parametrize("kind", list(VideoEncParamsType)[1:])
def test_no_table_leads_off_the_scale(kind: VideoEncParamsType, blocks: list[tuple[int, ...]]) -> None:
    value = of_blocks(kind, (0, 0, 16, 16, 0), *blocks, base=2**31 - 1).under((0, 0, 64, 64))
    assert value is not None
    assert 0 <= value <= COARSEST


def test_side_data_that_is_not_known_hides_the_rest() -> None:
    class Odd:
        @property
        def side_data(self) -> None:
            raise ValueError("99 is not a valid Type")

    assert quantisers_of(cast(VideoFrame, Odd())) is None
