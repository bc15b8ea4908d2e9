"""A clip to try things with, made from a picture that may be used for anything.

It is the photograph of the astronaut Eileen Collins that scikit-image carries, which is installed with this
package: by NASA, and in the public domain. A clip with several faces shows her as often, side by side and
each time a little closer.
"""

import math
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.frames import U8

MOST_FACES = 6
PORTRAIT_HEIGHT = 352
"""Rows of the photograph that its one face is shown with."""
COLUMN_WIDTH, COLUMN_MIDDLE = 170, 223
"""Columns of the photograph that show the head alone, for its place among others; the middle of its face."""
CLOSER = 0.05
"""By how much more than the first each further face is enlarged, so that no two are alike to the detector."""

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
    still = _scaled(picture(faces), size // 2 * 2)
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


def picture(faces: int) -> U8:
    """A picture with so many faces, the smallest 90 pixels wide, uint8 BGR [H, W, 3]. Raises ValueError."""
    if not 1 <= faces <= MOST_FACES:
        raise ValueError(f"a sample has 1 to {MOST_FACES} faces, not {faces}")
    data = np.frombuffer(files("skimage").joinpath("data/astronaut.png").read_bytes(), np.uint8)
    photograph = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    if faces == 1:
        return photograph[:PORTRAIT_HEIGHT]
    height = min(max(PORTRAIT_HEIGHT, faces * COLUMN_WIDTH), len(photograph))
    return np.hstack([_column(photograph, height, 1 + CLOSER * k) for k in range(faces)])


def _column(photograph: U8, height: int, zoom: float) -> U8:
    """The head seen `zoom` times as close, uint8 BGR [height, COLUMN_WIDTH, 3]."""
    half = round(COLUMN_WIDTH / zoom / 2)
    part = photograph[: round(height / zoom), COLUMN_MIDDLE - half : COLUMN_MIDDLE + half]
    return np.asarray(cv2.resize(part, (COLUMN_WIDTH, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _scaled(still: U8, size: int) -> U8:
    """The picture scaled so that the swaying camera sees `size` pixels of its longer side; even sides."""
    height, width = still.shape[:2]
    scale = (size + 2 * SWAY) / max(height, width)
    target = [round(side * scale) // 2 * 2 for side in (width, height)]
    how = cv2.INTER_AREA if scale <= 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(still, target, interpolation=how), np.uint8)
