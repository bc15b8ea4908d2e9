"""Weights that a training starts from."""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from training.bundle_weights import load_bundle
from training.checkpoint import CheckpointError, load_checkpoint
from training.keymap import load_common, load_torchvision
from training.model import DetectorNetwork
from training.recipe import Start


def begin(network: DetectorNetwork, start: Start) -> None:
    """Put the weights of a file or a bundle into a network. Raises CheckpointError when they are not for it,
    BundleError when the bundle is not sound."""
    if start.checkpoint is None:
        raise CheckpointError(f"no {start.format} file was named")
    if start.format == "checkpoint":
        _load_own(network, load_checkpoint(start.checkpoint)[0], start.checkpoint)
    elif start.format == "bundle":
        _load_own(network, load_bundle(start.checkpoint)[0], start.checkpoint)
    elif start.format == "torchvision":
        load_torchvision(network, read_state(start.checkpoint))
    else:
        load_common(network, read_state(start.checkpoint))


def read_state(path: Path) -> dict[str, Tensor]:
    """A bare state_dict, read without unpickling anything but tensors. Raises CheckpointError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as e:
        raise CheckpointError(f"{path} is not a file of weights: {e}") from e
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds no state_dict")
    return state


def _load_own(network: DetectorNetwork, found: DetectorNetwork, path: Path) -> None:
    wanted = network.config
    if (found.config.trunk, found.config.crop) != (wanted.trunk, wanted.crop):
        raise CheckpointError(
            f"{path} holds a network of another kind: trunk {found.config.trunk} and crop "
            f"{found.config.crop!r}, where the recipe has {wanted.trunk} and {wanted.crop!r}"
        )
    try:
        network.load_state_dict(found.state_dict())
    except RuntimeError as e:
        raise CheckpointError(f"{path} holds a network of other sizes: {e}") from e
