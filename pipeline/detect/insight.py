"""The InsightFace package's own face detectors, on a model that the operator provides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.detect import Faces
from pipeline.detect.resize import pad, shrink
from pipeline.detect.session import require_provider
from pipeline.errors import FaceModelError
from pipeline.frames import F32, U8
from pipeline.runtime import CPU, session_options

MOST_OBLONG = 64
NAMES_OF_DETECTORS = ("det", "scrfd", "retinaface")


class InsightFace:
    """SCRFD (Guo et al., 2021) or RetinaFace (Deng et al., 2020) through `insightface.model_zoo`.

    Nothing is downloaded. The published InsightFace weights are for non-commercial research only,
    so the operator has to say that their terms are accepted.
    """

    name = "insightface"
    longer_side = 640

    def __init__(
        self,
        model: Path,
        *,
        accept_license: bool = False,
        min_score: float = 0.5,
        threads: int = 1,
        providers: Sequence[str] = (CPU,),
    ) -> None:
        """Load the detector from `model`, an .onnx file or the directory of a model pack.

        Raises FaceModelError when the terms were not accepted, when nothing is there, when there is
        no detector with landmarks in it, or when the preferred provider did not come up.
        """
        if not accept_license:
            raise FaceModelError(
                "InsightFace's models are for non-commercial research unless you hold another licence: "
                "set DETECTOR_ACCEPT_INSIGHTFACE_LICENSE=true to state that you may use them"
            )
        self._model = _open(model, threads, providers)
        self._model.prepare(0, det_thresh=min_score)

    def detect(self, images: list[U8]) -> list[Faces]:
        """Faces of each image, uint8 BGR [H, W, 3] of any size; one `Faces` an image, in order.

        The package's detectors take one picture at a time; larger ones are area-filtered to
        `longer_side` first.
        """
        return [self._detect(image) for image in images]

    def _detect(self, image: U8) -> Faces:
        small = shrink(image, self.longer_side)
        x, y = image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]
        # The package rounds the shorter side of a very oblong picture down to nothing.
        least = -(-max(small.shape[:2]) // MOST_OBLONG)
        small = pad(small, max(small.shape[0], least), max(small.shape[1], least))
        found, landmarks = self._model.detect(small)
        return _faces(np.asarray(found, np.float32), np.asarray(landmarks, np.float32)).scaled(x, y)


def _faces(found: F32, landmarks: F32) -> Faces:
    """From rows of left, top, right, bottom, score and [K, 5, 2] landmarks."""
    boxes = np.concatenate([found[:, :2], found[:, 2:4] - found[:, :2]], axis=1)
    return Faces(boxes, found[:, 4], landmarks.reshape(-1, 5, 2))


def _open(path: Path, threads: int, providers: Sequence[str]) -> Any:
    """The first detector with landmarks among the files at `path`."""
    refused = []
    for file in _candidates(path):
        try:
            detector = _route(file, threads, providers)
        except Exception as e:  # the package raises anything from AssertionError to ONNX Runtime's own
            refused.append(f"{file.name} can not be loaded: {e}")
            continue
        if getattr(detector, "taskname", None) != "detection":
            refused.append(f"{file.name} is not a detection model")
        elif not detector.use_kps:
            refused.append(f"{file.name} gives no landmarks")
        else:
            require_provider(detector.session, providers)
            return detector
    raise FaceModelError(f"no face detector in {path}: {'; '.join(refused)}")


def _candidates(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FaceModelError(f"no InsightFace model at {path}")
    files = sorted(path.rglob("*.onnx"))
    if not files:
        raise FaceModelError(f"no InsightFace model in {path}: it holds no .onnx file")
    # A pack holds large recognition networks too; loading them just to turn them down takes seconds.
    return sorted(files, key=lambda f: not f.name.lower().startswith(NAMES_OF_DETECTORS))


def _route(file: Path, threads: int, providers: Sequence[str]) -> Any:
    # The package takes more than a second to import; who does not use it should not pay for it.
    from insightface import model_zoo

    return model_zoo.get_model(
        str(file),
        providers=list(providers),
        sess_options=session_options(threads),
        static_shape_sessions=False,
    )
