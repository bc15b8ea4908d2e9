"""Keys that sign receipts: what a file may hold, who may read it, and what is told of it."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from service.settings import SettingsError, load_settings
from service.signing import SigningKeysError, make_key, public_part, read_keys, read_signing_keys

# RFC 8037, appendices A.1 and A.3
JWK = {
    "kty": "OKP",
    "crv": "Ed25519",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def write(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(path):
    with pytest.raises(SigningKeysError) as caught:
        read_signing_keys(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_key_that_was_made_can_be_read(tmp_path):
    text, kid = make_key()
    (key,) = read_signing_keys(write(tmp_path / "key", text))
    assert key.is_private
    assert public_part(key).kid == kid


def test_a_jwk_is_known_by_its_thumbprint_alone(tmp_path):
    """Whatever else it says of itself, its public part included, which would be another one's."""
    told = JWK | {"kid": "mine", "use": "enc", "alg": "HS256"}
    (key,) = read_signing_keys(write(tmp_path / "key", json.dumps(told)))
    published = public_part(key).model_dump()
    assert published == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": JWK["x"],
        "kid": THUMBPRINT,
        "use": "sig",
        "alg": "EdDSA",
    }
    other = read_keys(make_key()[0])[0].as_dict()["x"]
    (key,) = read_keys(json.dumps(JWK | {"x": other}))
    assert public_part(key).kid == THUMBPRINT


@pytest.mark.parametrize("form", ["pem", "jwks"])
def test_a_file_holds_several_keys_of_which_retired_ones_may_be_public(tmp_path, form):
    new, old = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    text = f"# new\n{pem(new)}\n{public_pem(old)}"
    ids = [public_part(key).kid for key in read_keys(pem(new)) + read_keys(public_pem(old))]
    if form == "jwks":
        private, public = (read_keys(pem(key))[0] for key in (new, old))
        text = json.dumps({"keys": [private.as_dict(private=True), public.as_dict(private=False)]})
    keys = read_signing_keys(write(tmp_path / "keys", text))
    assert [public_part(key).kid for key in keys] == ids
    assert [key.is_private for key in keys] == [True, False]
    swapped = write(tmp_path / "swapped", public_pem(old) + pem(new))
    assert refused(swapped) == "begins with a key that has no private part, so that it can not sign"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_file_that_everybody_may_read_or_write_is_refused(tmp_path, mode):
    assert f"open to everybody (mode {mode:o})" in refused(write(tmp_path / "key", make_key()[0], mode))


def test_a_group_may_read_it_as_in_a_pod(tmp_path):
    assert read_signing_keys(write(tmp_path / "key", make_key()[0], 0o440))


SMALL = rsa.generate_private_key(65537, 2048)
CASES = {
    "nothing": ("", "holds no Ed25519 key"),
    "text": ("a secret of somebody", "holds no Ed25519 key"),
    "a list": (json.dumps([JWK]), "holds no Ed25519 key"),
    "keys that are none": (json.dumps({"keys": ["secret", 1]}), "holds no Ed25519 key"),
    "RSA": (pem(SMALL), "not Ed25519"),
    "X25519": (pem(x25519.X25519PrivateKey.generate()), "X25519"),
    "an octet key": (json.dumps({"kty": "oct", "k": "c2VjcmV0"}), "holds no Ed25519 key"),
    "a passphrase": (pem(ed25519.Ed25519PrivateKey.generate(), BestAvailableEncryption(b"x")), "encrypted"),
    "a damaged key": (json.dumps(JWK | {"d": "secret"}), "damaged"),
    "a key without its values": (json.dumps({"kty": "OKP", "crv": "Ed25519"}), "damaged"),
    "damaged PEM": ("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n", "damaged"),
    "deep JSON": ("[" * 100_000, "holds no Ed25519 key"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_key_for_receipts_is_refused_and_not_quoted(tmp_path, case):
    text, words = CASES[case]
    told = refused(write(tmp_path / "key", text))
    assert words in told
    assert "secret" not in told


def test_what_can_not_be_read_is_refused(tmp_path):
    assert refused(tmp_path / "missing").startswith("can not be read: ")
    path = write(tmp_path / "key", "")
    path.write_bytes(b"\xff\xfe")
    assert refused(path) == "is not text in UTF-8"


def test_the_setting_is_checked_at_the_start(tmp_path, monkeypatch):
    path = write(tmp_path / "key", make_key()[0], 0o644)
    monkeypatch.setenv("DETECTOR_SIGNING_KEY_FILE", str(path))
    with pytest.raises(SettingsError, match=r"^DETECTOR_SIGNING_KEY_FILE=\S+: is open to everybody"):
        load_settings()
    path.chmod(0o600)
    assert load_settings().signing_key_file == path
