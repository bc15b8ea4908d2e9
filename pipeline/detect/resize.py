"""Bringing pictures to the size that a detector works at."""

import cv2
import numpy as np

from pipeline.frames import U8


def shrink(image: U8, longer_side: int) -> U8:
    """The picture with its longer side at most `longer_side`, area-filtered; never enlarged."""
    height, width = image.shape[:2]
    scale = longer_side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def pad(image: U8, height: int, width: int) -> U8:
    """The picture with black below and to the right of it, up to the given size."""
    below, beside = height - image.shape[0], width - image.shape[1]
    return np.pad(image, ((0, below), (0, beside), (0, 0))) if below or beside else image
