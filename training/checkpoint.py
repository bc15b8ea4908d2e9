"""Checkpoints: a dict of `config`, `state_dict` and `training`, written atomically, read safely."""

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.errors import DetectError
from training.model import DetectorConfig, DetectorNetwork
from training.recipe import Recipe

State = dict[str, Tensor]


class CheckpointError(DetectError):
    """A file is not a checkpoint of this project, or not one of this network or recipe."""


def save_checkpoint(path: Path, config: DetectorConfig, state: State, training: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader sees the old file or the whole new one."""
    part = path.with_name(path.name + ".part")
    torch.save({"config": config.model_dump(mode="json"), "state_dict": state, "training": training}, part)
    part.replace(path)


def load_checkpoint(path: Path) -> tuple[DetectorNetwork, dict[str, Any]]:
    """The network, ready to infer, and what is known of its training. Raises CheckpointError."""
    content = _read(path)
    try:
        network = DetectorNetwork(DetectorConfig.model_validate(content["config"]))
        network.load_state_dict(content["state_dict"])
    except (ValidationError, RuntimeError) as e:
        raise CheckpointError(f"{path} does not hold the network it describes: {e}") from e
    return network.eval(), content["training"]


def load_training(path: Path, recipe: Recipe) -> tuple[State, dict[str, Any]]:
    """Averaged state and training state of an unfinished run of the same recipe. Raises CheckpointError."""
    content = _read(path)
    training = content["training"]
    if training.get("recipe") != recipe.model_dump(mode="json"):
        raise CheckpointError(f"{path} was made by another recipe; remove it or choose another directory")
    return content["state_dict"], training


def _read(path: Path) -> dict[str, Any]:
    try:
        # weights_only refuses every pickled object but tensors and plain containers.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as e:
        raise CheckpointError(f"{path} is not a checkpoint: {e}") from e
    except Exception as e:  # pickle.UnpicklingError: refused content
        raise CheckpointError(f"{path} holds more than tensors and was not loaded: {e}") from e
    if not isinstance(content, dict) or not {"config", "state_dict", "training"} <= content.keys():
        raise CheckpointError(f"{path} holds no config, state_dict and training")
    return content
