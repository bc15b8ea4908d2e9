"""One clip blended into another by a mask.

Clips are float32 [T, H, W, C], 0 to 255; masks float32 [H, W, 1] or [T, H, W, 1], 0 to 1.
"""

import numpy as np

from pipeline.frames import F32


def alpha(target: F32, source: F32, mask: F32) -> F32:
    """`source` where the mask is 1, `target`, bit for bit, where it is 0."""
    return np.asarray(target + mask * (source - target), np.float32)
