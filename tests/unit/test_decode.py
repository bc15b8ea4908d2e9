"""Clips of every kind give the right frames at the right times, and broken ones the right error."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.codec.context import ThreadType
from av.stream import Disposition

from pipeline import source
from pipeline.decode import Clip, open_clip
from pipeline.errors import (
    NoFrames,
    NoVideoStream,
    PictureTooLarge,
    PictureTooSmall,
    UndecodableMedia,
    UnsupportedMedia,
)
from pipeline.frames import U8, Frame
from pipeline.media import Limits, sniff_file
from pipeline.sample import plan_bursts
from pipeline.scan import Place
from pipeline.source import LibavSource
from pipeline.spec import SamplingSpec
from tests.media import (
    HTML,
    TEXT,
    animation,
    audio_only,
    broken_off,
    face_clip,
    header_then_garbage,
    huge_mov,
    huge_png,
    moov_missing,
    no_frames,
    pattern,
    rotated,
    still,
    write_clip,
    zip_archive,
)

SPEC = SamplingSpec(bursts=4, burst_frames=4)
CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"


def all_frames(path: Path) -> list[Frame]:
    with open_clip(path) as clip:
        return [f for burst in clip.bursts([range(len(clip.times_s))]) for f in burst]


def planned(clip: Clip, spec: SamplingSpec = SPEC) -> list[Frame]:
    return [f for burst in clip.bursts(plan_bursts(clip.times_s, spec)) for f in burst]


def decoded_luma(path: Path) -> list[U8]:
    """Luma straight from libav, frame by frame."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [f.to_ndarray()[: f.height] for f in frames]


def same(a: Frame, b: Frame) -> bool:
    return all(np.array_equal(getattr(a, p), getattr(b, p)) for p in "yuv") and a.index == b.index


CONTAINERS = {
    "a.mp4": "libx264",
    "b.mp4": "libx265",
    "a.mov": "mpeg4",
    "a.mkv": "libx264",
    "vp9.webm": "libvpx-vp9",
    "vp8.webm": "libvpx",
    "mpeg4.avi": "mpeg4",
    "h264.avi": "libx264",
    "a.ts": "libx264",
    "a.mpg": "mpeg2video",
    "a.flv": "libx264",
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_native_luma_at_its_times(tmp_path, name):
    options = {"auto-alt-ref": "1", "lag-in-frames": "16"} if CONTAINERS[name].startswith("libvpx") else {}
    path = write_clip(tmp_path / name, pattern(40), codec=CONTAINERS[name], options=options)
    with open_clip(path) as clip:
        frames = [f for burst in clip.bursts([range(40)]) for f in burst]
        assert clip.damage is None
        assert (clip.width, clip.height) == (96, 64)
        assert clip.duration_s == pytest.approx(1.6, abs=0.02)
        assert clip.frame_rate == pytest.approx(25, rel=0.01)
    assert [f.index for f in frames] == list(range(40))
    assert [f.time_s for f in frames] == pytest.approx([k / 25 for k in range(40)], abs=0.002)
    for frame, luma in zip(frames, decoded_luma(path), strict=True):
        assert np.array_equal(frame.y, luma)


@pytest.mark.parametrize("spread", ["even", "head"])
def test_bursts_are_the_planned_frames(tmp_path, spread):
    path = write_clip(tmp_path / "a.mp4", pattern(50))
    luma = decoded_luma(path)
    with open_clip(path) as clip:
        plan = plan_bursts(clip.times_s, SPEC.model_copy(update={"spread": spread}))
        bursts = list(clip.bursts(plan))
    assert [[f.index for f in burst] for burst in bursts] == [list(run) for run in plan]
    assert all(np.array_equal(f.y, luma[f.index]) for burst in bursts for f in burst)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "20"}),
        ("a.mkv", "libx264", {"g": "20", "x264-params": "open-gop=1"}),
        ("b.mp4", "libx265", {"g": "20", "x265-params": "log-level=none:open-gop=1"}),
        ("a.webm", "libvpx-vp9", {"g": "20"}),
        ("a.ts", "libx264", {"g": "20"}),
        ("a.mpg", "mpeg2video", {"g": "15"}),
        ("a.avi", "mpeg4", {"g": "20"}),
        ("b.avi", "mpeg4", {"g": "20", "bf": "2"}),
    ],
)
def test_seeking_changes_no_frame_and_saves_decoding(tmp_path, name, codec, options):
    path = write_clip(tmp_path / name, pattern(200), codec=codec, options=options)
    plan = [range(30, 34), range(105, 109), range(180, 184)]
    straight = {f.index: f for f in all_frames(path)}
    with open_clip(path) as clip:
        frames = [f for burst in clip.bursts(plan) for f in burst]
        assert [f.index for f in frames] == [i for run in plan for i in run]
        assert all(same(f, straight[f.index]) for f in frames)
        if name.endswith(("mp4", "mkv", "webm")):
            assert clip.pictures_made < 120


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_an_index_that_leads_elsewhere_costs_time_and_no_frame(tmp_path, monkeypatch, name):
    path = write_clip(tmp_path / name, pattern(90), options={"g": "10"})
    straight = {f.index: f for f in all_frames(path)}

    def astray(self, stamp=None):
        if stamp is not None:
            yield from list(pictures(self, None))[-5:]
        else:
            yield from pictures(self, None)

    pictures = LibavSource.pictures
    monkeypatch.setattr(LibavSource, "pictures", astray)
    with open_clip(path) as clip:
        frames = [f for b in clip.bursts([range(2), range(40, 44), range(70, 74)]) for f in b]
    assert [f.index for f in frames] == [0, 1, *range(40, 44), *range(70, 74)]
    assert all(same(f, straight[f.index]) for f in frames)


