"""C2PA manifests, made and damaged here: what is valid, who is trusted, and that nobody else is asked."""

import json
import struct
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pydantic import ValidationError

from pipeline import credentials
from pipeline.c2pa import ISO_MANIFEST, c2pa_of, parts_of
from pipeline.credentials import LONGEST_TEXT, Credentials, Trust, credentials_of, plain

pytest.importorskip("c2pa")
from tests.credentials import Authority, changed, plain_file, within_the_media

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = {".jpg": "jpeg", ".png": "png", ".webp": "webp", ".mp4": "mp4"}


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def stranger():
    return Authority("Camera 7", root="Somebody else")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return {suffix: plain_file(folder / f"plain{suffix}") for suffix in CONTAINERS}


@pytest.fixture(params=CONTAINERS)
def signed(request, tmp_path, authority, sources):
    """A signed file of each kind."""
    return authority.signed(sources[request.param], tmp_path / f"signed{request.param}")


def look(path, **trust):
    return credentials_of(path, CONTAINERS[path.suffix], Trust(**trust))


def test_a_signed_file_is_valid_and_nobody_is_trusted_by_default(signed):
    assert c2pa_of(signed, CONTAINERS[signed.suffix]) == "present"
    assert look(signed) == Credentials(
        valid=True,
        trusted=None,
        signer="Camera 7, Example News",
        generator="test 1",
        sources=("digitalCapture",),
    )


def test_a_signer_is_trusted_by_the_anchor_of_his_certificate_alone(signed, authority, stranger):
    found = look(signed, signers=stranger.pem + authority.pem)
    assert (found.valid, found.trusted, found.codes) == (True, True, ())
    found = look(signed, signers=stranger.pem)
    assert (found.valid, found.trusted, found.codes) == (True, False, ("signingCredential.untrusted",))
    found = look(signed, signers=stranger.pem, timestamps=authority.pem)
    assert found.trusted is False, "who may stamp times may not sign"


def test_media_that_were_changed_are_not_what_was_signed(signed, authority):
    changed(signed, within_the_media(signed))
    mismatch = "assertion.bmffHash.mismatch" if signed.suffix == ".mp4" else "assertion.dataHash.mismatch"
    for trust in ({}, {"signers": authority.pem}):
        found = look(signed, **trust)
        assert (found.valid, found.trusted, found.codes) == (False, None, (mismatch,))


@pytest.mark.parametrize(
    ("word", "code"),
    [(b"digitalCapture", "assertion.hashedURI.mismatch"), (b"Camera 7", "claimSignature.mismatch")],
)
def test_a_manifest_that_was_changed_is_not_valid(signed, authority, word, code):
    changed(signed, signed.read_bytes().index(word))
    found = look(signed, signers=authority.pem)
    assert (found.valid, found.trusted, found.codes) == (False, None, (code,))


def test_what_is_no_manifest_is_unreadable(signed, tmp_path):
    content = bytearray(signed.read_bytes())
    at = content.index(b"jumd") + 60
    content[at : at + 400] = bytes(range(256)) + bytes(144)
    signed.write_bytes(content)
    assert look(signed) == Credentials(valid=False, codes=("unreadable",))
    hollow = tmp_path / "hollow.mp4"
    hollow.write_bytes((40).to_bytes(4) + b"uuid" + ISO_MANIFEST + bytes(16))
    assert look(hollow) == Credentials(unchecked="failed"), "it is read beyond the end of the file"


def test_a_file_that_is_not_made_out_says_nothing_of_its_manifest(tmp_path, authority, sources):
    path = authority.signed(sources[".mp4"], tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes() + bytes(range(100)))
    assert look(path) == Credentials(unchecked="failed")


@pytest.mark.parametrize("error", ["Io", "NotSupported", "Other", "FileNotFound", None])
def test_errors_that_are_not_about_the_manifest_say_nothing_of_it(signed, monkeypatch, error):
    def fail(library, *_):
        raise getattr(library.C2paError, error) if error else library.C2paError

    monkeypatch.setattr(credentials, "_read", fail)
    assert look(signed) == Credentials(unchecked="failed")


