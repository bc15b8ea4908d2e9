"""The dependency knot stays untied: one OpenCV and one ONNX Runtime in the environment."""

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("cv2", {"opencv-python-headless"}), ("onnxruntime", {"onnxruntime", "onnxruntime-gpu"})],
)
def test_one_distribution_provides(module: str, allowed: set[str]) -> None:
    providers = set(packages_distributions()[module])
    assert len(providers) == 1, f"{module} comes from {sorted(providers)}: they overwrite each other's files"
    assert providers <= allowed


@pytest.mark.parametrize("module", ["pipeline.engine", "pipeline.detect.yunet", "service.decoder"])
def test_nothing_reports_home(tmp_path: Path, module: str) -> None:
    """ONNX Runtime keeps its telemetry below the home directory from its import on."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    load = f"import {module}, onnxruntime, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    subprocess.run([sys.executable, "-c", load], env=environment, cwd=ROOT, check=True)
    assert list(tmp_path.rglob("*")) == []
