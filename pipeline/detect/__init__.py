"""Face detectors behind one protocol."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.frames import F32, U8


@dataclass(frozen=True, slots=True)
class Faces:
    """Detections on one picture, best first.

    boxes: float32 [K, 4] as x, y, w, h; scores: float32 [K], 0 to 1; landmarks: float32 [K, 5, 2]
    as x, y of the eye, the eye, the nose, the mouth corner and the mouth corner, those on the
    picture's left first. All in pixels of the picture that was given.
    """

    boxes: F32
    scores: F32
    landmarks: F32

    def __len__(self) -> int:
        return int(self.boxes.shape[0])

    def scaled(self, x: float, y: float) -> "Faces":
        """The same faces in a picture that is x times wider and y times higher."""
        size = np.array([x, y, x, y], np.float32)
        return Faces(self.boxes * size, self.scores, self.landmarks * size[:2])


class FaceDetector(Protocol):
    """Finds faces in pictures. Implementations are `YuNet` and `InsightFace`.

    Pictures whose longer side exceeds `longer_side` pixels are shrunk to it first, so a caller that
    can scale more cheaply gives them at that size.
    """

    name: str
    longer_side: int

    def detect(self, images: list[U8]) -> list[Faces]:
        """Faces of each image, uint8 BGR [H, W, 3] of any size; one `Faces` an image, in order."""
        ...
