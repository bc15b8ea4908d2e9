"""Prepared clips on disk: a few large arrays of face crops and an index of what lies where.

DIR/shard-00000.npy, ...: uint8 [frames, S, S, 3] RGB, clips back to back. DIR/index.json: crop and sampling
specification, digest of the crop specification, the shards with their SHA-256, the clips. The index is
written last: where there is one, all is there.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DetectError
from pipeline.frames import U8
from pipeline.spec import CropSpec, SamplingSpec

SCHEMA = 1
INDEX = "index.json"
SHARD_FRAMES = 8192
"""Frames of a shard at most, about 300 MB of 112 x 112 crops; only a single longer clip exceeds it."""


class ShardsError(DetectError):
    """A directory does not hold prepared shards, or not what its index says."""


@dataclass(frozen=True, slots=True)
class ShardClip:
    """One clip in prepared shards.

    file: path relative to the data set's root. split: train, validation or test. identity, source: the
    persons in it and the recordings that it was made from, joined by `+` where there are several; splits
    never part them. method: generator or manipulation, empty for a real clip. frames: T; shard, offset:
    where its frames lie.
    """

    file: str
    fake: bool
    split: str
    identity: str
    source: str
    method: str
    frames: int
    shard: int
    offset: int


class Shards:
    """Prepared shards on disk. Made by `open_shards`.

    root: their directory; crop, sampling: how clips were cut; digest: of the crop specification; clips:
    all of them, in the order in which they lie.
    """

    def __init__(
        self, root: Path, crop: CropSpec, sampling: SamplingSpec, files: list[Path], clips: list[ShardClip]
    ) -> None:
        self.root, self.crop, self.sampling, self.clips = root, crop, sampling, clips
        self.digest = crop_digest(crop)
        self._files = files

    def frames(self, clip: ShardClip) -> U8:
        """The crops of a clip, uint8 [T, S, S, 3] RGB in order of time: a read-only memory map."""
        return _mapped(self._files[clip.shard])[clip.offset : clip.offset + clip.frames]


def crop_digest(crop: CropSpec) -> str:
    """`sha256:` and the digest of a crop specification: equal for crops that can train one network."""
    text = json.dumps(crop.model_dump(mode="json"), sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def open_shards(root: Path) -> Shards:
    """Read and check the index of prepared shards, and the shape of each shard. Raises ShardsError."""
    path = root / INDEX
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if index["schema"] != SCHEMA:
            raise ShardsError(f"{path} is of schema {index['schema']}, this version reads {SCHEMA}")
        crop = CropSpec.model_validate(index["crop"])
        sampling = SamplingSpec.model_validate(index["sampling"])
        listed = [(root / s["file"], int(s["frames"])) for s in index["shards"]]
        clips = [ShardClip(**c) for c in index["clips"]]
    except FileNotFoundError as e:
        raise ShardsError(f"{root} holds no finished preparation: {INDEX} not found") from e
    except OSError as e:
        raise ShardsError(f"{path} can not be read: {e}") from e
    except (ValueError, KeyError, TypeError) as e:
        raise ShardsError(f"{path} is not an index of shards: {e}") from e
    if index["digest"] != crop_digest(crop):
        raise ShardsError(f"{path}: the digest is not that of its crop specification")
    for file, frames in listed:
        _check(file, (frames, crop.side, crop.side, 3))
    for clip in clips:
        if not 0 <= clip.shard < len(listed) or clip.offset + clip.frames > listed[clip.shard][1]:
            raise ShardsError(f"{path}: {clip.file} lies outside of its shard")
    return Shards(root, crop, sampling, [file for file, _ in listed], clips)


def layout(lengths: Sequence[int], limit: int = SHARD_FRAMES) -> list[range]:
    """Which clips go into each shard, by position: in order, none is cut in two."""
    runs, start, filled = [], 0, 0
    for k, frames in enumerate(lengths):
        if k > start and filled + frames > limit:
            runs.append(range(start, k))
            start, filled = k, 0
        filled += frames
    return [*runs, range(start, len(lengths))] if lengths else []


def write_shard(
    path: Path, arrays: Iterable[Callable[[], U8]], shape: tuple[int, int, int, int]
) -> dict[str, Any]:
    """Write a shard of this shape from its clips' arrays, at once or not at all; its entry in the index."""
    part = path.with_suffix(".part")
    with part.open("wb") as f:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(f, header)
        for load in arrays:
            f.write(np.ascontiguousarray(load()).tobytes())
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)
    return shard_entry(path, shape[0])


def shard_entry(path: Path, frames: int) -> dict[str, Any]:
    """What the index says of a shard."""
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return {"file": path.name, "frames": frames, "sha256": digest}


def write_index(
    root: Path,
    *,
    crop: CropSpec,
    sampling: SamplingSpec,
    shards: list[dict[str, Any]],
    clips: list[ShardClip],
    facts: dict[str, Any],
) -> None:
    """Write the index, which makes the preparation complete; `facts` are further entries about it."""
    index = {
        "schema": SCHEMA,
        **facts,
        "crop": crop.model_dump(mode="json"),
        "digest": crop_digest(crop),
        "sampling": sampling.model_dump(mode="json"),
        "shards": shards,
        "clips": [asdict(c) for c in clips],
    }
    write_json(root / INDEX, index)


def write_json(path: Path, content: object) -> None:
    """Write JSON at once or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


@lru_cache(maxsize=64)
def _mapped(path: Path) -> U8:
    array: U8 = np.load(path, mmap_mode="r")
    return array


def _check(path: Path, shape: tuple[int, ...]) -> None:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as e:
        raise ShardsError(f"{path} can not be read: {e}") from e
    if array.shape != shape or array.dtype != np.uint8:
        raise ShardsError(f"{path} holds {array.dtype} {array.shape}, its index says uint8 {shape}")
