"""The golden clip, and what bundles know of it."""

import numpy as np
import pytest

from pipeline.bundle import bundles, default_models, open_bundle, sha256
from pipeline.detect import Faces
from pipeline.detect.registry import open_detector
from pipeline.golden import GOLDEN, TOLERANCE, expected, recorded
from pipeline.scores import calibrated
from tests.bundles import tiny_bundle


@pytest.fixture(scope="module")
def detector():
    return open_detector("yunet", threads=1)


def test_the_bytes_are_those_that_bundles_were_measured_with():
    assert sha256(GOLDEN) == "sha256:bf7994e5f740ac355f8a1bc68dc21873302c7ed30ee2ce48f9320ab9d29ff96e"


@pytest.mark.parametrize("name", bundles(default_models()))
def test_embedded_bundles_still_answer_what_they_know(name, detector):
    bundle = open_bundle(default_models() / name)
    known = expected(bundle.manifest)
    assert known is not None
    fake = recorded(bundle, detector)["golden"]["fake"]
    assert calibrated(fake, bundle.manifest.calibration) == pytest.approx(known, abs=TOLERANCE / 4)


def test_what_is_known_is_calibrated_when_it_is_compared(tmp_path):
    manifest = open_bundle(tiny_bundle(tmp_path / "tiny", golden=0.25)).manifest
    assert expected(manifest) == 0.25
    doubled = manifest.calibration.model_copy(update={"scale": 2.0})
    assert expected(manifest.model_copy(update={"calibration": doubled})) == pytest.approx(0.1)


def test_what_is_known_of_another_clip_is_not_compared(tmp_path):
    manifest = open_bundle(tiny_bundle(tmp_path / "tiny", golden=0.25)).manifest
    summary = {"golden": {"clip": "sha256:" + "0" * 64, "fake": 0.25}}
    assert expected(manifest.model_copy(update={"summary": summary})) is None
    assert expected(manifest.model_copy(update={"summary": {}})) is None


def test_a_bundle_that_finds_no_usable_face_has_nothing_to_know(tmp_path, detector, monkeypatch):
    bundle = open_bundle(tiny_bundle(tmp_path / "tiny"))
    assert 0 < recorded(bundle, detector)["golden"]["fake"] < 1
    nothing = Faces(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0,), (0, 5, 2))))
    monkeypatch.setattr(detector, "detect", lambda pictures: [nothing] * len(pictures))
    assert recorded(bundle, detector) == {}
