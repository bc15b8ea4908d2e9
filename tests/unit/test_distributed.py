"""Several processes learn what one would: the same gradient, the same weights in each."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.test_training import fit_pairs, log, same, tiny_clips, tiny_recipe, weights
from training.distributed import ALONE, DeviceError, World, open_world
from training.learner import Learner
from training.loader import Lesson, PairTeacher, pair_exam
from training.loop import CHECKPOINT, fit
from training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
SEQUENCES = 3


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """As quick as any for networks of this size, and kind to whatever else runs here."""
    torch.set_num_threads(1)


def exact_recipe() -> Recipe:
    """Nothing random and nothing that depends on how a batch is split, so that gradients can be compared."""
    recipe = tiny_recipe(steps=4, freeze_norms=True, precision="fp32", validate_every=2, average=0.9)
    return recipe.model_copy(update={"network": recipe.network.model_copy(update={"dropout": 0.0})})


def shared_lesson(step: int, world: World) -> Lesson:
    """Three sequences of unequal length; the first of two processes has two of them."""
    rng = np.random.default_rng(step)
    lengths = [2, 3, 1]
    pixels = [torch.from_numpy(rng.integers(0, 256, (n, 4, 16, 16, 1), dtype=np.uint8)) for n in lengths]
    mine = range(world.rank, SEQUENCES, world.size)
    return Lesson(
        torch.cat([pixels[k] for k in mine]),
        torch.tensor([lengths[k] for k in mine]),
        torch.tensor([k % 2 for k in mine]),
    )


def learn(world: World) -> dict[str, Any]:
    """Gradients of the first step and weights after three."""
    learner = Learner(exact_recipe(), SEQUENCES, world)
    learner.learn(shared_lesson(0, world))
    gradients = {n: p.grad.clone() for n, p in learner.pupil.named_parameters() if p.grad is not None}
    for step in (1, 2):
        learner.learn(shared_lesson(step, world))
    return {"gradients": gradients, "weights": learner.network.state_dict()}


class Breaks(PairTeacher):
    """A teacher that ends the run, in every process, before the fourth step."""

    def lesson(self, step: int) -> Lesson:
        if step == 3:
            raise KeyboardInterrupt
        return super().lesson(step)


def work(out: Path) -> None:
    """What each process of the test does."""
    torch.set_num_threads(1)
    recipe, clips = exact_recipe(), tiny_clips()
    with open_world("cpu") as world:
        torch.save(learn(world), out / f"learnt-{world.rank}.pt")
        exam = pair_exam(clips, recipe, world)
        teacher = PairTeacher(clips, recipe, world)
        fit(teacher, recipe, out / "unbroken", exam=exam, world=world)
        try:
            fit(Breaks(clips, recipe, world), recipe, out / "broken", exam=exam, world=world)
        except KeyboardInterrupt:
            fit(teacher, recipe, out / "broken", exam=exam, world=world)
        with world.leader_first():
            if not world.leader:
                assert (out / "by the leader").exists()
            (out / "by the leader").touch()
        gathered = world.gather([world.rank, world.rank])
        (out / f"gathered-{world.rank}").write_text(str(gathered))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made, each told who it is as torchrun would."""
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    # What is tested ends with `work`. Now and then torch 2.13 aborts the process that holds the store while
    # the interpreter is taken down, after everything was written, so the process leaves without that.
    code = (
        "import os, sys, pathlib; from tests.unit.test_distributed import work; "
        "work(pathlib.Path(sys.argv[1])); os._exit(0)"
    )
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(out)],
            cwd=ROOT,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [p.wait(timeout=300) for p in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return out


def test_the_gradient_is_that_of_one_process_with_the_whole_batch(two: Path) -> None:
    alone = learn(ALONE)
    for rank in range(2):
        learnt = torch.load(two / f"learnt-{rank}.pt", weights_only=True)
        assert learnt["gradients"].keys() == alone["gradients"].keys()
        for name, gradient in alone["gradients"].items():
            torch.testing.assert_close(learnt["gradients"][name], gradient, rtol=1e-4, atol=1e-6)
        for name, value in alone["weights"].items():
            torch.testing.assert_close(learnt["weights"][name], value, rtol=1e-3, atol=1e-4)


def test_weights_are_equal_in_both_processes(two: Path) -> None:
    a, b = (torch.load(two / f"learnt-{rank}.pt", weights_only=True)["weights"] for rank in range(2))
    assert same(a, b)


def test_a_resumed_run_of_two_processes_ends_like_an_unbroken_one(two: Path) -> None:
    assert same(weights(two / "unbroken" / CHECKPOINT), weights(two / "broken" / CHECKPOINT))
    assert log(two / "unbroken") == log(two / "broken")
    assert [line["step"] for line in log(two / "unbroken")] == [2, 4]


def test_processes_tell_and_wait_for_each_other(two: Path) -> None:
    assert {(two / f"gathered-{rank}").read_text() for rank in range(2)} == {"[0, 0, 1, 1]"}


def test_each_process_has_pairs_of_its_own(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=2, batch=2)
    parts = [PairTeacher(tiny_clips(), recipe, World(torch.device("cpu"), r, 2)).lesson(0) for r in (0, 1)]
    assert [len(p.labels) for p in parts] == [2, 2]
    assert not torch.equal(parts[0].samples, parts[1].samples)
    assert fit_pairs(recipe, tmp_path).exists()


def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for wanted, wrong in (("tpu", "no device is called tpu"), ("cuda", "finds no CUDA device")):
        with pytest.raises(DeviceError, match=wrong), open_world(wanted):
            pass
    with open_world("auto") as world:
        assert world == ALONE
