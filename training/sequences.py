"""Training sequences: windows of a real clip and the same windows of its altered copy."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from pipeline.frames import F32, U8
from training.alter import pair
from training.recipe import Pairs


@dataclass(frozen=True, slots=True)
class Clip:
    """Native luma of the face of one real clip, uint8 [bursts, frames, side, side].

    group: whoever shares it shares people, cameras or an origin; folds never split it.
    """

    name: str
    group: str
    luma: U8


def sequence_pair(clip: Clip, rng: Generator, pairs: Pairs, side: int, frames: int) -> tuple[U8, U8]:
    """Windows of a clip and of its altered copy, each uint8 [bursts * windows, frames, side, side].

    All bursts of a sequence are altered, scaled and encoded in one manner, as a generator would, and
    half of the sequences are mirrored. Both copies are cut at the same places.
    """
    region = min(pairs.region, clip.luma.shape[2]) // 2 * 2
    scaled = _scaled_side(region, side, rng, pairs)
    manner = int(rng.integers(2**63))
    way = int(rng.choice([1, -1]))
    chosen = np.sort(rng.choice(len(clip.luma), pairs.bursts, replace=len(clip.luma) < pairs.bursts))
    real_windows, altered_windows = [], []
    for burst_of in chosen:
        burst = _region(clip.luma[burst_of, :, :, ::way], region, frames, rng)
        if scaled != region:
            burst = np.stack([cv2.resize(f, (scaled, scaled), interpolation=cv2.INTER_AREA) for f in burst])
        real, altered = pair(burst, np.random.default_rng(manner), crf=pairs.crf, encoded=pairs.encoded)
        for _ in range(pairs.windows):
            y, x = rng.integers(0, scaled - side + 1, 2)
            real_windows.append(real[:, y : y + side, x : x + side])
            altered_windows.append(altered[:, y : y + side, x : x + side])
    return np.stack(real_windows), np.stack(altered_windows)


def training_batch(
    clips: list[Clip], rng: Generator, pairs: Pairs, *, batch: int, side: int, frames: int
) -> tuple[U8, np.ndarray]:
    """Samples uint8 [2 * batch, T, frames, side, side, 1] and labels int64 [2 * batch]: 0 real, 1 fake.

    Groups are drawn evenly, then a clip of the group, so that no origin dominates. The one channel
    is luma, the only one that the native trunk reads.
    """
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.group, []).append(clip)
    names = sorted(groups)
    samples: list[U8] = []
    for _ in range(batch):
        group = groups[names[int(rng.integers(len(names)))]]
        samples += sequence_pair(group[int(rng.integers(len(group)))], rng, pairs, side, frames)
    return np.stack(samples)[..., None], np.tile(np.array([0, 1], np.int64), batch)


def _scaled_side(region: int, side: int, rng: Generator, pairs: Pairs) -> int:
    if rng.random() >= pairs.rescaled:
        return region
    return max(side, int(region * rng.uniform(pairs.least_scale, 1)) // 2 * 2)


def _region(burst: U8, region: int, frames: int, rng: Generator) -> F32:
    t = int(rng.integers(0, burst.shape[0] - frames + 1))
    y, x = rng.integers(0, burst.shape[1] - region + 1, 2)
    return burst[t : t + frames, y : y + region, x : x + region].astype(np.float32)
