"""Altered copies of real footage at native resolution: what redrawing, resampling and blending leave behind.

A burst is luma, float32 [F, H, W], 0 to 255: consecutive frames of one place in the image. Every
alteration takes a burst and returns a new one of the same shape; the input is never written to. No
generator's output is involved. The idea of teaching with pairs of a real picture and its own altered
copy is that of self-blended images (Shiohara & Yamasaki, CVPR 2022); here it works on native pixels
and in time. Both copies then pass the same H.264 encoder, so that compression separates nothing.
"""

from collections.abc import Callable
from fractions import Fraction

import av
import cv2
import numpy as np
from numpy.random import Generator

from pipeline.frames import F32, U8

Alteration = Callable[[F32, Generator], F32]

SHARPEN_SHARE, NOISE_SHARE, BLEND_SHARE = 0.5, 0.3, 0.6


def resample(burst: F32, rng: Generator) -> F32:
    """Shrink to 0.35 to 0.85 of the size and enlarge again, as a generator of fixed size does."""
    _, h, w = burst.shape
    share = rng.uniform(0.35, 0.85)
    small = (max(2, int(w * share)), max(2, int(h * share)))
    up = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4]))

    def once(frame: F32) -> F32:
        shrunk = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(shrunk, (w, h), interpolation=up), np.float32)

    return _each(once, burst)


def blur(burst: F32, rng: Generator) -> F32:
    """Gaussian blur, sigma 0.5 to 1.4 pixels."""
    sigma = rng.uniform(0.5, 1.4)
    return _each(lambda frame: _gaussian(frame, sigma), burst)


def bilateral(burst: F32, rng: Generator) -> F32:
    """Edge-keeping smoothing: detail and noise go, contours stay, as in what a network draws."""
    diameter, colour, space = int(rng.choice([5, 7])), rng.uniform(8, 30), rng.uniform(2, 5)
    return _each(
        lambda frame: np.asarray(cv2.bilateralFilter(frame, diameter, colour, space), np.float32), burst
    )


def warp(burst: F32, rng: Generator) -> F32:
    """Affine motion by up to three pixels, with a jitter of 0.15 pixels from frame to frame."""
    _, h, w = burst.shape
    stretch, shear = rng.uniform(0.96, 1.04, 2), rng.uniform(-0.02, 0.02, 2)
    shift = rng.uniform(-3, 3, 2)

    def once(frame: F32) -> F32:
        x, y = shift + rng.normal(0, 0.15, 2)
        matrix = np.array([[stretch[0], shear[0], x], [shear[1], stretch[1], y]], np.float32)
        moved = cv2.warpAffine(frame, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(moved, np.float32)

    return _each(once, burst)


def freeze_texture(burst: F32, rng: Generator) -> F32:
    """Fine texture of the middle frame in every frame: motion below, a still picture on top."""
    sigma, strength = rng.uniform(0.8, 2), np.float32(rng.uniform(0.5, 1))
    middle = burst[len(burst) // 2]
    texture = strength * (middle - _gaussian(middle, sigma))
    return _each(lambda frame: _gaussian(frame, sigma) + texture, burst)


def sharpen(burst: F32, rng: Generator) -> F32:
    """Unsharp mask, amount 0.2 to 1.2: smoothness alone must not give a copy away."""
    amount = np.float32(rng.uniform(0.2, 1.2))
    return _each(lambda frame: frame + amount * (frame - _gaussian(frame, 1.2)), burst)


def noise(burst: F32, rng: Generator) -> F32:
    """White noise, sigma 0.3 to 1.5."""
    sigma = np.float32(rng.uniform(0.3, 1.5))
    return np.asarray(burst + sigma * rng.standard_normal(burst.shape, dtype=np.float32), np.float32)


ALTERATIONS: dict[str, Alteration] = {
    "resample": resample,
    "blur": blur,
    "bilateral": bilateral,
    "warp": warp,
    "freeze_texture": freeze_texture,
}
"""What redraws the picture; `sharpen`, `noise` and a mask come on top of one of these."""


def soft_mask(height: int, width: int, rng: Generator) -> F32:
    """A disc with a soft edge, float32 [H, W], 0 to 1; its centre lies inside."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre_x, centre_y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
    radius, edge = rng.uniform(0.3, 0.8) * width, rng.uniform(2, 12)
    mask = (radius - np.hypot(x - centre_x, y - centre_y)) / edge + 0.5
    return np.asarray(np.clip(mask, 0, 1), np.float32)


def blend(real: F32, altered: F32, mask: F32) -> F32:
    """`altered` where the mask is 1, `real` where it is 0."""
    return np.asarray(real + mask * (altered - real), np.float32)


def alter(burst: F32, rng: Generator) -> F32:
    """An altered copy of a real burst, float32 of the same shape, clipped to 0 to 255.

    One of ALTERATIONS, often sharpened or noised, often blended in by a soft mask.
    """
    _, h, w = burst.shape
    how = ALTERATIONS[str(rng.choice(list(ALTERATIONS)))]
    altered = how(burst, rng)
    if rng.random() < SHARPEN_SHARE:
        altered = sharpen(altered, rng)
    if rng.random() < NOISE_SHARE:
        altered = noise(altered, rng)
    if rng.random() < BLEND_SHARE:
        altered = blend(burst, altered, soft_mask(h, w, rng))
    return np.asarray(np.clip(altered, 0, 255), np.float32)


def encode(burst: F32, crf: int) -> U8:
    """A burst after a round trip through H.264 (x264, veryfast) at a constant rate factor.

    float32 [F, H, W] with even H and W to uint8 of the same shape. Raises ValueError for odd sizes
    and RuntimeError when the codec gives back another number of frames.
    """
    frames, h, w = burst.shape
    if h % 2 or w % 2:
        raise ValueError(f"H.264 with 4:2:0 chroma needs even sizes, not {w}x{h}")
    luma = np.clip(np.rint(burst), 0, 255).astype(np.uint8)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = w, h, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    # One thread and no lookahead threads: the same bytes on every machine.
    encoder.options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency", "threads": "1"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    planes = np.full((h * 3 // 2, w), 128, np.uint8)
    packets = []
    for i, picture in enumerate(luma):
        planes[:h] = picture
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = i
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoded = [f.to_ndarray()[:h] for packet in [*packets, None] for f in decoder.decode(packet)]
    if len(decoded) != frames:
        raise RuntimeError(f"H.264 gave back {len(decoded)} of {frames} frames")
    return np.stack(decoded)


def pair(
    burst: F32, rng: Generator, *, crf: tuple[int, int] = (18, 32), encoded: float = 0.85
) -> tuple[U8, U8]:
    """A real burst and an altered copy of it, uint8 [F, H, W], both encoded alike or both not at all.

    crf: range of constant rate factors, inclusive; encoded: share of pairs that are encoded.
    """
    altered = alter(burst, rng)
    if rng.random() < encoded:
        factor = int(rng.integers(crf[0], crf[1] + 1))
        return encode(burst, factor), encode(altered, factor)
    return _rounded(burst), _rounded(altered)


def _rounded(burst: F32) -> U8:
    return np.clip(np.rint(burst), 0, 255).astype(np.uint8)


def _gaussian(frame: F32, sigma: float) -> F32:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma), np.float32)


def _each(how: Callable[[F32], F32], burst: F32) -> F32:
    return np.stack([how(frame) for frame in burst])
