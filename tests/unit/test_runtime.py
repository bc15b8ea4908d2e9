"""Threads fit what the process may use, and no session is left to ONNX Runtime's defaults."""

import os

import pytest

from pipeline import runtime


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """An empty directory in the place of the control group, and eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(runtime, "_CGROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("", 8)],
)
def test_usable_cores_follow_affinity_and_quota(cgroup, text, cores):
    (cgroup / "cpu.max").write_text(text)
    assert runtime.usable_cores() == cores


@pytest.mark.parametrize(
    ("quota", "cores"), [("-1", 8), ("250000\n", 2), ("50000", 1), ("9900000", 8), ("", 8)]
)
def test_control_groups_of_the_first_version_bound_the_cores_too(cgroup, quota, cores):
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert runtime.usable_cores() == cores


def test_without_control_groups_affinity_decides(cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert runtime.usable_cores() == 2
    assert runtime.session_options(0).intra_op_num_threads == 2
    assert runtime.session_options(1).intra_op_num_threads == 1


def test_no_session_spins_or_keeps_a_plan_for_each_shape():
    options = runtime.session_options(2)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.enable_mem_pattern is False
    assert options.inter_op_num_threads == 1


def test_cuda_is_exact_and_its_memory_bounded():
    options = runtime.cuda_options()
    assert options == {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
    }
    assert runtime.cuda_options(2**30) == options | {"gpu_mem_limit": "1073741824"}
    assert runtime.cuda_options(tf32=True)["use_tf32"] == "1"