def test_what_was_found_valid_stays_so_where_trust_can_not_be_told(signed, authority, monkeypatch):
    read = credentials._read

    def fail(library, path, kind, verify, anchors):
        if anchors:
            raise library.C2paError.Io
        return read(library, path, kind, verify, anchors)

    monkeypatch.setattr(credentials, "_read", fail)
    found = look(signed, signers=authority.pem)
    assert (found.valid, found.trusted, found.codes) == (True, None, ())


@pytest.mark.parametrize("kind", [b"free", b"skip"])
def test_padding_behind_the_media_is_not_covered(tmp_path, authority, sources, kind):
    path = authority.signed(sources[".mp4"], tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes() + struct.pack(">I4s", 16, kind) + bytes(8))
    assert look(path).valid


class Listening(ThreadingHTTPServer):
    """A server that has nothing, and notes whether anybody came."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), BaseHTTPRequestHandler)
        self.asked = False
        self.url = f"http://127.0.0.1:{self.server_port}/manifest.c2pa"

    def __enter__(self):
        self._thread = Thread(target=self.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()

    def process_request_thread(self, request, client_address):
        self.asked = True
        self.shutdown_request(request)


def test_a_manifest_elsewhere_is_not_fetched(tmp_path, authority, sources, monkeypatch):
    with Listening() as port:
        path = authority.signed(sources[".jpg"], tmp_path / "remote.jpg", remote=port.url)
        assert port.url.encode() in path.read_bytes()
        assert c2pa_of(path, "jpeg") == "absent"
        assert look(path) == Credentials(unchecked="failed")
        assert not port.asked
        monkeypatch.setattr(credentials, "_OFFLINE", {"core": {}, "verify": {}})
        look(path)
        assert port.asked, "without its settings the library does fetch it"


@pytest.mark.parametrize("part", ["core", "verify"])
def test_each_setting_alone_keeps_the_library_from_the_network(
    tmp_path, authority, sources, monkeypatch, part
):
    offline = {"core": {}, "verify": {}} | {part: credentials._OFFLINE[part]}
    monkeypatch.setattr(credentials, "_OFFLINE", offline)
    with Listening() as port:
        look(authority.signed(sources[".jpg"], tmp_path / "remote.jpg", remote=port.url))
        assert not port.asked


@pytest.mark.parametrize("part", [None, "core", "verify"])
def test_nobody_is_asked_for_the_state_of_a_certificate(tmp_path, sources, monkeypatch, part):
    """Neither with all settings nor with one part of them and the other against it."""
    asking = {"core": {}, "verify": {"ocsp_fetch": True}}
    with Listening() as port:
        authority = Authority(ocsp=port.url)
        path = authority.signed(sources[".jpg"], tmp_path / "a.jpg")
        if part is not None:
            monkeypatch.setattr(credentials, "_OFFLINE", asking | {part: credentials._OFFLINE[part]})
        found = look(path, signers=authority.pem)
        assert (found.valid, found.trusted) == (True, True)
        assert not port.asked
        monkeypatch.setattr(credentials, "_OFFLINE", asking)
        look(path, signers=authority.pem)
        assert port.asked, "where it is told to, the library does ask"


def test_names_are_made_plain_and_short(tmp_path, sources):
    nasty = Authority("Cam\u202eera\n\x1b[31m" + "x" * 40, "O\u200b" * 16)
    generator = [{"name": "G\u0007" * 400, "version": "1"}]
    path = nasty.signed(sources[".jpg"], tmp_path / "a.jpg", claim_generator_info=generator)
    found = look(path)
    assert found.valid
    assert found.signer.startswith("Cam era [31mxxx")
    for text in (found.signer, found.generator):
        assert text.isprintable()
        assert len(text) <= LONGEST_TEXT


def test_plain_text_is_plain_already():
    for text in ("", "a", "\ud800 b\u2028", " " + "x " * 100, "é" * 200):
        assert plain(plain(text)) == plain(text)


def test_what_a_signer_writes_into_his_manifest_is_read_with_care(tmp_path, authority, sources):
    origin = "http://cv.iptc.org/newscodes/digitalsourcetype/"
    kinds = [*(f"{origin}kind{chr(97 + k)}" for k in range(12)), f"{origin}<b>", "javascript:alert(1)"]
    actions = [{"action": "c2pa.created", "digitalSourceType": kinds[0]}]
    actions += [{"action": "c2pa.edited", "digitalSourceType": kind} for kind in kinds]
    assertions = [
        {"label": "c2pa.actions", "data": {"actions": actions}},
        {"label": "org.example.actions", "data": [1, {"actions": [None]}]},
    ]
    path = authority.signed(sources[".jpg"], tmp_path / "a.jpg", assertions=assertions)
    found = look(path)
    assert found.valid
    assert found.sources == tuple(f"kind{chr(97 + k)}" for k in range(8))


def test_a_manifest_that_is_too_large_is_not_handed_over(signed, monkeypatch):
    size = parts_of(signed, CONTAINERS[signed.suffix]).manifest_bytes
    assert 1000 < size < signed.stat().st_size
    monkeypatch.setattr(credentials, "MOST_BYTES", size - 1)
    assert look(signed) == Credentials(unchecked="too_large")
    monkeypatch.setattr(credentials, "MOST_BYTES", size)
    assert look(signed).valid


def test_a_file_of_too_many_parts_is_not_handed_over(tmp_path, authority, sources, monkeypatch):
    path = authority.signed(sources[".mp4"], tmp_path / "a.mp4")
    content = path.read_bytes()
    path.write_bytes(content + 3000 * struct.pack(">I4s", 8, b"free"))
    assert look(path).valid
    monkeypatch.setattr(credentials, "_library", lambda: pytest.fail("it was handed over"))
    for more in (
        5000 * struct.pack(">I4s", 8, b"free"),
        struct.pack(">I4s", 8 * 5001, b"udta") + 5000 * struct.pack(">I4s", 8, b"free"),
    ):
        path.write_bytes(content + more)
        assert c2pa_of(path, "mp4") == "present"
        assert look(path) == Credentials(unchecked="too_many_parts")


def test_nothing_is_loaded_where_nobody_asks(signed, monkeypatch):
    monkeypatch.setattr(credentials, "_library", lambda: pytest.fail("it was loaded"))
    assert look(signed, check=False) == Credentials(unchecked="not_asked")


def test_without_the_library_that_is_said(signed, monkeypatch):
    monkeypatch.setattr(credentials, "find_spec", lambda _: None)
    credentials._library.cache_clear()
    assert look(signed) == Credentials(unchecked="no_library")
    monkeypatch.undo()
    assert look(signed).valid


def test_what_the_library_says_may_be_anything(signed, monkeypatch):
    monkeypatch.setattr(credentials, "_read", lambda *_: json.loads("[1]"))
    assert look(signed) == Credentials(unchecked="failed")
    report = {"validation_state": "Valid", "active_manifest": [], "validation_results": {"activeManifest": 3}}
    monkeypatch.setattr(credentials, "_read", lambda *_: report)
    assert look(signed) == Credentials(valid=True)


def test_a_library_in_the_working_directory_is_not_loaded(tmp_path, signed):
    for name in ("libc2pa_c.so", "libc2pa_c.dylib", "libs/libc2pa_c.so"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no library")
    code = (
        "import sys; from pathlib import Path; from pipeline.credentials import *\n"
        f"print(credentials_of(Path({str(signed)!r}), {CONTAINERS[signed.suffix]!r}, Trust()).valid)\n"
        "import c2pa; print(c2pa.c2pa._lib._name)"
    )
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    ran = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    valid, name = ran.stdout.splitlines()
    assert valid == "True"
    assert Path(name).parent.name == "libs"
    assert tmp_path not in Path(name).parents


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"valid": True, "unchecked": "failed"},
        {"valid": False, "trusted": True},
        {"unchecked": "asleep"},
        {"valid": True, "signer": "a\nb"},
        {"valid": True, "signer": ""},
        {"valid": True, "generator": "x" * 101},
        {"valid": True, "codes": ["a b"]},
        {"valid": True, "sources": ["x"] * 9},
        {"valid": True, "more": 1},
    ],
)
def test_what_no_manifest_can_be_is_refused(said):
    with pytest.raises(ValidationError):
        Credentials.model_validate_json(json.dumps(said))
