"""The directory of clips: empty afterwards, and before."""

import os
import subprocess
import sys

from service.scratch import clip_prefix, scratch


def test_own_directory_is_private_and_gone_in_the_end():
    with scratch(None) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / f"{clip_prefix()}x").write_bytes(b"left behind")
    assert not folder.exists()


def test_of_a_given_directory_only_our_own_clips_are_deleted(tmp_path):
    with scratch(tmp_path) as folder:
        assert folder == tmp_path
        (folder / f"{clip_prefix()}x").write_bytes(b"left behind")
        (folder / "other").write_bytes(b"not ours")
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_clips_of_those_who_are_gone_are_swept_away_at_the_start(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = {
        "gone": f"clip-{gone.pid}-a",
        "before us": f"{clip_prefix()}b",
        "other": f"clip-{os.getppid()}-c",
    }
    for name in [*names.values(), "clip-notes.txt"]:
        (tmp_path / name).write_bytes(b"")
    with scratch(tmp_path):
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([names["other"], "clip-notes.txt"])
