"""Jobs in processes that crash, hang and fail."""

import os
import signal
import time
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest

from training.pool import Lost, PoolError, run_jobs


def maker(tries: Path):
    return partial(work, tries)


def work(tries: Path, job: str) -> str:
    with tries.open("a") as f:
        f.write(f"{job} {os.getpid()}\n")
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "exit":
        os._exit(3)
    if job == "hang":
        time.sleep(1e6)
    if job == "fail":
        raise ValueError("nonsense")
    if job == "once" and tries.read_text().count("once") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return job.upper()


def broken() -> None:
    raise RuntimeError("no detector")


def fatal() -> None:
    os._exit(7)


def test_each_job_has_its_own_fate(tmp_path):
    jobs = ["a", "crash", "b", "hang", "exit", "fail", "once", "c"]
    found = dict(run_jobs(jobs, partial(maker, tmp_path / "tries"), workers=2, timeout_s=4))
    assert found.keys() == set(jobs)
    assert [found[k] for k in ("a", "b", "c", "once")] == ["A", "B", "C", "ONCE"]
    assert found["crash"] == Lost("crashed", "the worker was ended by SIGSEGV")
    assert found["exit"] == Lost("crashed", "the worker ended with code 3")
    assert found["hang"] == Lost("timeout", "not done in 4 s")
    assert found["fail"] == Lost("failed", "ValueError: nonsense")
    tried = [line.split()[0] for line in (tmp_path / "tries").read_text().splitlines()]
    assert {job: tried.count(job) for job in jobs} == dict.fromkeys(jobs, 1) | {
        "crash": 2,
        "exit": 2,
        "once": 2,
    }
    assert active_children() == []


def test_leaving_early_ends_the_workers(tmp_path):
    jobs = run_jobs(["a", "hang"], partial(maker, tmp_path / "tries"), workers=1, timeout_s=600)
    assert next(jobs) == ("a", "A")
    jobs.close()
    assert active_children() == []


@pytest.mark.parametrize(
    ("make", "words"), [(broken, "RuntimeError: no detector"), (fatal, "ended with code 7")]
)
def test_workers_that_do_not_start_are_no_fault_of_the_jobs(make, words):
    with pytest.raises(PoolError, match=words):
        list(run_jobs(["a"], make, workers=1, timeout_s=5))
    assert active_children() == []


def test_no_jobs_need_no_workers():
    assert list(run_jobs([], broken, workers=2, timeout_s=5)) == []
