"""The dependency knot stays untied: one OpenCV and one ONNX Runtime in the environment."""

from importlib.metadata import packages_distributions

import pytest


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("cv2", {"opencv-python-headless"}), ("onnxruntime", {"onnxruntime", "onnxruntime-gpu"})],
)
def test_one_distribution_provides(module: str, allowed: set[str]) -> None:
    providers = set(packages_distributions()[module])
    assert len(providers) == 1, f"{module} comes from {sorted(providers)}: they overwrite each other's files"
    assert providers <= allowed
