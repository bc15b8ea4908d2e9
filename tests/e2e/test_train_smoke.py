"""The whole way by its commands, as a user goes it: prepare, train, export, evaluate, serve."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from pipeline.frames import U8
from tests.media import face_clip, write_clip
from tests.server import ROOT, served

SELF = [sys.executable, "-c", "from cli.main import main; main()"]
RECIPE = """
seed = 1
[network]
trunk = "resnext50_32x4d"
feature_size = 2048
hidden = 8
crop = { kind = "aligned", side = 48 }
sampling = { bursts = 4, burst_frames = 1, spread = "head" }
[clips]
pseudofakes = 0.5
[clips.augment]
flip = 0.5
h264 = 0.5
[optimiser]
method = "adam"
epochs = 1
batch = 4
learning_rate = 1e-4
warm_up = 1
precision = "fp32"
"""


def frames_of(path: Path) -> list[U8]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def write_data(root: Path) -> Path:
    """Six people in a film and in a forgery of it each: the same face, lit from another side."""
    root.mkdir()
    filmed = frames_of(face_clip(root / "source.mp4", seconds=0.4, size=320))
    width = filmed[0].shape[1]
    rows = []
    for k, split in enumerate(["train"] * 4 + ["validation", "test"]):
        light = np.linspace(-4 * k, 4 * k, width)[None, :, None]
        red = np.linspace(0, 60, width)[None, :, None] * np.array([1, 0, -1])
        for label, added in (("real", light), ("fake", light + red)):
            name = f"{k}-{label}.mp4"
            write_clip(root / name, [np.clip(f + added, 0, 255).astype(np.uint8) for f in filmed])
            rows.append({"file": name, "label": label, "identity": k, "source": k, "split": split})
    with (root / "clips.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root / "clips.csv"


def command(*words: object) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    done = subprocess.run(
        [*SELF, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each command has written what the next one reads."""
    home = tmp_path_factory.mktemp("smoke")
    table = write_data(home / "data")
    (home / "recipe.toml").write_text(RECIPE)
    command("prepare", "table", table, "--out", home / "shards", "--side", 48, "--min-frames", 4)
    out = home / "run"
    told = command("train", home / "recipe.toml", "--data", home / "shards", "--out", out, "--threads", 1)
    assert f"next: deepfake-detect export {out / 'model.pt'}" in told
    command("export", out / "model.pt", "--out", home / "models" / "smoke-1")
    command(
        *("evaluate", home / "models" / "smoke-1", "--clips", table, "--split", "test"),
        *("--conditions", "as-published", "--out", home / "report", "--workers", 1, "--card"),
    )
    return home


def test_training_leaves_a_log_curves_and_a_checkpoint(home: Path) -> None:
    lines = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2
    assert {"loss", "learning_rate", "validation_loss", "validation_auc", "seconds"} <= lines[-1].keys()
    assert (home / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_its_verdict_is_served(home: Path) -> None:
    clip = (home / "data" / "5-fake.mp4").read_bytes()
    with served(models_dir=home / "models", max_batch=4) as url:
        answer = httpx.post(f"{url}/v1/detect", files={"file": clip}, timeout=120).raise_for_status().json()
    assert answer["model"]["id"] == "smoke-1"
    assert answer["model"]["trained"] is True
    assert answer["verdict"] in {"authentic", "manipulated", "uncertain"}
    assert answer["faces"][0]["frames_used"] == 4
    assert (home / "report").is_dir()
