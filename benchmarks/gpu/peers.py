"""The same encoder in PyTorch, and what the device could do at best. Needs the extra `training`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.curve import seconds
from pipeline.bundle import Manifest
from pipeline.frames import F32, U8
from training.model import DetectorConfig, DetectorNetwork

SIDE = 8192
"""Rows and columns of the matrices whose product says what a device can do."""


def network_of(manifest: Manifest) -> DetectorNetwork:
    """The bundle's network with random weights, which are as fast as any."""
    fed = {"crop": manifest.crop, "sampling": manifest.sampling}
    return DetectorNetwork(DetectorConfig.model_validate(manifest.architecture | fed)).eval()


def encoder(network: DetectorNetwork, device: str, *, bf16: bool, compiled: bool) -> Callable[[U8], F32]:
    """Samples uint8 [N, F, S, S, 3] to features float32 [N, D], both in the host's memory.

    In fp32 without TF32, as the service runs it; bf16: under autocast.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    trunk: Any = network.trunk.to(device)
    if compiled:
        # one graph for each batch size: the best that the compiler can do
        trunk = torch.compile(trunk, dynamic=False)

    def encode(samples: U8) -> F32:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            features = trunk(torch.from_numpy(samples).to(device))
        return np.asarray(features.float().cpu().numpy(), np.float32)

    return encode


def flops(network: DetectorNetwork) -> int:
    """Floating point operations of one sample in the trunk, a multiplication and an addition being two."""
    sample = torch.zeros((1, *network.config.sample_shape), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.trunk.cpu()(sample)
    return int(counter.get_total_flops())


def peak(device: str, *, bf16: bool, side: int = SIDE, repeats: int = 10) -> float:
    """Operations a second that large matrix products reach, fp32 without TF32 or bf16."""
    torch.backends.cuda.matmul.allow_tf32 = False
    a = torch.ones((side, side), dtype=torch.bfloat16 if bf16 else torch.float32, device=device)

    def multiply() -> None:
        (a @ a)[0, 0].item()  # which waits for the device

    return 2 * side**3 / seconds(multiply, repeats=repeats).median
