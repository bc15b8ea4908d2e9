"""YuNet (Wu, Peng, Yu: "YuNet: A Tiny Millisecond-level Face Detector", 2023) in ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.detect import Faces
from pipeline.detect.resize import pad, shrink
from pipeline.detect.session import open_session
from pipeline.errors import FaceModelError
from pipeline.frames import F32, U8
from pipeline.runtime import CPU

STRIDES = (8, 16, 32)
OUTPUTS = tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES)
MAX_BATCH = 16
MAX_CANDIDATES = 1000


class YuNet:
    """The embedded detector.

    Pictures whose longer side exceeds `longer_side` pixels are area-filtered down to it first, so
    the time of a detection is bounded; faces from about 12 pixels of the shrunk picture upwards are
    found. Pictures that share a padded size share a batch.
    """

    name = "yunet"

    def __init__(
        self,
        model: Path,
        *,
        longer_side: int = 640,
        min_score: float = 0.6,
        max_overlap: float = 0.3,
        threads: int = 1,
        providers: Sequence[str] = (CPU,),
    ) -> None:
        """Load the network. `min_score` in 0 to 1; `max_overlap`, the IoU above which the weaker of
        two boxes is dropped. Raises FaceModelError when the file is missing or not a YuNet."""
        self.longer_side, self.min_score, self.max_overlap = longer_side, min_score, max_overlap
        self._session = open_session(model, threads, providers)
        self._input = self._session.get_inputs()[0].name
        missing = set(OUTPUTS) - {o.name for o in self._session.get_outputs()}
        if missing:
            raise FaceModelError(f"{model} is not a YuNet: it has no output {', '.join(sorted(missing))}")

    def detect(self, images: list[U8]) -> list[Faces]:
        """Faces of each image, uint8 BGR [H, W, 3] of any size; one `Faces` an image, in order."""
        shrunk = [shrink(image, self.longer_side) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(shrunk):
            groups.setdefault(padded_size(*image.shape[:2]), []).append(i)
        found: dict[int, Faces] = {}
        for size, members in groups.items():
            for at in range(0, len(members), MAX_BATCH):
                batch = members[at : at + MAX_BATCH]
                for i, faces in zip(batch, self._run([shrunk[i] for i in batch], *size), strict=True):
                    height, width = images[i].shape[:2]
                    found[i] = faces.scaled(width / shrunk[i].shape[1], height / shrunk[i].shape[0])
        return [found[i] for i in range(len(images))]

    def _run(self, images: list[U8], height: int, width: int) -> list[Faces]:
        padded = np.stack([pad(image, height, width) for image in images])
        batch = np.ascontiguousarray(padded.transpose(0, 3, 1, 2), np.float32)
        outputs = dict(zip(OUTPUTS, self._session.run(OUTPUTS, {self._input: batch}), strict=True))
        return [
            decode({k: v[i] for k, v in outputs.items()}, width, self.min_score, self.max_overlap)
            for i in range(len(images))
        ]


def padded_size(height: int, width: int) -> tuple[int, int]:
    """The next multiples of the coarsest stride, as the network's grids need them."""
    coarsest = STRIDES[-1]
    return -(-height // coarsest) * coarsest, -(-width // coarsest) * coarsest


def decode(outputs: dict[str, F32], width: int, min_score: float, max_overlap: float) -> Faces:
    """Faces of one picture from its twelve output maps, best first.

    outputs: `cls`, `obj` [cells, 1], `bbox` [cells, 4], `kps` [cells, 10] at each stride, row by
    row; width: of the padded picture. The score is the geometric mean of the class and objectness
    probabilities; centres and landmarks are offsets from the cell in strides, sizes are logarithms.
    """
    scores, boxes, landmarks = [], [], []
    for stride in STRIDES:
        quality = np.clip(outputs[f"cls_{stride}"], 0, 1) * np.clip(outputs[f"obj_{stride}"], 0, 1)
        score = np.sqrt(quality[:, 0])
        cells = np.flatnonzero(score >= min_score)
        columns = width // stride
        corner = np.stack([cells % columns, cells // columns], axis=-1).astype(np.float32)
        raw = outputs[f"bbox_{stride}"][cells]
        size = np.exp(raw[:, 2:]) * stride
        centre = (corner + raw[:, :2]) * stride
        points = outputs[f"kps_{stride}"][cells].reshape(-1, 5, 2)
        scores.append(score[cells])
        boxes.append(np.concatenate([centre - size / 2, size], axis=-1))
        landmarks.append((points + corner[:, None]) * stride)
    return suppress(
        Faces(np.concatenate(boxes), np.concatenate(scores), np.concatenate(landmarks)), max_overlap
    )


def suppress(faces: Faces, max_overlap: float) -> Faces:
    """Greedy non-maximum suppression, best first; of equal scores the earlier comes first."""
    order = np.argsort(-faces.scores, kind="stable")[:MAX_CANDIDATES]
    boxes = faces.boxes[order]
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    area = boxes[:, 2] * boxes[:, 3]
    alive = np.ones(len(order), bool)
    kept = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        sides = np.clip(np.minimum(high[i], high) - np.maximum(low[i], low), 0, None)
        shared = sides[:, 0] * sides[:, 1]
        alive &= shared <= max_overlap * (area[i] + area - shared)
    keep = order[kept]
    return Faces(faces.boxes[keep], faces.scores[keep], faces.landmarks[keep])
