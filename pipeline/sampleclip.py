"""A clip to try things with, made from pictures that may be used for that.

One face: the photograph of the astronaut Eileen Collins that scikit-image carries (NASA, public domain).
Several: the group picture `t1` that the insightface package (MIT) carries for its own tests; no licence of
whoever took it is known here, so such clips are for trying and not for publication. Both packages are
installed with this one.
"""

import math
from fractions import Fraction
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.frames import U8

GROUP_FACES = ((52, 170), (271, 370), (463, 576), (751, 845), (899, 1005), (1132, 1227))
"""Left and right edges of the six faces of the group picture, in its pixels."""

FRAME_RATE = 25
SWAY = 8
"""Pixels that the camera sways to either side: whole ones, so that no picture is resampled for it."""

NATURAL_SIZE = 512 - 2 * SWAY
"""The longer side at which the picture with one face is neither shrunk nor enlarged."""

SENSOR_NOISE = 2.0
"""Standard deviation of the noise of each frame; a film of a photograph without any would be no film."""


def write_sample(
    path: Path,
    *,
    seconds: float = 4.0,
    size: int = NATURAL_SIZE,
    faces: int = 1,
    frame_rate: int = FRAME_RATE,
) -> Path:
    """Write an H.264 MP4 of a camera that sways over a picture with `faces` faces, 1 to 6; return `path`.

    size: pixels of the longer side, rounded down to an even number. The same arguments film the same
    pictures. Raises ValueError for another number of faces, OSError when it can not be written.
    """
    still = _scaled(_picture(faces), size // 2 * 2)
    height, width = (s - 2 * SWAY for s in still.shape[:2])
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=frame_rate, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(max(1, round(seconds * frame_rate))):
            x, y = (SWAY + round(SWAY * math.sin(2 * math.pi * k / (frame_rate * p))) for p in (4.0, 5.5))
            view = still[y : y + height, x : x + width] + rng.normal(0, SENSOR_NOISE, (height, width, 1))
            frame = av.VideoFrame.from_ndarray(
                np.clip(np.rint(view), 0, 255).astype(np.uint8), format="bgr24"
            )
            frame.pts, frame.time_base = k, Fraction(1, frame_rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _picture(faces: int) -> U8:
    """The part of a picture that shows so many faces, uint8 BGR."""
    if not 1 <= faces <= len(GROUP_FACES):
        raise ValueError(f"a sample has 1 to {len(GROUP_FACES)} faces, not {faces}")
    if faces == 1:
        return _read("skimage", "data/astronaut.png")[:352]
    group = _read("insightface", "data/images/t1.jpg")
    left, right = _gap_edges(faces, group.shape[1])
    top = max(0, min(group.shape[0] - (right - left), 40))
    return group[top : top + max(right - left, 480), left:right]


def _gap_edges(faces: int, width: int) -> tuple[int, int]:
    """The narrowest part of the group picture with so many faces, cut in the middles of gaps."""
    gaps = [0, *((a[1] + b[0]) // 2 for a, b in pairwise(GROUP_FACES)), width]
    return min(zip(gaps, gaps[faces:], strict=False), key=lambda edges: edges[1] - edges[0])


def _scaled(picture: U8, size: int) -> U8:
    """The picture scaled so that the swaying camera sees `size` pixels of its longer side; even sides."""
    height, width = picture.shape[:2]
    scale = (size + 2 * SWAY) / max(height, width)
    target = [round(side * scale) // 2 * 2 for side in (width, height)]
    how = cv2.INTER_AREA if scale <= 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, target, interpolation=how), np.uint8)


def _read(package: str, name: str) -> U8:
    data = np.frombuffer(files(package).joinpath(name).read_bytes(), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
