"""ONNX Runtime as every session here wants it: bounded threads that sleep while they wait."""

import os
from pathlib import Path

import onnxruntime as ort

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_CGROUP = Path("/sys/fs/cgroup")
_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Files with the microseconds of CPU time and those of a period, of control groups of version 2 and of 1."""


def usable_cores() -> int:
    """Cores that this process may use: its affinity, bounded by the control group's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else min(cores, max(1, int(quota)))


def session_options(threads: int) -> ort.SessionOptions:
    """Options for a session that shares its machine; threads: 0 for all usable cores.

    Each session has a pool of its own: ONNX Runtime's global pool can not be kept from spinning out of
    Python, which costs more than threads that sleep. Memory patterns are off: they keep a plan for every
    shape and grow the arena with it, and made no run faster.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def cuda_options(memory_bytes: int | None = None, *, tf32: bool = False) -> dict[str, str]:
    """Options of the CUDA provider; memory_bytes: what the arena of one session may take, None for all.

    Convolution algorithms are chosen by heuristics, since the default search times all of them anew for
    each shape. The arena grows by what is asked for and not to the next power of two. TF32, which keeps 10
    bits of a fraction, is off, so that probabilities are those of the CPU. A session has one stream.
    """
    options = {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": str(int(tf32)),
    }
    return options if memory_bytes is None else options | {"gpu_mem_limit": str(memory_bytes)}


def _quota() -> float | None:
    """Cores that the control group may use on average; None without a bound."""
    for names in _QUOTAS:
        try:
            texts = [(_CGROUP / name).read_text(encoding="ascii") for name in names]
            quota, period = (int(number) for number in " ".join(texts).split())
        except (OSError, ValueError):
            continue
        return quota / period if quota > 0 else None
    return None