def test_going_back_gives_the_same_frames(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pattern(60), options={"g": "10"})
    with open_clip(path) as clip:
        first = [f for b in clip.bursts([range(3, 7), range(50, 54)]) for f in b]
        again = [f for b in clip.bursts([range(3, 7), range(50, 54)]) for f in b]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))


def test_only_what_the_plan_needs_is_decoded(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pattern(200), options={"bf": "0", "tune": "zerolatency"})
    with open_clip(path) as clip:
        list(clip.bursts([range(10, 14)]))
        assert clip.pictures_made < 20


# Files whose decoder leaves out pictures, with the options that make such pictures.
SKIPPED = [
    ("a.mp4", "libx264", {"g": "60", "x264-params": "b-pyramid=normal:bframes=3:b-adapt=0"}),
    ("a.mkv", "libx264", {"g": "60", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}),
    ("b.mp4", "libx264", {"g": "60", "flags": "+ildct+ilme", "x264-params": "tff=1:bframes=3:b-adapt=0"}),
    ("a.ts", "libx264", {"g": "60", "x264-params": "bframes=3:b-adapt=0"}),
    ("c.mp4", "libx265", {"g": "60", "x265-params": "log-level=none:bframes=4:b-adapt=0"}),
    ("d.mp4", "mpeg4", {"g": "60", "bf": "2"}),
    ("a.mpg", "mpeg2video", {"g": "60", "bf": "2"}),
]
ALL_MADE = [
    ("a.webm", "libvpx-vp9", {"g": "60", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    ("b.webm", "libvpx", {"g": "60", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    ("b.mkv", "libsvtav1", {"g": "60"}),
    ("a.avi", "mpeg4", {"g": "60", "bf": "2"}),
    ("e.mp4", "libx265", {"g": "60", "x265-params": "log-level=none:bframes=4:b-adapt=0:temporal-layers=2"}),
]
SPARSE = [range(0, 3), range(17, 20), range(40, 43), range(75, 78), range(130, 133), range(147, 150)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "codec", "options"), SKIPPED + ALL_MADE)
def test_what_nobody_needs_is_left_out_and_nothing_else_changes(
    tmp_path, monkeypatch, name, codec, options, threads
):
    path = write_clip(tmp_path / name, pattern(150), codec=codec, options=options)
    straight = {f.index: f for f in all_frames(path)}
    assert len(straight) == 150
    with open_clip(path, threads=threads) as clip:
        bursts = list(clip.bursts(SPARSE))
        made = clip.pictures_made
        assert clip.damage is None
    assert [[f.index for f in burst] for burst in bursts] == [list(run) for run in SPARSE]
    assert all(same(f, straight[f.index]) for burst in bursts for f in burst)
    monkeypatch.setattr("pipeline.source.may_skip", lambda context: False)
    gone_through = clip.frames_decoded
    with open_clip(path, threads=threads) as clip:
        list(clip.bursts(SPARSE))
        saved = clip.pictures_made - made
        assert clip.frames_decoded == gone_through
    assert saved > 25 if (name, codec, options) in SKIPPED else saved == 0


def test_frames_gone_through_are_counted_alike_for_any_number_of_threads(tmp_path):
    """They are part of the answer, which is a function of the clip and not of the machine's load."""
    path = write_clip(tmp_path / "a.mp4", pattern(150), options=SKIPPED[0][2])
    counts = []
    for threads in (1, 2, 4):
        with open_clip(path, threads=threads) as clip:
            list(clip.bursts(SPARSE))
            counts.append(clip.frames_decoded)
    # From the start to the third run; from the key frame at 60 to the fourth, from that at 120 to the last.
    assert counts == [43 + 18 + 30] * 3


@pytest.mark.parametrize("options", [SKIPPED[0][2], SKIPPED[2][2]], ids=["progressive", "interlaced"])
def test_what_was_left_out_is_made_when_it_is_asked_for_later(tmp_path, options):
    path = write_clip(tmp_path / "a.mp4", pattern(90), options=options)
    straight = {f.index: f for f in all_frames(path)}
    for start in range(13, 25):
        with open_clip(path, threads=4) as clip:
            # Of the first plan only a part is read, while the threads are ahead already.
            next(clip.bursts([range(10, 13), range(80, 83)]))
            frames = [f for k in (start, 5) for b in clip.bursts([range(k, k + 3)]) for f in b]
        assert [f.index for f in frames] == [*range(start, start + 3), 5, 6, 7]
        assert all(same(f, straight[f.index]) for f in frames)


def test_two_plans_may_be_read_in_turns(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pattern(60), options=SKIPPED[0][2])
    straight = {f.index: f for f in all_frames(path)}
    with open_clip(path) as clip:
        plans = ([range(30, 32), range(34, 36)], [range(32, 34), range(36, 38)])
        frames = [f for pair in zip(*map(clip.bursts, plans), strict=True) for b in pair for f in b]
    assert [f.index for f in frames] == list(range(30, 38))
    assert all(same(f, straight[f.index]) for f in frames)


def test_where_leaving_out_costs_a_frame_it_is_given_up(tmp_path, monkeypatch):
    """As where a decoder takes one picture out of the packet of another."""
    path = write_clip(tmp_path / "a.mp4", pattern(90), options={"g": "30"})
    straight = {f.index: f for f in all_frames(path)}

    def lossy(self, stamp):
        pictures = list(whole(self, stamp)) if self.wanted is None else []
        self.skipped = {0}
        yield from pictures

    whole = LibavSource._pass
    with open_clip(path) as clip:
        monkeypatch.setattr(LibavSource, "_pass", lossy)
        frames = [f for b in clip.bursts([range(70, 74), range(40, 44)]) for f in b]
    assert [f.index for f in frames] == [*range(70, 74), *range(40, 44)]
    assert all(same(f, straight[f.index]) for f in frames)


def test_a_variable_frame_rate_is_honoured(tmp_path):
    times = [0, 10, 20, 30, 500, 1000, 1010, 2000, 2100, 4000]
    path = write_clip(tmp_path / "a.mkv", pattern(10), times_ms=times)
    with open_clip(path) as clip:
        assert clip.times_s == pytest.approx([t / 1000 for t in times])
        assert clip.frame_rate == pytest.approx(9 / 4)
        assert [f.time_s for f in planned(clip, SamplingSpec(bursts=5, burst_frames=1))] == pytest.approx(
            [0.0, 1.0, 2.0, 2.1, 4.0]
        )


def test_times_count_from_the_first_frame(tmp_path):
    path = write_clip(tmp_path / "a.ts", pattern(10), times_ms=[5000 + 40 * k for k in range(10)])
    with open_clip(path) as clip:
        assert clip.times_s == pytest.approx([0.04 * k for k in range(10)], abs=0.002)


@pytest.mark.parametrize("size", [(97, 65), (96, 65), (97, 64)])
def test_odd_sizes_keep_every_sample(tmp_path, size):
    path = write_clip(tmp_path / "a.webm", pattern(3, *size), codec="libvpx-vp9")
    frame = all_frames(path)[0]
    assert frame.y.shape == (size[1], size[0])
    assert frame.u.shape == frame.v.shape == ((size[1] + 1) // 2, (size[0] + 1) // 2)
    with av.open(str(path)) as container:
        y, u, v = next(container.decode(video=0)).planes
        for plane, samples in ((y, frame.y), (u, frame.u), (v, frame.v)):
            lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            assert np.array_equal(lines[: samples.shape[0], : samples.shape[1]], samples)


def test_ten_bits_are_rounded_without_dither(tmp_path):
    options = {"x265-params": "log-level=none:lossless=1"}
    path = write_clip(tmp_path / "a.mp4", pattern(3), codec="libx265", pix_fmt="yuv420p10le", options=options)
    with av.open(str(path)) as container:
        plane = next(container.decode(video=0)).planes[0]
    ten = np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)[:64, :96]
    frame = all_frames(path)[0]
    assert np.abs(frame.y.astype(float) - ten / 4).max() <= 0.75
    flat = np.full((64, 96, 3), 101, np.uint8)
    path = write_clip(tmp_path / "b.mp4", [flat], codec="libx265", pix_fmt="yuv420p10le", options=options)
    assert len(np.unique(all_frames(path)[0].y)) == 1


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv422p"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mp4", "libx264", "yuvj420p"),
        ("a.mov", "qtrle", "rgb24"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.mkv", "ffv1", "yuva420p"),
    ],
)
@pytest.mark.parametrize("size", [(96, 64), (98, 66)])
def test_other_layouts_look_the_same_in_limited_range(tmp_path, name, codec, pix_fmt, size):
    pixels = pattern(2, *size)[0]
    frame = all_frames(write_clip(tmp_path / name, [pixels] * 2, codec=codec, pix_fmt=pix_fmt))[0]
    assert frame.y.shape == (size[1], size[0])
    assert frame.u.shape == (size[1] // 2, size[0] // 2)
    luma = 16 + pixels @ np.array([65.481, 128.553, 24.966]) / 255
    assert np.abs(frame.y - luma).mean() < 2.5
    if pix_fmt == "gray":
        assert np.abs(frame.u.astype(int) - 128).max() <= 1
    else:
        assert np.abs(frame.bgr()[..., ::-1].astype(float) - pixels).mean() < 6


@pytest.mark.parametrize("size", [(97, 65), (95, 67)])
def test_odd_rgb_pictures(tmp_path, size):
    frame = all_frames(still(tmp_path / "a.png", pattern(1, *size)[0]))[0]
    assert frame.y.shape == (size[1], size[0])
    assert frame.u.shape == ((size[1] + 1) // 2, (size[0] + 1) // 2)
    assert np.abs(frame.bgr()[..., ::-1].astype(float) - pattern(1, *size)[0]).mean() < 6


@pytest.mark.parametrize(("degrees", "quarters"), [(0, 0), (90, -1), (180, 2), (270, 1)])
def test_a_rotated_clip_is_set_upright_exactly(tmp_path, degrees, quarters):
    path = rotated(tmp_path / "a.mp4", pattern(3), degrees)
    frame = all_frames(path)[0]
    assert np.array_equal(frame.y, np.rot90(decoded_luma(path)[0], quarters))
    with open_clip(path) as clip:
        assert (clip.height, clip.width) == frame.y.shape


@pytest.mark.parametrize(
    ("degrees", "hflip", "vflip"), [(0, True, False), (0, False, True), (90, True, False), (90, False, True)]
)
def test_a_mirrored_clip_is_set_upright_exactly(tmp_path, degrees, hflip, vflip):
    """Against libavfilter, which applies the display matrix of a frame by the filters it names."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    upright = np.rot90(decoded_luma(path)[0], degrees // 90)
    # av_display_matrix_flip mirrors what the rotation has made.
    upright = upright[:, ::-1] if hflip else upright
    upright = upright[::-1] if vflip else upright
    assert np.array_equal(all_frames(path)[0].y, upright)


def test_interlaced_frames_are_deinterlaced_alike_in_any_plan(tmp_path):
    fields = pattern(40)
    for k, pixels in enumerate(fields[:-1]):
        pixels[1::2] = np.roll(pixels, 12, axis=1)[1::2] if k % 2 else pixels[1::2]
    path = write_clip(tmp_path / "a.mp4", fields, interlaced=True, options={"g": "10"})
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    whole = all_frames(path)
    assert [f.index for f in whole] == list(range(40))
    assert [f.time_s for f in whole] == pytest.approx([k / 25 for k in range(40)])
    raw = decoded_luma(path)
    combing = [np.abs(np.diff(y[21].astype(int), axis=0)).mean() for y in (raw, [f.y for f in whole])]
    assert combing[1] < 0.8 * combing[0]
    with open_clip(path) as clip:
        parts = [f for b in clip.bursts([range(5, 9), range(9, 13), range(36, 40)]) for f in b]
    assert all(same(f, whole[f.index]) for f in parts)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animations_are_clips(tmp_path, name):
    # What stays the same from frame to frame is not in the file again.
    pictures = [np.where(np.indices((64, 96, 3))[1] < 40, p, 90).astype(np.uint8) for p in pattern(40)]
    path = animation(tmp_path / name, pictures, duration_ms=80)
    with open_clip(path) as clip:
        assert clip.times_s == pytest.approx([0.08 * k for k in range(40)])
        assert clip.duration_s == pytest.approx(3.2)
        frames = planned(clip, SamplingSpec(bursts=3, burst_frames=2))
        again = planned(clip, SamplingSpec(bursts=3, burst_frames=2))
    assert [f.index for f in frames] == [0, 1, 19, 20, 38, 39]
    assert all(same(a, b) for a, b in zip(frames, again, strict=True))
    for frame in frames:
        distances = [np.abs(frame.bgr()[..., ::-1].astype(float) - p).mean() for p in pictures]
        assert int(np.argmin(distances)) == frame.index


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.gif"])
def test_a_picture_is_a_clip_of_one_frame(tmp_path, name):
    with open_clip(still(tmp_path / name, pattern(1)[0])) as clip:
        assert clip.times_s == [0.0]
        assert [len(b) for b in clip.bursts(plan_bursts(clip.times_s, SPEC))] == [1]
        assert (clip.width, clip.height) == (96, 64)
        if name != "a.gif":
            assert (clip.duration_s, clip.frame_rate) == (0.0, 0.0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_the_orientation_of_a_photograph_is_honoured(tmp_path, name, orientation):
    pixels = pattern(1)[0]
    pixels[:20, :30] = 255
    flat = all_frames(still(tmp_path / name, pixels))[0].y
    turned = {
        1: flat,
        2: flat[:, ::-1],
        3: flat[::-1, ::-1],
        4: flat[::-1],
        5: flat.T,
        6: np.rot90(flat, -1),
        7: flat[::-1, ::-1].T,
        8: np.rot90(flat),
    }[orientation]
    path = still(tmp_path / f"turned-{name}", pixels, orientation)
    frame = all_frames(path)[0]
    assert np.array_equal(frame.y, turned)
    with open_clip(path) as clip:
        assert (clip.height, clip.width) == turned.shape


def test_frames_that_are_never_shown_are_not_counted(tmp_path):
    path = write_clip(tmp_path / "a.webm", pattern(30), codec="libvpx")
    hidden = tmp_path / "hidden.webm"
    with av.open(str(path)) as source, av.open(str(hidden), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for k, packet in enumerate(p for p in source.demux(video=0) if p.size):
            data = bytearray(memoryview(packet))
            if k == 15:
                data[0] &= ~0x10
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            target.mux(copy)
    with open_clip(hidden) as clip:
        assert clip.times_s == pytest.approx([k / 25 for k in range(30) if k != 15], abs=0.002)
        assert [len(b) for b in clip.bursts([range(13, 17)])] == [4]


def test_full_range_is_brought_to_limited_range(tmp_path):
    path = write_clip(tmp_path / "a.webm", pattern(2), codec="libvpx-vp9", options={"color_range": "pc"})
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
        assert (picture.format.name, picture.color_range) == ("yuv420p", 2)
    full = decoded_luma(path)[0].astype(float)
    assert np.abs(all_frames(path)[0].y - (16 + full * 219 / 255)).max() <= 1


def test_short_clips(tmp_path):
    with open_clip(write_clip(tmp_path / "a.mp4", pattern(3))) as clip:
        assert [len(b) for b in clip.bursts(plan_bursts(clip.times_s, SPEC))] == [3]
    with open_clip(write_clip(tmp_path / "b.mp4", pattern(1))) as clip:
        assert [len(b) for b in clip.bursts(plan_bursts(clip.times_s, SPEC))] == [1]
        assert clip.duration_s == pytest.approx(0.04)


def test_the_video_is_taken_and_neither_its_sound_nor_its_cover(tmp_path):
    with open_clip(write_clip(tmp_path / "a.mp4", pattern(10), audio=True)) as clip:
        assert clip.codec == "h264"
    path = tmp_path / "cover.mkv"
    cover = still(tmp_path / "cover.png", pattern(1, 640, 480)[0]).read_bytes()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.add_attachment("cover.png", "image/png", cover)
        for pixels in pattern(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    with open_clip(path) as clip:
        assert (clip.width, len(clip.times_s)) == (96, 5)


@pytest.mark.parametrize(("limits", "count"), [(Limits(max_frames=20), 20), (Limits(max_duration_s=1.0), 25)])
def test_limits_of_length_are_stated(tmp_path, limits, count):
    path = write_clip(tmp_path / "a.mp4", pattern(60), options={"bf": "0"})
    with open_clip(path, limits) as clip:
        assert len(clip.times_s) == pytest.approx(count, abs=1)
        assert "only the first" in (clip.truncated or "")
        assert max(f.index for f in planned(clip)) == len(clip.times_s) - 1
    with open_clip(path, Limits(max_frames=60)) as clip:
        assert clip.truncated is None


def test_limits_hold_for_an_animated_webp(tmp_path):
    with open_clip(animation(tmp_path / "a.webp", pattern(12)), Limits(max_frames=5)) as clip:
        assert len(clip.times_s) == 5
        assert "5 frames" in (clip.truncated or "")


def test_the_end_of_a_broken_file_is_missing_and_the_clip_says_so(tmp_path):
    path = broken_off(tmp_path / "a.mp4", share=1.0)
    luma, data = decoded_luma(path), path.read_bytes()
    path.write_bytes(data[: (data.index(b"mdat") + len(data)) // 2])
    with open_clip(path) as clip:
        whole = len(clip.times_s)
        assert 10 < whole < 50
        assert "of 60 frames are missing" in (clip.damage or "")
        frames = planned(clip)
        assert "decoding failed" in (clip.damage or "")
    assert frames[-1].index == whole - 1
    assert all(np.array_equal(f.y, luma[f.index]) for f in frames)


def test_a_damaged_middle_costs_its_group_of_pictures_alone(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pattern(60), options={"g": "10", "bf": "0"})
    luma = decoded_luma(path)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    bad = packets[33]
    assert bad.pos is not None
    data[bad.pos : bad.pos + bad.size] = b"\xff" * bad.size
    path.write_bytes(data)
    with open_clip(path) as clip:
        frames = [f for b in clip.bursts([range(28, 33), range(34, 39), range(40, 45)]) for f in b]
        assert "decoding failed" in (clip.damage or "")
        assert [[f.index for f in b] for b in clip.bursts([range(30, 42)])] == [[30, 31, 32]]
    assert [f.index for f in frames] == [*range(28, 33), *range(40, 45)]
    assert all(np.array_equal(f.y, luma[f.index]) for f in frames)


def test_a_clip_without_time_stamps_is_timed_by_decoding(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for k, pixels in enumerate(pattern(12)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            for packet in stream.encode(frame):
                # Two frames share each time.
                packet.pts = packet.dts = packet.pts // 2 * 2
                container.mux(packet)
    luma = decoded_luma(path)
    with open_clip(path) as clip:
        frames = [f for b in clip.bursts([range(2, 5), range(9, 12)]) for f in b]
        assert len(clip.times_s) == 12
        assert clip.times_s == sorted(clip.times_s)
    assert [f.index for f in frames] == [2, 3, 4, 9, 10, 11]
    assert all(np.array_equal(f.y, luma[f.index]) for f in frames)


def text(path: Path) -> Path:
    path.write_bytes(TEXT)
    return path


def html(path: Path) -> Path:
    path.write_bytes(HTML)
    return path


def archive(path: Path) -> Path:
    path.write_bytes(zip_archive())
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def one_pixel(path: Path) -> Path:
    return still(path.with_suffix(".png"), np.zeros((1, 1, 3), np.uint8)).rename(path)


def one_pixel_gif(path: Path) -> Path:
    return still(path.with_suffix(".gif"), np.zeros((1, 1, 3), np.uint8)).rename(path)


def two_pixels(path: Path) -> Path:
    return animation(path.with_suffix(".webp"), [np.full((1, 2, 3), grey, np.uint8) for grey in (0, 255)])


def unknown_codec(path: Path) -> Path:
    """PyAV 18 crashes the interpreter when it decodes such a stream all the same (PyAV #2344)."""
    data = write_clip(path, pattern(3)).read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    return path


def song_with_a_cover(path: Path) -> Path:
    """An MP4 with sound and the picture of its cover."""
    cover = still(path.with_name("cover.png"), pattern(1)[0])
    sound = audio_only(path.with_name("sound.mp4"))
    with av.open(str(cover)) as a, av.open(str(sound)) as b, av.open(str(path), "w", format="mp4") as target:
        streams = [target.add_stream_from_template(s) for s in (b.streams.audio[0], a.streams.video[0])]
        streams[1].disposition = Disposition.attached_pic
        for source, stream in zip((b, a), streams, strict=True):
            for packet in source.demux():
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    return path


def half_a_jpeg_header(path: Path) -> Path:
    whole = still(path.with_suffix(".jpg"), pattern(1)[0]).read_bytes()
    path.write_bytes(whole[:30])
    return path


def first_frame_cut(path: Path) -> Path:
    return broken_off(path, share=0.002)


def huge_mov_file(path: Path) -> Path:
    return huge_mov(path.with_suffix(".mov")).rename(path)


BAD = [
    (empty, UnsupportedMedia, "empty"),
    (text, UnsupportedMedia, "text"),
    (html, UnsupportedMedia, "HTML"),
    (archive, UnsupportedMedia, "ZIP"),
    (audio_only, NoVideoStream, "only audio"),
    (song_with_a_cover, NoVideoStream, "only audio"),
    (unknown_codec, UndecodableMedia, "no decoder"),
    (two_pixels, PictureTooSmall, "2x1"),
    (no_frames, NoFrames, "no frame"),
    (moov_missing, UndecodableMedia, "container"),
    (header_then_garbage, NoFrames, "decoding failed"),
    (huge_png, PictureTooLarge, "pixels"),
    (huge_mov_file, PictureTooLarge, "16000x16000"),
    (one_pixel, PictureTooSmall, "1x1"),
    (one_pixel_gif, PictureTooSmall, "1x1"),
    (half_a_jpeg_header, UndecodableMedia, "header"),
    (first_frame_cut, UndecodableMedia, "no frame|no decoder|no decodable"),
]


@pytest.mark.parametrize(("build", "error", "words"), BAD, ids=[build.__name__ for build, _, _ in BAD])
def test_bad_files_have_their_own_errors(tmp_path, build, error, words):
    path = build(tmp_path / "clip.mp4")
    with pytest.raises(error, match=words):
        open_clip(path)


def test_a_picture_in_a_stream_that_is_larger_than_its_container_says_is_not_decoded(tmp_path):
    path = write_clip(tmp_path / "a.mov", pattern(3), codec="libx264")
    with pytest.raises(PictureTooLarge, match="96x64"):
        open_clip(path, Limits(max_pixels=5000))
    data = bytearray(path.read_bytes())
    at = data.index(b"avc1", data.index(b"stsd")) + 4 + 24
    assert int.from_bytes(data[at : at + 2], "big") == 96
    data[at : at + 4] = bytes([0, 32, 0, 32])
    path.write_bytes(data)
    with pytest.raises(UndecodableMedia):
        open_clip(path, Limits(max_pixels=5000))


def test_playlists_can_not_be_forced_through_a_known_name(tmp_path):
    listed = write_clip(tmp_path / "part.ts", pattern(3))
    path = tmp_path / "clip.mp4"
    path.write_text(f"#EXTM3U\n#EXTINF:1,\n{listed}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UnsupportedMedia, match="HLS"):
        open_clip(path)


def test_a_change_of_size_ends_the_burst_and_is_stated(tmp_path):
    parts = [
        write_clip(tmp_path / f"{k}.ts", pattern(20, *size)) for k, size in enumerate([(96, 64), (64, 96)])
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(p.read_bytes() for p in parts))
    frames = all_frames(path)
    assert {f.y.shape for f in frames} == {(64, 96)}


def test_names_that_libav_would_read_as_something_else(tmp_path):
    made = write_clip(tmp_path / "a.mp4", pattern(5))
    for name in ("concat:a.mp4|b.mp4", "frame%03d.mp4", "a b#?&.mp4"):
        assert len(all_frames(made.rename(tmp_path / name))) == 5
        made = tmp_path / name


KEPT = {
    "a.mp4": "libx264",
    "b.mp4": "libx265",
    "a.webm": "libvpx-vp9",
    "a.mkv": "libsvtav1",
    "a.mpg": "mpeg2video",
    "a.avi": "mpeg4",
    "b.mkv": "ffv1",
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", KEPT)
def test_frames_are_the_decoders_own_buffers_and_stay_as_they_are(tmp_path, name, threads):
    path = write_clip(tmp_path / name, pattern(60), codec=KEPT[name])
    kept, then = [], []
    with open_clip(path, threads=threads) as clip:
        count = len(clip.times_s)
        for burst in clip.bursts([range(k, min(k + 4, count)) for k in range(0, count, 4)]):
            kept += burst
            then += [[p.tobytes() for p in (f.y, f.u, f.v)] for f in burst]
    all_frames(path)
    assert [[p.tobytes() for p in (f.y, f.u, f.v)] for f in kept] == then
    assert len(kept) == 60
    planes = [p for f in kept for p in (f.y, f.u, f.v)]
    assert not any(p.flags.owndata or p.flags.writeable for p in planes)


def test_a_frame_that_was_turned_is_a_copy(tmp_path):
    frame = all_frames(rotated(tmp_path / "a.mp4", pattern(3), 90))[0]
    assert frame.y.flags.c_contiguous
    assert frame.y.flags.owndata


def test_the_same_file_gives_the_same_frames_with_any_number_of_threads(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pattern(40))
    results = []
    for threads in (1, 2):
        with open_clip(path, threads=threads) as clip:
            results.append(planned(clip))
    assert all(same(a, b) for a, b in zip(*results, strict=True))


def test_pictures_are_decoded_by_as_many_threads_as_were_asked_for(tmp_path):
    """Whole pictures each: few encoders cut theirs into slices."""
    path = write_clip(tmp_path / "a.mp4", pattern(10))
    source = LibavSource(path, "mov", Limits(), threads=2)
    context = source._stream.codec_context
    assert (context.thread_count, context.thread_type) == (2, ThreadType.AUTO)
    source.close()


def packet_at(path: Path, number: int) -> slice:
    """Where a packet lies in its file."""
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][number]
    assert packet.pos is not None
    return slice(packet.pos, packet.pos + packet.size)


@pytest.mark.parametrize("number", [0, 1, 7, 20, 33, 40, 57, 58, 59])
@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize("part", [1, 2], ids=["whole", "half"])
def test_damage_costs_the_same_frames_with_any_number_of_threads(tmp_path, number, bf, part):
    path = write_clip(tmp_path / "a.mp4", pattern(60, 192, 128), options={"g": "10", "bf": bf})
    data, at = bytearray(path.read_bytes()), packet_at(path, number)
    length = (at.stop - at.start) // part
    data[at.stop - length : at.stop] = b"\xff" * length
    path.write_bytes(data)
    results = []
    for threads in (1, 2, 4):
        with open_clip(path, threads=threads) as clip:
            frames = [f for b in clip.bursts([range(k, k + 3) for k in range(0, 60, 3)]) for f in b]
            again = planned(clip)
            results.append((clip.damage, clip.frames_decoded, frames, again))
    damage, made, frames, again = results[0]
    assert part == 2 or "decoding failed" in damage
    for other in results[1:]:
        assert other[:2] == (damage, made)
        for a, b in zip(frames + again, other[2] + other[3], strict=True):
            assert same(a, b)


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv"])
@pytest.mark.parametrize("share", [0.3, 0.62, 0.97])
def test_a_file_that_breaks_off_gives_the_same_with_any_number_of_threads(tmp_path, name, share):
    path = tmp_path / name
    if name == "a.mp4":
        broken_off(path, share)
    else:
        data = write_clip(path, pattern(60), options={"g": "10"}).read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
    results = []
    for threads in (1, 2, 4):
        with open_clip(path, threads=threads) as clip:
            frames = [f for b in clip.bursts([range(len(clip.times_s))]) for f in b]
            results.append((clip.damage, clip.times_s, frames))
    for other in results[1:]:
        assert other[:2] == results[0][:2]
        assert all(same(a, b) for a, b in zip(results[0][2], other[2], strict=True))


@pytest.mark.parametrize(
    ("name", "codec", "opens"),
    [("a.mp4", "libx264", 1), ("b.mp4", "libx265", 1), ("a.webm", "libvpx-vp9", 1), ("a.ts", "libx264", 2)],
)
def test_a_file_with_an_index_is_opened_once(tmp_path, monkeypatch, name, codec, opens):
    path = write_clip(tmp_path / name, pattern(60), codec=codec, options={"g": "20"})
    luma, opened, really = decoded_luma(path), [], av.open
    monkeypatch.setattr("pipeline.source.av.open", lambda *a, **k: opened.append(1) or really(*a, **k))
    with open_clip(path) as clip:
        frames = planned(clip)
    assert len(opened) == opens
    assert all(np.array_equal(f.y, luma[f.index]) for f in frames)


def test_a_file_that_does_not_go_back_to_its_start_is_opened_again(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", pattern(60), options={"g": "20"})
    luma, opened, really = decoded_luma(path), [], av.open
    monkeypatch.setattr("pipeline.source.av.open", lambda *a, **k: opened.append(1) or really(*a, **k))
    elsewhere = SimpleNamespace(of=lambda packet: Place(-1, 0, None, None))
    monkeypatch.setattr("pipeline.source.Place", elsewhere)
    with open_clip(path) as clip:
        frames = planned(clip)
    assert len(opened) == 2
    assert all(np.array_equal(f.y, luma[f.index]) for f in frames)


def test_nothing_stays_open(tmp_path):
    path = face_clip(tmp_path / "a.mp4", seconds=0.4)
    clip = open_clip(path)
    list(clip.bursts([range(2)]))
    clip.close()
    descriptors = [Path(f"/proc/self/fd/{d}").resolve() for d in open_descriptors()]
    assert path not in descriptors


def open_descriptors() -> list[str]:
    directory = Path("/proc/self/fd")
    if not directory.is_dir():
        pytest.skip("no /proc on this system")
    return [d.name for d in directory.iterdir()]


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of real clips is not here")
def test_real_clips_give_every_planned_frame_untouched():
    spec = SamplingSpec(bursts=16, burst_frames=4)
    for path in sorted((CORPUS / "clips").glob("*.mp4"))[::40]:
        luma = decoded_luma(path)
        with open_clip(path) as clip:
            plan = plan_bursts(clip.times_s, spec)
            frames = [f for burst in clip.bursts(plan) for f in burst]
            assert clip.damage is None
        assert [f.index for f in frames] == [i for run in plan for i in run]
        assert all(np.array_equal(f.y, luma[f.index]) for f in frames)


def test_an_interlaced_clip_that_changes_its_size_is_decoded_up_to_there(tmp_path):
    options = {"flags": "+ildct+ilme", "top": "1", "g": "5", "bf": "0"}
    for count in range(12, 18):
        parts = [
            write_clip(
                tmp_path / f"{w}.ts", pattern(n, w, h), codec="mpeg2video", options=options
            ).read_bytes()
            for n, w, h in ((count, 192, 128), (14, 96, 64))
        ]
        path = tmp_path / "both.ts"
        path.write_bytes(b"".join(parts))
        with open_clip(path) as clip:
            plan = plan_bursts(clip.times_s, SamplingSpec(bursts=8, burst_frames=4))
            assert sum(len(burst) for burst in clip.bursts(plan)) > 0


def test_packets_without_content_never_reach_the_decoder(tmp_path, monkeypatch):
    """An index may name a hundred thousand of them in a small file; a decoder takes each for the end."""
    path = write_clip(tmp_path / "clip.mp4", pattern(20), codec="mpeg4")
    data = bytearray(path.read_bytes())
    sizes = data.index(b"stsz") + 16
    data[sizes + 4 * 15 : sizes + 4 * 20] = bytes(4 * 5)
    path.write_bytes(data)
    given = []
    decoded = source._decoded
    monkeypatch.setattr(source, "_decoded", lambda packet: given.append(packet.size) or decoded(packet))
    with open_clip(path) as clip:
        assert len(clip.times_s) == 15
        shown = [frame for burst in clip.bursts([range(15)]) for frame in burst]
    assert len(shown) == 15
    assert given.count(0) <= 1  # the end itself
    assert len(given) > 15


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("name", "codec", "options"), [("a.mp4", "libx264", {"bf": "3"}), ("a.avi", "mpeg4", {})]
)
def test_a_pass_ends_soon_after_the_limits(tmp_path, name, codec, options, threads):
    path = write_clip(tmp_path / name, pattern(300), codec=codec, options=options)
    limits = Limits(max_frames=10)
    source = LibavSource(path, sniff_file(path), limits, threads)
    scan = source.scan()
    came = list(source.pictures())
    source.close()
    assert scan.packets <= 16
    assert 10 <= len(came) <= 16 + 64 + 3
    if scan.order == "stamped":
        assert set(scan.stamps) <= {picture.pts for picture in came}
