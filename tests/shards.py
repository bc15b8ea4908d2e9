"""Small prepared shards that tests make for themselves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.frames import U8
from pipeline.spec import CropSpec, SamplingSpec
from training.shards import ShardClip, write_index, write_shard


def shard_clip(
    name: str, frames: int, *, fake: bool = False, split: str = "train", who: str | None = None
) -> ShardClip:
    """What an index says of a clip; where it lies is filled in by `write_shards`."""
    person = who or name
    return ShardClip(name, fake, split, person, f"film of {person}", "swap" if fake else "", frames, 0, 0)


def write_shards(root: Path, clips: Sequence[tuple[ShardClip, U8]], crop: CropSpec) -> Path:
    """All clips in one shard below `root`; returns `root`."""
    root.mkdir(parents=True)
    listed, offset = [], 0
    for clip, _ in clips:
        fields = {n: getattr(clip, n) for n in ShardClip.__slots__}
        listed.append(ShardClip(**fields | {"offset": offset}))
        offset += clip.frames
    arrays = [lambda pixels=pixels: pixels for _, pixels in clips]
    shard = write_shard(root / "shard-00000.npy", arrays, (offset, crop.side, crop.side, 3))
    sampling = SamplingSpec(bursts=150, burst_frames=1, spread="head")
    write_index(root, crop=crop, sampling=sampling, shards=[shard], clips=listed, facts={})
    return root


def toy_faces(count: int, side: int, frames: int = 6, *, split: str = "train") -> list[tuple[ShardClip, U8]]:
    """Clips of noise; those of fakes, every second one, are a little smoother in time and redder."""
    made = []
    for k in range(count):
        rng = np.random.default_rng([k, len(split)])
        pixels = rng.normal(120, 25, (frames, side, side, 3))
        if fake := k % 2 == 1:
            pixels[..., 0] += 40
        clip = shard_clip(f"{split}-{k}", frames, fake=fake, split=split, who=f"{split} {k // 2}")
        made.append((clip, np.clip(pixels, 0, 255).astype(np.uint8)))
    return made
