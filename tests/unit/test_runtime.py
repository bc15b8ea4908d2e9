"""Threads fit what the process may use."""

import os

import pytest

from pipeline import runtime


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("", 8)],
)
def test_usable_cores_follow_affinity_and_quota(tmp_path, monkeypatch, text, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(runtime, "_CPU_MAX", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(text)
    assert runtime.usable_cores() == cores


def test_without_control_groups_affinity_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setattr(runtime, "_CPU_MAX", tmp_path / "absent")
    assert runtime.usable_cores() == 2
    assert runtime.session_options(0).intra_op_num_threads == 2
    assert runtime.session_options(1).intra_op_num_threads == 1
