"""Foreign checkpoints: ImageNet's ResNeXt-50 from torchvision, and those of the common implementation.

The common public implementation of this network (`class Model` with `model`, `lstm` and `linear1`)
keeps the trunk as a bare `nn.Sequential`, so its keys count the children of torchvision's ResNet:
0 conv1, 1 bn1, 2 relu, 3 maxpool, 4 to 7 the four stages.

What such a checkpoint can give here: the trunk and the weights of the LSTM, exactly. What it can not:
the answers that it gives there. Its class order is that of folder names, FAKE before REAL, so the
rows of the linear layer are swapped here. It passes `bidirectional` where torch expects `bias`, so
its LSTM has no biases; they become zeros. It ran the LSTM over the axis of the batch, so those
weights never saw a sequence in time, and it had no ReLU behind the LSTM. A checkpoint that is loaded
so is a starting point for fine-tuning, not a trained detector.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from training.checkpoint import CheckpointError
from training.model import DetectorNetwork

_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def load_torchvision(network: DetectorNetwork, state: Mapping[str, Tensor]) -> None:
    """Put torchvision's resnext50_32x4d state, with or without `fc`, into the trunk.

    Raises CheckpointError when a name or a shape is not that of the trunk.
    """
    trunk = {name: value for name, value in state.items() if not name.startswith("fc.")}
    _load(network.trunk, trunk, "torchvision's resnext50_32x4d")


def load_common(network: DetectorNetwork, state: Mapping[str, Tensor]) -> None:
    """Put a checkpoint of the common implementation into the paper's network.

    Raises CheckpointError when a key is not one of that implementation's or a shape differs.
    """
    mapped = map_common(state)
    for name in ("lstm.bias_ih_l0", "lstm.bias_hh_l0"):
        mapped.setdefault(f"head.{name}", torch.zeros_like(network.head.state_dict()[name]))
    _load(network, mapped, "the common implementation")


def map_common(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The common implementation's state under the names used here, classes in the order real, fake."""
    mapped = {}
    for key, value in state.items():
        name = key.removeprefix("module.")  # nn.DataParallel
        if found := re.fullmatch(r"model\.(\d+)\.(.+)", name):
            child = _CHILDREN.get(found[1])
            if child is None:
                raise CheckpointError(f"{key} is not a part of a ResNeXt-50 trunk")
            mapped[f"trunk.{child}.{found[2]}"] = value
        elif name.startswith("lstm."):
            mapped[f"head.{name}"] = value
        elif found := re.fullmatch(r"linear1\.(weight|bias)", name):
            mapped[f"head.linear.{found[1]}"] = value.flip(0)
        else:
            raise CheckpointError(f"{key} is not a key of the common implementation")
    return mapped


def _load(module: torch.nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as e:
        raise CheckpointError(f"the state is not that of {origin}: {e}") from e
