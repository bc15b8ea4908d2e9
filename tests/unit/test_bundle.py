"""A bundle is what its manifest says, to the byte, or it is refused."""

import json
import shutil

import pytest

from pipeline.bundle import bundles, default_bundle, default_models, open_bundle, sha256
from pipeline.errors import BundleCorrupt, BundleMissing, BundleUntrained
from tests.bundles import tiny_bundle


@pytest.fixture
def path(tmp_path):
    return tiny_bundle(tmp_path / "tiny")


def edited(path, **changes):
    at = path / "manifest.json"
    at.write_text(json.dumps(json.loads(at.read_text()) | changes))
    return path


def test_a_sound_bundle_opens(path):
    bundle = open_bundle(path)
    assert bundle.manifest.classes == ("real", "fake")
    assert bundle.digest == sha256(path / "manifest.json")
    assert bundle.card


@pytest.mark.parametrize("name", ["encoder.onnx", "temporal.onnx", "MODEL_CARD.md"])
def test_one_flipped_bit_is_refused(path, name):
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(BundleCorrupt, match=name):
        open_bundle(path)


@pytest.mark.parametrize("name", ["encoder.onnx", "temporal.onnx", "MODEL_CARD.md"])
def test_a_missing_file_is_refused(path, name):
    (path / name).unlink()
    with pytest.raises(BundleCorrupt, match=name):
        open_bundle(path)


@pytest.mark.parametrize("name", ["encoder.onnx", "temporal.onnx", "MODEL_CARD.md"])
def test_an_unlisted_file_is_refused(path, name):
    files = json.loads((path / "manifest.json").read_text())["files"]
    files.pop(name)
    with pytest.raises(BundleCorrupt, match="does not list"):
        open_bundle(edited(path, files=files))


def test_a_manifest_never_reaches_outside_of_its_directory(path, tmp_path):
    (tmp_path / "outside").write_text("x")
    files = json.loads((path / "manifest.json").read_text())["files"]
    files["../outside"] = sha256(tmp_path / "outside")
    with pytest.raises(BundleCorrupt, match="not a file of the bundle"):
        open_bundle(edited(path, files=files))


@pytest.mark.parametrize(
    "changes", [{"classes": ["fake", "real"]}, {"schema_version": 2}, {"novelty": 1}, {"id": "Not An Id"}]
)
def test_a_foreign_manifest_is_refused(path, changes):
    with pytest.raises(BundleCorrupt, match="not a manifest"):
        open_bundle(edited(path, **changes))


def test_no_bundle_is_said_so(tmp_path):
    with pytest.raises(BundleMissing):
        open_bundle(tmp_path)


def test_untrained_weights_are_served_only_on_demand(path):
    edited(path, trained=False)
    with pytest.raises(BundleUntrained, match="DETECTOR_ALLOW_UNTRAINED"):
        open_bundle(path)
    assert not open_bundle(path, allow_untrained=True).manifest.trained


def test_the_default_is_never_guessed(path, tmp_path):
    assert default_bundle(tmp_path) == path
    shutil.copytree(path, tmp_path / "other")
    with pytest.raises(BundleMissing, match="other, tiny"):
        default_bundle(tmp_path)
    (tmp_path / "DEFAULT").write_text("other\n")
    assert default_bundle(tmp_path) == tmp_path / "other"
    assert default_bundle(tmp_path, "tiny") == path
    with pytest.raises(BundleMissing, match="no bundle third"):
        default_bundle(tmp_path, "third")


def test_an_empty_directory_holds_no_bundle(tmp_path):
    with pytest.raises(BundleMissing):
        bundles(tmp_path)


def test_every_embedded_bundle_is_sound_and_trained():
    for path in bundles(default_models()).values():
        bundle = open_bundle(path)
        assert bundle.manifest.trained
        assert bundle.manifest.id == path.name
