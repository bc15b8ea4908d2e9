"""A server with a key: its receipts are checked over HTTP by the command that anybody can run."""

import json
import subprocess
import sys

import httpx

from tests.bundles import tiny_bundle
from tests.media import face_clip
from tests.server import ROOT, refused, served

SELF = [sys.executable, "-c", "from cli.main import main; main()"]


def run(*args):
    words = [*SELF, *map(str, args)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_a_receipt_goes_from_the_server_to_whoever_checks_it(tmp_path):
    tiny_bundle(tmp_path / "models" / "tiny")
    clip = face_clip(tmp_path / "face.mp4")
    key = tmp_path / "signing.pem"
    assert run("signing-key", key).returncode == 0
    given = {"models_dir": tmp_path / "models", "provider": "cpu", "signing_key_file": key}
    with served(**given) as url:
        answer = httpx.post(f"{url}/v1/detect", files={"file": clip.read_bytes()}, timeout=60)
        (tmp_path / "answer.json").write_bytes(answer.content)
        checked = ("--keys", f"{url}/v1/keys", "--clip", clip)
        right = run("verify-receipt", tmp_path / "answer.json", *checked)
        assert (right.returncode, right.stdout.splitlines()[0]) == (0, "verified"), right.stderr
        changed = answer.json()
        changed["faces"][0]["probabilities"]["fake"] = 0.0
        (tmp_path / "answer.json").write_text(json.dumps(changed))
        wrong = run("verify-receipt", tmp_path / "answer.json", *checked)
        assert (wrong.returncode, wrong.stdout) == (1, "")
    assert run("verify-receipt", tmp_path / "answer.json", "--keys", f"{url}/v1/keys").returncode == 3


def test_a_key_that_everybody_may_read_is_refused_in_one_line(tmp_path):
    key = tmp_path / "signing.pem"
    assert run("signing-key", key).returncode == 0
    key.chmod(0o644)
    code, told = refused(tmp_path, signing_key_file=key)
    assert (code, len(told.splitlines())) == (2, 1)
    assert "DETECTOR_SIGNING_KEY_FILE" in told
    assert "PRIVATE KEY" not in told
