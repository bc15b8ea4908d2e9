"""Receipts: what they hold, and that no other answer, key, clip or algorithm passes for what was signed."""

import base64
import hashlib
import hmac
import json
import sys
import time

import pytest
import rfc8785
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey

from cli.main import main
from pipeline.bundle import open_bundle
from pipeline.detect.registry import open_detector
from pipeline.media import Limits
from pipeline.prepare import prepare
from service.crops import write_crops
from service.keys import line_for
from service.receipts import TYPE, ReceiptError, check_answer, digest, read_answer, verified
from service.signing import make_key, public_part, read_keys
from service.upload import CROPS_TYPE
from service.version import VERSION
from tests.bundles import tiny_bundle
from tests.media import face_clip
from tests.running import Running
from tests.unit.test_app import events

KEY = "the-api-key-of-this-test"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return face_clip(tmp_path_factory.mktemp("media") / "face.mp4")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """File of a key that signs and of a retired one."""
    path = tmp_path_factory.mktemp("keys") / "signing"
    path.write_text(make_key()[0] + make_key()[0])
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def running(models, keys, tmp_path_factory):
    (keys.parent / "api").write_text(line_for("web", KEY) + "\n")
    one = Running(
        models,
        tmp_path_factory.mktemp("scratch"),
        signing_key_file=keys,
        api_keys_file=keys.parent / "api",
        max_faces=4,
    )
    one.runner.run(one.start())
    yield one
    one.runner.run(one.stop())
    one.runner.close()


def ask(running, content, url="/v1/detect", kind="video/mp4", **headers):
    given = {"x-api-key": KEY, "content-type": kind, **headers}
    response = running.ask("POST", url, content=content, headers=given)
    assert response.status_code == 200, response.text
    return response


@pytest.fixture(scope="module")
def answer(running, clip):
    return ask(running, clip.read_bytes(), "/v1/detect?max_faces=2&timeline=false").json()


@pytest.fixture(scope="module")
def trusted(running):
    return read_keys(running.ask("GET", "/v1/keys").text)


def test_a_receipt_holds_what_was_judged_and_what_came_of_it(answer, trusted, clip):
    receipt, kid = verified(answer["receipt"], trusted)
    assert kid == public_part(trusted[0]).kid
    header = json.loads(base64.urlsafe_b64decode(answer["receipt"].split(".")[0] + "=="))
    assert header == {"alg": "EdDSA", "typ": TYPE, "kid": kid}
    told = receipt.model_dump()
    assert 0 <= time.time() - told.pop("iat") < 3600
    assert told == {
        "version": VERSION,
        "media": {
            "kind": "clip",
            "sha256": hashlib.sha256(clip.read_bytes()).hexdigest(),
            "bytes": clip.stat().st_size,
        },
        "model": answer["model"],
        "settings": {
            "face_detector": "yunet",
            "face_model": None,
            "provider": "CPUExecutionProvider",
            "max_faces": 2,
            "max_pixels": 36_000_000,
            "max_duration_s": 600.0,
            "decoder_threads": 1,
            "explain": False,
            "timeline": False,
            "partial": False,
            "c2pa_check": True,
            "c2pa_anchors": None,
        },
        "verdict": answer["verdict"],
        "probabilities": answer["probabilities"],
        "faces": [{"track": f["track"], "probabilities": f["probabilities"]} for f in answer["faces"]],
        "answer": digest(answer),
    }
    check_answer(receipt, answer)


def test_an_answer_stays_the_one_that_was_signed_however_it_is_written(answer, trusted):
    """RFC 8785: order, blanks and the form of numbers do not matter. Two fields are no part of it."""
    receipt, _ = verified(answer["receipt"], trusted)
    turned = dict(reversed(answer.items())) | {"timing_ms": None, "receipt": None}
    check_answer(receipt, json.loads(json.dumps(turned, indent=3)))

    def shortest(text):
        """1.0 as 1, as JavaScript writes it."""
        return int(float(text)) if float(text).is_integer() else float(text)

    check_answer(receipt, json.loads(json.dumps(turned), parse_float=shortest))


def test_the_canonical_form_is_that_of_the_standard():
    """The example of RFC 8785, section 3.2.2."""
    given = {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27], "literals": [None, True, False]}
    text = b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27]}'
    assert rfc8785.dumps(given) == text
    assert digest(given | {"receipt": "x"}) == "sha256:" + hashlib.sha256(text).hexdigest()


