"""ONNX Runtime sessions of the face detectors."""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from pipeline.errors import FaceModelError
from pipeline.runtime import session_options


def open_session(model: Path, threads: int, providers: Sequence[str]) -> ort.InferenceSession:
    """A session of the file `model` on `providers`, the preferred one first;
    threads: 0 for all usable cores.

    Raises FaceModelError when the file is missing, is not a network that ONNX Runtime can run, or
    the preferred provider did not come up: running on another device in silence is no service.
    """
    if not model.is_file():
        raise FaceModelError(f"no face detector at {model}")
    try:
        session = ort.InferenceSession(str(model), session_options(threads), providers=list(providers))
    except Exception as e:  # ONNX Runtime's errors share no public base class
        raise FaceModelError(f"{model} can not be loaded as an ONNX network: {e}") from e
    require_provider(session, providers)
    return session


def require_provider(session: ort.InferenceSession, providers: Sequence[str]) -> None:
    """Raises FaceModelError unless the live session runs on the first of `providers`."""
    live = session.get_providers()
    if live[0] != providers[0]:
        raise FaceModelError(f"the face detector was to run on {providers[0]}, but it runs on {live[0]}")
