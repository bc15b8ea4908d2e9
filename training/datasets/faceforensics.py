"""FaceForensics++ (Rössler et al., ICCV 2019), with DeepFakeDetection (Dufour & Gully, 2019) in it.

original_sequences/{youtube,actors}/{raw|c0,c23,c40}/videos/033.mp4, 01__exit_phone_room.mp4
manipulated_sequences/METHOD/{raw|c0,c23,c40}/videos/TARGET_SOURCE.mp4,
01_02__exit_phone_room__YVGY8LOK.mp4; train.json, val.json, test.json: lists of pairs of sequences.
"""

import json
import re
from pathlib import Path

from training.datasets.record import Dataset, DatasetError, Record, dataset, videos

COMPRESSIONS = {"c0": ("c0", "raw"), "raw": ("raw", "c0"), "c23": ("c23",), "c40": ("c40",)}
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter", "DeepFakeDetection")
SPLIT_FILES = {"train.json": "train", "val.json": "validation", "test.json": "test"}
SPLIT_FOLDERS = ("", "splits", "dataset/splits")

_SEQUENCE = re.compile(r"^(?P<id>\d+)$")
_SWAP = re.compile(r"^(?P<target>\d+)_(?P<source>\d+)$")
_SCENE = re.compile(r"^(?P<actor>\d+)__(?P<scene>.+)$")
_SCENE_SWAP = re.compile(r"^(?P<target>\d+)_(?P<source>\d+)__(?P<scene>.+)__(?P<id>[^_]+)$")


def read_faceforensics(root: Path, compression: str) -> Dataset:
    """The clips of one compression, of all methods there are. Raises DatasetError.

    A sequence counts as one person. A manipulated clip shows the person of its target sequence and
    carries the face or the expression of its source, so it is kin to both.
    """
    if compression not in COMPRESSIONS:
        raise DatasetError(f"unknown compression {compression!r}: there are c0 (or raw), c23, c40")
    for needed in ("original_sequences", "manipulated_sequences"):
        if not (root / needed).is_dir():
            raise DatasetError(f"{root} is not FaceForensics++: it has no folder {needed}")
    split_of = _official(root)
    records = [
        _original(path, root, split_of)
        for folder in ("youtube", "actors")
        for path in _clips(root / "original_sequences" / folder, compression)
    ]
    originals = {Path(r.file).stem: r.file for r in records}
    records += [
        _manipulated(path, root, method, split_of, originals)
        for method in METHODS
        for path in _clips(root / "manipulated_sequences" / method, compression)
    ]
    if not records:
        raise DatasetError(
            f"{root} holds no video at compression {compression}; it has {_found(root)} (--compression)"
        )
    return dataset("faceforensics", root, records)


def _clips(folder: Path, compression: str) -> list[Path]:
    return next((found for c in COMPRESSIONS[compression] if (found := videos(folder / c))), [])


def _found(root: Path) -> str:
    there = {p.name for p in root.glob("*_sequences/*/*") if p.name in COMPRESSIONS and videos(p)}
    return ", ".join(sorted(there)) or "none of c0, c23, c40"


def _original(path: Path, root: Path, split_of: dict[str, str]) -> Record:
    file, name = path.relative_to(root).as_posix(), path.stem
    if _SEQUENCE.match(name):
        person = f"faceforensics:{name}"
        return Record(file, fake=False, identity=person, source=person, split=split_of.get(name, ""))
    if scene := _SCENE.match(name):
        return Record(file, fake=False, identity=_actor(scene["actor"]), source=f"faceforensics:{name}")
    raise DatasetError(f"{path}: original sequences are named 033.mp4 or 01__exit_phone_room.mp4")


def _manipulated(
    path: Path, root: Path, method: str, split_of: dict[str, str], originals: dict[str, str]
) -> Record:
    file = path.relative_to(root).as_posix()
    if swap := _SWAP.match(path.stem):
        target, source = swap["target"], swap["source"]
        both = f"faceforensics:{target}+faceforensics:{source}"
        split = split_of.get(target, "") if split_of.get(target) == split_of.get(source) else ""
        return Record(file, True, both, both, method, split, originals.get(target, ""))
    if swap := _SCENE_SWAP.match(path.stem):
        people = f"{_actor(swap['target'])}+{_actor(swap['source'])}"
        scene = f"{swap['target']}__{swap['scene']}"
        return Record(file, True, people, f"faceforensics:{scene}", method, "", originals.get(scene, ""))
    raise DatasetError(
        f"{path}: manipulated sequences are named 033_097.mp4 or 01_02__exit_phone_room__YVGY8LOK.mp4"
    )


def _actor(number: str) -> str:
    return f"faceforensics:actor{number}"


def _official(root: Path) -> dict[str, str]:
    """The official split of each sequence; empty where none of the three files is there."""
    for folder in SPLIT_FOLDERS:
        present = [name for name in SPLIT_FILES if (root / folder / name).is_file()]
        if not present:
            continue
        if lacking := sorted(set(SPLIT_FILES) - set(present)):
            raise DatasetError(f"{root / folder} has {', '.join(present)} but not {', '.join(lacking)}")
        return {
            sequence: split
            for name, split in SPLIT_FILES.items()
            for pair in _pairs(root / folder / name)
            for sequence in pair
        }
    return {}


def _pairs(path: Path) -> list[list[str]]:
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise DatasetError(f"{path} can not be read: {e}") from e
    if not isinstance(pairs, list) or not all(
        isinstance(p, list) and all(isinstance(s, str) for s in p) for p in pairs
    ):
        raise DatasetError(f'{path} is not a list of pairs of sequences like ["071", "054"]')
    return pairs