CHANGES = {
    "a score": lambda a: a["faces"][0]["probabilities"].update(
        fake=a["faces"][0]["probabilities"]["fake"] + 1e-6
    ),
    "the verdict": lambda a: a.update(verdict="authentic" if a["verdict"] != "authentic" else "manipulated"),
    "a reason": lambda a: a["reasons"].append("another: one"),
    "the clip": lambda a: a["media"].update(sha256="0" * 64),
    "the bundle": lambda a: a["model"].update(id="other"),
    "a field more": lambda a: a.update(note="approved"),
    "a field less": lambda a: a.pop("summary"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_answer_that_was_changed_is_told_from_the_one_that_was_signed(answer, trusted, change):
    receipt, _ = verified(answer["receipt"], trusted)
    changed = json.loads(json.dumps(answer))
    CHANGES[change](changed)
    with pytest.raises(ReceiptError, match="something in it was changed"):
        check_answer(receipt, changed)


def encoded(part):
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def parts(compact):
    header, payload, signature = compact.split(".")
    return json.loads(base64.urlsafe_b64decode(header + "==")), payload, signature


def forged(answer, trusted):
    """Receipts that say something else, each in another way."""
    header, payload, signature = parts(answer["receipt"])
    told = json.loads(base64.urlsafe_b64decode(payload + "=="))
    other = encoded(told | {"verdict": "authentic"})
    yield "another payload", f"{encoded(header)}.{other}.{signature}"
    yield "no algorithm", f"{encoded(header | {'alg': 'none'})}.{other}."
    yield "no algorithm, with its signature", f"{encoded(header | {'alg': 'none'})}.{payload}.{signature}"
    for secret in (trusted[0].as_pem(private=False), json.dumps(trusted[0].as_dict(private=False)).encode()):
        signed = f"{encoded(header | {'alg': 'HS256'})}.{other}"
        mac = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
        yield "the public key as a secret", f"{signed}.{mac}"
    own = OKPKey.generate_key("Ed25519")
    registry = jws.JWSRegistry(algorithms=["EdDSA", "HS256"], strict_check_header=False)
    yield "another key", jws.serialize_compact(header, json.dumps(told), own, registry=registry)
    with_key = header | {"jwk": own.as_dict(private=False)}
    yield "a key of its own", jws.serialize_compact(with_key, json.dumps(told), own, registry=registry)
    unknown = header | {"kid": own.thumbprint()}
    yield "a key that nobody trusts", jws.serialize_compact(unknown, json.dumps(told), own, registry=registry)
    secret = OctKey.import_key(b"0123456789abcdef0123456789abcdef")
    named = header | {"alg": "HS256"}
    yield "a secret", jws.serialize_compact(named, json.dumps(told), secret, registry=registry)
    yield "no kid", f"{encoded({k: v for k, v in header.items() if k != 'kid'})}.{payload}.{signature}"
    yield "a kid that is none", f"{encoded(header | {'kid': {}})}.{payload}.{signature}"
    yield "extensions", f"{encoded(header | {'crit': ['b64'], 'b64': False})}.{payload}.{signature}"
    yield "two parts", f"{encoded(header)}.{payload}"
    yield "nothing", ""
    yield "no header", f"{encoded([])}.{payload}.{signature}"
    yield "letters of elsewhere", "é.é.é"


def passes(compact, trusted):
    try:
        verified(compact, trusted)
    except ReceiptError:
        return False
    return True


def test_nothing_but_a_signature_of_a_trusted_key_passes(answer, trusted):
    assert [way for way, compact in forged(answer, trusted) if passes(compact, trusted)] == []
    assert passes(answer["receipt"], trusted)


def test_what_the_key_has_signed_elsewhere_is_no_receipt(answer, trusted, keys):
    signing = read_keys(keys.read_text())[0]
    registry = jws.JWSRegistry(algorithms=["EdDSA"])
    header, payload, _ = parts(answer["receipt"])
    told = base64.urlsafe_b64decode(payload + "==")
    as_token = jws.serialize_compact(header | {"typ": "JWT"}, told, signing, registry=registry)
    with pytest.raises(ReceiptError, match="no receipt"):
        verified(as_token, trusted)
    other = jws.serialize_compact(header, '{"sub": "somebody"}', signing, registry=registry)
    with pytest.raises(ReceiptError, match="no receipt"):
        verified(other, trusted)


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(ReceiptError, match="twice"):
        read_answer('{"verdict": "authentic", "faces": [{"a": 1, "a": 2}]}')
    for text in ("[]", "{", "1"):
        with pytest.raises(ReceiptError):
            read_answer(text)


def test_keys_are_published_to_everybody_without_what_is_private(running, keys):
    response = running.ask("GET", "/v1/keys")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "public, max-age=300"
    published = response.json()["keys"]
    own = read_keys(keys.read_text())
    assert published == [public_part(key).model_dump() for key in own]
    assert all("d" not in key for key in published)
    assert [key.is_private for key in read_keys(response.text)] == [False, False]
    assert running.ask("GET", "/v1/keys?a=1").status_code == 400
    assert running.ask("GET", "/v1/keys/").status_code == 401


def test_without_a_key_there_is_no_receipt_and_an_empty_set(models, clip, tmp_path):
    one = Running(models, tmp_path)
    one.runner.run(one.start())
    try:
        answer = one.ask("POST", "/v1/detect", files={"file": clip.read_bytes()}).json()
        assert answer["receipt"] is None
        assert one.ask("GET", "/v1/keys").json() == {"keys": []}
    finally:
        one.runner.run(one.stop())
        one.runner.close()


def test_the_last_event_is_signed_as_the_answer_is(running, clip, trusted):
    response = ask(running, clip.read_bytes(), accept="text/event-stream")
    name, answer = events(response)[-1]
    assert name == "answer"
    receipt, _ = verified(answer["receipt"], trusted)
    check_answer(receipt, answer)


def test_a_receipt_for_crops_says_so_and_names_what_was_received(running, clip, models, trusted, tmp_path):
    bundle = open_bundle(models / "tiny")
    prepared = prepare(
        clip,
        crop=bundle.manifest.crop,
        sampling=bundle.manifest.sampling,
        detector=open_detector("yunet", None, accept_license=False, threads=1),
        limits=Limits(),
        max_faces=4,
    )
    with (tmp_path / "faces.crops").open("wb") as file:
        write_crops(file, prepared, bundle)
    content = (tmp_path / "faces.crops").read_bytes()
    answer = ask(running, content, "/v1/detect/crops", CROPS_TYPE).json()
    receipt, _ = verified(answer["receipt"], trusted)
    check_answer(receipt, answer)
    assert (receipt.media.kind, receipt.media.bytes) == ("crops", len(content))
    assert receipt.media.sha256 == hashlib.sha256(content).hexdigest() != answer["media"]["sha256"]


@pytest.fixture
def files(answer, running, tmp_path):
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    (tmp_path / "receipt").write_text(answer["receipt"] + "\n")
    (tmp_path / "keys.json").write_text(running.ask("GET", "/v1/keys").text)
    (tmp_path / "other.pem").write_text(make_key()[0])
    changed = answer | {"verdict": "authentic" if answer["verdict"] != "authentic" else "manipulated"}
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    (tmp_path / "unsigned.json").write_text(json.dumps(answer | {"receipt": None}))
    return tmp_path


def run(*args, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["deepfake-detect", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def test_the_command_says_what_was_verified(files, clip, answer, capsys):
    keys = ("--keys", files / "keys.json")
    code, out, err = run("verify-receipt", files / "answer.json", *keys, "--clip", clip, capsys=capsys)
    assert (code, err) == (0, "")
    first, signed, told, about = out.splitlines()
    assert first == "verified"
    assert f"by deepfake-detect {VERSION}" in signed
    assert told.startswith(f"{answer['verdict']}, probability of fake ")
    assert about == f"about {clip}"
    for given in (files / "receipt", answer["receipt"]):
        code, out, _ = run("verify-receipt", given, *keys, capsys=capsys)
        assert code == 0
        assert "no answer was compared" in out
        assert f"SHA-256 {answer['media']['sha256']}" in out


@pytest.mark.parametrize(
    ("given", "by", "other", "words"),
    [
        ("changed.json", "keys.json", None, "something in it was changed"),
        ("unsigned.json", "keys.json", None, "no receipt"),
        ("answer.json", "other.pem", None, "none of those given"),
        ("answer.json", "keys.json", "keys.json", "not the file that was judged"),
        ("keys.json", "keys.json", None, "no receipt"),
    ],
)
def test_the_command_says_what_does_not_fit(files, capsys, given, by, other, words):
    more = () if other is None else ("--clip", files / other)
    code, out, err = run("verify-receipt", files / given, "--keys", files / by, *more, capsys=capsys)
    assert (code, out) == (1, "")
    assert err.startswith("not verified: ")
    assert words in err


@pytest.mark.parametrize(
    ("given", "by"),
    [("missing.json", "keys.json"), ("answer.json", "missing"), ("answer.json", "receipt")],
)
def test_what_can_not_be_checked_is_neither_right_nor_wrong(files, capsys, given, by):
    code, out, err = run("verify-receipt", files / given, "--keys", files / by, capsys=capsys)
    assert (code, out, len(err.splitlines())) == (3, "", 1)


def test_a_key_is_made_for_its_owner_alone_and_never_over_another(tmp_path, capsys):
    path = tmp_path / "signing.pem"
    code, out, err = run("signing-key", path, capsys=capsys)
    assert (code, out) == (0, "")
    assert path.stat().st_mode & 0o777 == 0o600
    (key,) = read_keys(path.read_text())
    assert key.is_private
    assert public_part(key).kid in err
    before = path.read_text()
    assert run("signing-key", path, capsys=capsys)[0] == 3
    assert path.read_text() == before


def test_a_number_of_thousands_of_digits_is_no_answer():
    with pytest.raises(ReceiptError, match="not JSON"):
        read_answer('{"n": ' + "9" * 5000 + "}")
