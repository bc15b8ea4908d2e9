"""What a model saw of a face in one look, as a picture with a map over it."""

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pipeline.crop import window_places
from pipeline.frames import F32, U8
from pipeline.quality import BOX_IN_TEMPLATE
from pipeline.spec import CropSpec

LONGEST_PX = 128
"""Side of a picture at most; it is shown larger than that, and sent with each map."""
UNSEEN = 40
"""Grey of what lies between the windows, which the model did not see."""
FOR_FAKE, AGAINST = (0, 94, 213), (178, 114, 0)
"""Vermilion and blue, fit for all kinds of colour vision, of M. Okabe and K. Ito's palette, as BGR. Opacity
alone tells how strong a cell is, and is linear in it."""
MOST_OPAQUE = 0.75
LEAST_SCALE = 0.1
"""Log-odds that a fully opaque cell stands for at least: weaker maps look weak."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Part of a frame in grey. region: float32 [4], what it shows, x, y, width and height in pixels of the
    upright picture; luma: uint8 [H, W]; seen: bool [H, W], where the model looked."""

    region: F32
    luma: U8
    seen: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]"

    def overlaid(self, grid: F32, scale: float) -> str:
        """The picture as the data URI of a PNG, cells of the grid coloured by their sign and by their size in
        units of `scale`."""
        height, width = self.luma.shape
        values = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
        strength = np.clip(np.abs(values) / max(scale, LEAST_SCALE), 0, 1) * MOST_OPAQUE * self.seen
        colours = np.where((values > 0)[..., None], FOR_FAKE, AGAINST)
        grey = self.luma[..., None].astype(np.float32)
        mixed = grey * (1 - strength[..., None]) + colours * strength[..., None]
        _, png = cv2.imencode(".png", np.rint(mixed).astype(np.uint8))
        return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def picture(samples: U8, box: F32, width: int, height: int, crop: CropSpec) -> Picture:
    """The first frame of one look's samples, uint8 [n, S, S, 3], at their places in the frame.

    box: float32 [4], the face, in a picture of `width` x `height`. Windows lie where they were cut. An
    aligned crop is turned with the face; its region is the upright square about the box of about its size.
    """
    if crop.kind == "aligned":
        side = float(np.sqrt(max(box[2], 0) * max(box[3], 0))) / BOX_IN_TEMPLATE * crop.margin
        centre = box[:2] + box[2:] / 2
        region = np.array([*(centre - side / 2), side, side], np.float32)
        return _mosaic(samples, np.zeros((1, 2)), crop, region)
    places = window_places(box, width, height, crop)
    corner = places.min(axis=0)
    extent = places.max(axis=0) - corner + crop.side
    return _mosaic(samples, places - corner, crop, np.array([*corner, *extent], np.float32))


def _mosaic(
    samples: U8, offsets: "np.ndarray[tuple[int, ...], np.dtype[Any]]", crop: CropSpec, region: F32
) -> Picture:
    """Samples at their places in one picture, which is made no larger than is sent."""
    extent = offsets.max(axis=0) + crop.side
    scale = min(1.0, LONGEST_PX / float(extent.max()))
    wide, high = (max(1, round(float(e) * scale)) for e in extent)
    side = max(1, round(crop.side * scale))
    luma = np.full((high, wide), UNSEEN, np.uint8)
    seen = np.zeros((high, wide), np.bool_)
    for sample, offset in zip(samples, offsets, strict=True):
        x, y = (round(float(o) * scale) for o in offset)
        small = cv2.resize(_luma(sample, crop), (side, side), interpolation=cv2.INTER_AREA)
        part = luma[y : y + side, x : x + side]
        part[:] = small[: part.shape[0], : part.shape[1]]
        seen[y : y + side, x : x + side] = True
    return Picture(region, luma, seen)


def _luma(sample: U8, crop: CropSpec) -> U8:
    """One frame's luma, uint8 [S, S]; of YUV as video has it, from 16 to 235."""
    if crop.colour == "yuv":
        luma = (sample[..., 0].astype(np.float32) - 16) * (255 / 219)
    else:
        luma = sample.astype(np.float32) @ LUMA
    return np.asarray(np.rint(luma).clip(0, 255), np.uint8)
