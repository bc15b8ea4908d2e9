"""One training in several processes, started by torchrun: each learns from its share of every batch.

torchrun says in the environment who a process is (RANK, WORLD_SIZE, LOCAL_RANK). Without it a process is
alone, and everything here is what one process would do.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from pipeline.errors import DetectError

T = TypeVar("T")
WANTED = ("auto", "cpu", "cuda")


class DeviceError(DetectError):
    """The device that was asked for is not there."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of one training, seen from one of them. rank: 0 to size - 1; device: its own."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leader(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def gather(self, part: list[T]) -> list[T]:
        """The parts of all processes, one after the other, in each of them."""
        if self.size == 1:
            return part
        parts: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, part)
        return [item for each in parts for item in each]

    def share(self, state: dict[str, Tensor]) -> None:
        """Give every process the leader's tensors, in place."""
        if self.size > 1:
            for name in sorted(state):
                dist.broadcast(state[name], 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """A block that the leader ends before the others begin, so that these find what it wrote."""
        if not self.leader:
            self.wait()
        yield
        if self.leader:
            self.wait()


ALONE = World(torch.device("cpu"))


@contextmanager
def open_world(wanted: str = "auto") -> Iterator[World]:
    """This process's world: `auto` takes CUDA where torch has it. Raises DeviceError.

    Several processes talk through NCCL on GPUs, each on its own, and through Gloo on CPUs.
    """
    if wanted not in WANTED:
        raise DeviceError(f"no device is called {wanted}; there are {', '.join(WANTED)}")
    cuda = torch.cuda.is_available()
    if wanted == "cuda" and not cuda:
        raise DeviceError(f"torch {torch.__version__} finds no CUDA device here")
    local, rank, size = (int(os.environ.get(n, d)) for n, d in _TORCHRUN.items())
    if wanted == "cpu" or not cuda:
        device = torch.device("cpu")
    elif local < torch.cuda.device_count():
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
    else:
        raise DeviceError(f"{local + 1} processes on this machine, but {torch.cuda.device_count()} GPUs")
    if size == 1:
        yield World(device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(device, rank, size)
    finally:
        # Networks wrapped for several processes sit in cycles and hold the group: it should not be left to
        # the end of the interpreter to take its threads down.
        gc.collect()
        dist.destroy_process_group()
        gc.collect()


_TORCHRUN = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}
