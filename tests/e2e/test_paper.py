"""The paper's own network, exported from an untrained checkpoint, is verified and served."""

import httpx
import pytest

from export.bundle import export_untrained, verify_bundle
from pipeline.bundle import open_bundle
from pipeline.errors import BundleUntrained
from tests.media import face_clip
from tests.server import served


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    at = tmp_path_factory.mktemp("models")
    export_untrained("resnext50_32x4d", at / "paper")
    return at


def test_it_is_verified_and_says_what_it_is(models):
    assert max(verify_bundle(models / "paper").values()) <= 1e-4
    manifest = open_bundle(models / "paper", allow_untrained=True).manifest
    assert (manifest.crop.kind, manifest.crop.side, manifest.feature_size) == ("aligned", 112, 2048)
    with pytest.raises(BundleUntrained):
        open_bundle(models / "paper")


def test_it_is_served_only_on_demand_and_says_that_it_means_nothing(models, tmp_path):
    clip = face_clip(tmp_path / "c.mp4", seconds=0.4).read_bytes()
    with served(models_dir=models, allow_untrained=True, max_batch=4) as url:
        answer = httpx.post(f"{url}/v1/detect", files={"file": clip}, timeout=120).raise_for_status().json()
    assert answer["model"]["trained"] is False
    assert [f["frames_used"] for f in answer["faces"]] == [10]
    assert {r.split(":")[0] for r in answer["reasons"]} >= {"untrained_model", "uncalibrated"}
