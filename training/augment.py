"""Augmentation of face clips: the same change, with the same parameters, over a whole clip.

A clip is uint8 RGB [T, S, S, 3]. Every function takes a clip and a generator and returns a new clip of
the same shape; the input is never written to. Only noise differs from frame to frame, as does what a
codec makes of the frames. What is drawn from the generator never depends on the pixels, so two clips
of one shape and two generators of one state go through the very same changes.
"""

from collections.abc import Callable
from fractions import Fraction

import av
import cv2
import numpy as np
from numpy.random import Generator

from pipeline.frames import F32, U8
from training.recipe import Augment

Range = tuple[int, int]


def augment(clip: U8, rng: Generator, how: Augment) -> U8:
    """Each change of the recipe with its probability, in the order in which footage meets them: the
    scene, the camera, the platform. The result is a new array."""
    changes: list[tuple[float, Callable[[U8, Generator], U8]]] = [
        (how.flip, flip),
        (how.affine, affine),
        (how.box, box),
        (how.colour, colour),
        (how.blur, blur),
        (how.resize, lambda c, r: resize(c, r, how.least_scale)),
        (how.noise, noise),
        (how.retime, retime),
        (how.jpeg, lambda c, r: jpeg(c, r, how.jpeg_quality)),
        (how.h264, lambda c, r: h264(c, r, how.crf)),
    ]
    changed = np.array(clip)
    for probability, change in changes:
        # A generator of its own for each change: whether one happens does not move the others.
        chance, own = rng.random(), np.random.default_rng(rng.integers(2**63))
        if chance < probability:
            changed = change(changed, own)
    return changed


def flip(clip: U8, _: Generator) -> U8:
    """Mirrored left to right; nothing is drawn."""
    return np.ascontiguousarray(clip[:, :, ::-1])


def affine(clip: U8, rng: Generator) -> U8:
    """Turned by up to 6 degrees, scaled by up to 5%, sheared and moved by up to 3%; edges are repeated."""
    side = clip.shape[1]
    turn, scale = np.deg2rad(rng.uniform(-6, 6)), rng.uniform(0.95, 1.05)
    shear, shift = rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03, 2) * side
    linear = scale * np.array([[np.cos(turn), -np.sin(turn) + shear], [np.sin(turn), np.cos(turn)]])
    centre = np.full(2, (side - 1) / 2)
    matrix = np.column_stack([linear, centre - linear @ centre + shift])
    return _each(
        lambda f: cv2.warpAffine(
            f, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ),
        clip,
    )


def box(clip: U8, rng: Generator) -> U8:
    """Up to 6% cut off at each side on its own, then enlarged to the old size."""
    side = clip.shape[1]
    top, bottom, left, right = (int(n) for n in rng.integers(0, max(1, round(side * 0.06)) + 1, 4))
    inner = clip[:, top : side - bottom, left : side - right]
    return _each(lambda f: cv2.resize(f, (side, side), interpolation=cv2.INTER_LINEAR), inner)


def colour(clip: U8, rng: Generator) -> U8:
    """Contrast and brightness by up to 20%, gamma 0.8 to 1.25, saturation 0.6 to 1.4."""
    contrast, brightness = rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)
    gamma, saturation = np.exp(rng.uniform(np.log(0.8), np.log(1.25))), rng.uniform(0.6, 1.4)
    tones = np.clip((np.arange(256) / 255 - 0.5) * contrast + 0.5 + brightness, 0, 1) ** gamma * 255
    toned = tones.astype(np.float32)[clip]
    grey = toned @ np.array([0.299, 0.587, 0.114], np.float32)
    return _rounded(grey[..., None] + np.float32(saturation) * (toned - grey[..., None]))


def blur(clip: U8, rng: Generator) -> U8:
    """Gaussian blur, sigma 0.3 to 1.5 pixels."""
    sigma = rng.uniform(0.3, 1.5)
    return _each(lambda f: cv2.GaussianBlur(f, (0, 0), sigma), clip)


def resize(clip: U8, rng: Generator, least_scale: float = 0.5) -> U8:
    """Shrunk to `least_scale` to 1 of its side, area-filtered, and enlarged again."""
    side = clip.shape[1]
    small = max(2, round(side * rng.uniform(least_scale, 1)))
    up = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST]))
    shrink = (small, small)
    return _each(
        lambda f: cv2.resize(
            cv2.resize(f, shrink, interpolation=cv2.INTER_AREA), (side, side), interpolation=up
        ),
        clip,
    )


def noise(clip: U8, rng: Generator) -> U8:
    """White noise, sigma 1 to 6 of 255, other in each frame; as often grey as coloured."""
    sigma, channels = np.float32(rng.uniform(1, 6)), int(rng.choice([1, 3]))
    grain = rng.standard_normal((*clip.shape[:3], channels), dtype=np.float32)
    return _rounded(clip + sigma * grain)


def retime(clip: U8, rng: Generator) -> U8:
    """Up to a tenth of the frames dropped, at least one, and as many of the others shown twice; their
    order stays. A clip of less than three frames is left as it is."""
    count = len(clip)
    if count < 3:
        return np.array(clip)
    lost = int(rng.integers(1, max(1, count // 10) + 1))
    left = np.delete(np.arange(count), rng.choice(count, lost, replace=False))
    twice = rng.choice(left, lost, replace=False)
    return np.ascontiguousarray(clip[np.sort(np.concatenate([left, twice]))])


def jpeg(clip: U8, rng: Generator, quality: Range = (40, 100)) -> U8:
    """Each frame through JPEG, all at one quality."""
    options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(quality[0], quality[1] + 1))]

    def once(frame: U8) -> U8:
        # The order of the channels matters to the codec: OpenCV's is blue, green, red.
        _, data = cv2.imencode(".jpg", frame[..., ::-1], options)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]

    return _each(once, clip)


def h264(clip: U8, rng: Generator, crf: Range = (18, 36)) -> U8:
    """The clip through H.264 (x264, 4:2:0) at one constant rate factor; odd sides are padded for it.

    Raises RuntimeError when the codec gives back another number of frames.
    """
    factor, preset = (
        int(rng.integers(crf[0], crf[1] + 1)),
        str(rng.choice(["superfast", "veryfast", "medium"])),
    )
    frames, side = clip.shape[:2]
    even = side + side % 2
    padded = np.pad(clip, ((0, 0), (0, even - side), (0, even - side), (0, 0)), mode="edge")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width = encoder.height = even
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 30)
    # One thread and no lookahead: the same bytes on every machine.
    encoder.options = {"crf": str(factor), "preset": preset, "tune": "zerolatency", "threads": "1"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = []
    for i, pixels in enumerate(padded):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
            format="yuv420p"
        )
        frame.pts = i
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoded = [f.to_ndarray(format="rgb24") for p in [*packets, None] for f in decoder.decode(p)]
    if len(decoded) != frames:
        raise RuntimeError(f"H.264 gave back {len(decoded)} of {frames} frames")
    return np.ascontiguousarray(np.stack(decoded)[:, :side, :side])


def _each(how: Callable[[U8], "U8 | cv2.typing.MatLike"], clip: U8) -> U8:
    return np.stack([np.asarray(how(frame), np.uint8) for frame in clip])


def _rounded(clip: F32) -> U8:
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)
