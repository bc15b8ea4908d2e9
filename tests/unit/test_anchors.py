"""Certificates that are trusted for manifests: what a file of them has to be, and what is made of it."""

import pytest

from service import anchors
from service.anchors import anchors_digest, read_anchors, trust_of
from service.models import open_bundles
from service.settings import Settings, SettingsError, load_settings
from service.signing import make_key
from service.state import Service

pytest.importorskip("c2pa")
from tests.bundles import tiny_bundle
from tests.credentials import Authority
from tests.media import face_clip
from tests.running import Running


@pytest.fixture(scope="module")
def pem():
    return Authority().pem


def test_a_file_is_read_as_it_is(tmp_path, pem):
    path = tmp_path / "anchors.pem"
    path.write_text(f"# of our own cameras\n{pem}{pem}", encoding="ascii")
    assert read_anchors(path).count("BEGIN CERTIFICATE") == 2
    trust = trust_of(Settings(c2pa_anchors_file=path, c2pa_tsa_anchors_file=path))
    assert trust.check
    assert trust.signers == trust.timestamps == path.read_text(encoding="ascii")
    assert anchors_digest(trust).startswith("sha256:")
    assert anchors_digest(trust) != anchors_digest(trust_of(Settings(c2pa_anchors_file=path)))
    assert anchors_digest(trust_of(Settings())) is None
    assert not trust_of(Settings(c2pa_check=False)).check


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "can not be read"),
        (b"", "no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate in PEM"),
        ("ä".encode(), "can not be read"),
        (b"#" * (anchors.LARGEST_BYTES + 1), "bytes at most"),
    ],
)
@pytest.mark.parametrize("name", ["C2PA_ANCHORS_FILE", "C2PA_TSA_ANCHORS_FILE"])
def test_what_is_no_file_of_certificates_is_refused_at_the_start(tmp_path, monkeypatch, name, content, says):
    path = tmp_path / "anchors.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(f"DETECTOR_{name}", str(path))
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert f"DETECTOR_{name}={path}: " in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_service_holds_signers_against_them(tmp_path):
    authority = Authority()
    (tmp_path / "anchors.pem").write_text(authority.pem, encoding="ascii")
    clip = authority.signed(face_clip(tmp_path / "face.mp4", seconds=0.4), tmp_path / "signed.mp4")
    tiny_bundle(tmp_path / "models" / "tiny")
    (tmp_path / "scratch").mkdir()
    running = Running(tmp_path / "models", tmp_path / "scratch", c2pa_anchors_file=tmp_path / "anchors.pem")
    running.runner.run(running.start())
    try:
        given = {"content": clip.read_bytes(), "headers": {"content-type": "video/mp4"}}
        found = running.ask("POST", "/v1/detect", **given).json()["media"]["provenance"]
    finally:
        running.runner.run(running.stop())
        running.runner.close()
    assert (found["c2pa"], found["valid"], found["trusted"]) == ("present", True, True)


def test_a_service_reads_them_once(tmp_path, pem, monkeypatch):
    path = tmp_path / "anchors.pem"
    path.write_text(pem, encoding="ascii")
    keys = tmp_path / "signing"
    keys.write_text(make_key()[0], encoding="ascii")
    keys.chmod(0o600)
    tiny_bundle(tmp_path / "models" / "tiny")
    settings = Settings(
        models_dir=tmp_path / "models",
        allow_untrained=True,
        c2pa_anchors_file=path,
        signing_key_file=keys,
    )
    read = []
    monkeypatch.setattr(anchors, "read_anchors", lambda path: read.append(path) or pem)
    service = Service(settings, open_bundles(settings), tmp_path)
    assert service.signer is not None
    assert read == [path], "decoders and receipts hold by the same ones"


def test_anchors_without_the_library_are_refused(tmp_path, pem, monkeypatch):
    path = tmp_path / "anchors.pem"
    path.write_text(pem, encoding="ascii")
    monkeypatch.setattr(anchors, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="c2pa-python, which is not installed"):
        read_anchors(path)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("c2pa_tsa_anchors_file",), "C2PA_TSA_ANCHORS_FILE is of no use without DETECTOR_C2PA_ANCHORS_FILE"),
        (("c2pa_anchors_file", "off"), "C2PA_ANCHORS_FILE is of no use with DETECTOR_C2PA_CHECK=false"),
    ],
)
def test_anchors_of_no_use_are_refused(tmp_path, pem, given, says):
    path = tmp_path / "anchors.pem"
    path.write_text(pem, encoding="ascii")
    with pytest.raises(SettingsError, match=says):
        load_settings(**{given[0]: path, "c2pa_check": "off" not in given})
