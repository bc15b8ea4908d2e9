"""Small autoencoders that redraw faces, trained on real footage: what a generator's decoder leaves behind.

Pictures that an autoencoder draws anew differ from their originals in little but its traces (Rajan
et al., "Aligned datasets improve detection of latent diffusion-generated images", arXiv 2410.11835).
Traces differ with the bottleneck, the upsampling operator and the loss, so several are trained. They
are fully convolutional: trained on patches, they draw pictures of any size.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.frames import F32, U8
from training.checkpoint import CheckpointError
from training.pseudofakes.context import LatentChange

Upsampling = Literal["nearest", "bilinear", "transposed", "pixel_shuffle"]
Loss = Literal["l1", "perceptual", "adversarial"]

LEARNING_RATE = 2e-3
ADVERSARIAL_FROM, ADVERSARIAL_WEIGHT = 0.35, 0.03
SUFFIX = ".autoencoder.pt"
PATCH = 64
"""Pixels of a side of what is trained on, the least that a face has to have."""


class AutoencoderConfig(BaseModel):
    """What makes an autoencoder's traces its own.

    channels: 1 (luma) or 3 (RGB); halvings: how often the picture is halved before the bottleneck
    of `latent` channels; width: channels at full size, doubled with each halving up to four times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Literal[1, 3] = 1
    halvings: int = Field(default=2, ge=1, le=4)
    latent: int = Field(default=8, ge=1)
    width: int = Field(default=16, ge=4, multiple_of=4)
    upsampling: Upsampling = "nearest"
    loss: Loss = "l1"

    @property
    def name(self) -> str:
        """Tells the configurations apart, fit for a file name."""
        colour = "luma" if self.channels == 1 else "rgb"
        return f"{colour}-{self.upsampling}-{self.loss}-f{2**self.halvings}-d{self.latent}-w{self.width}"


def varied(channels: Literal[1, 3] = 1) -> list[AutoencoderConfig]:
    """Six autoencoders that differ in all that matters; the first four have each operator once."""
    c = channels
    return [
        AutoencoderConfig(channels=c, halvings=2, latent=8, upsampling="nearest", loss="l1"),
        AutoencoderConfig(channels=c, halvings=3, latent=32, upsampling="transposed", loss="adversarial"),
        AutoencoderConfig(channels=c, halvings=2, latent=6, upsampling="pixel_shuffle", loss="perceptual"),
        AutoencoderConfig(channels=c, halvings=3, latent=24, upsampling="bilinear", loss="perceptual"),
        AutoencoderConfig(channels=c, halvings=2, latent=10, upsampling="transposed", loss="l1"),
        AutoencoderConfig(channels=c, halvings=3, latent=48, upsampling="nearest", loss="adversarial"),
    ]


class Autoencoder(nn.Module):
    """Convolutions down to a bottleneck and up again, without shortcuts past it."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(4, 2**i) for i in range(config.halvings + 1)]
        down: list[nn.Module] = [nn.Conv2d(config.channels, widths[0], 3, padding=1)]
        for i in range(config.halvings):
            down += [_activation(), nn.Conv2d(widths[i], widths[i + 1], 4, 2, 1)]
        down += [_activation(), nn.Conv2d(widths[-1], config.latent, 1)]
        up: list[nn.Module] = [nn.Conv2d(config.latent, widths[-1], 3, padding=1), _activation()]
        for i in reversed(range(config.halvings)):
            up += [*_doubling(widths[i + 1], widths[i], config.upsampling), _activation()]
        up.append(nn.Conv2d(widths[0], config.channels, 3, padding=1))
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)

    @property
    def channels(self) -> int:
        """Channels of the clips that it draws."""
        return self.config.channels

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W], -1 to 1, to their reconstructions; H and W divide by 2 ** halvings."""
        return self.decode(self.encode(pictures))

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W] to latents [N, latent, H / 2 ** halvings, W / 2 ** halvings]."""
        latents: Tensor = self.encoder(pictures)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures."""
        pictures: Tensor = self.decoder(latents)
        return pictures

    def redraw(self, clip: F32, change: LatentChange | None = None) -> F32:
        """The clip drawn anew, float32 [T, H, W, C], 0 to 255, of the same shape.

        Sides that do not divide are padded by their mirror image. change: what is done to the
        latents in between. Drawn by one thread, so that sums are taken in the same order whatever
        process asks. Raises ValueError for another number of channels.
        """
        if clip.shape[-1] != self.channels:
            raise ValueError(f"an autoencoder of {self.channels} channels can not draw {clip.shape[-1]}")
        h, w = clip.shape[1:3]
        step = 2**self.config.halvings
        padded = np.pad(clip, ((0, 0), (0, -h % step), (0, -w % step), (0, 0)), mode="symmetric")
        with _threads(1), torch.inference_mode():
            latents = self.encode(_as_input(padded))
            if change is not None:
                latents = torch.from_numpy(change(latents.numpy()))
            drawn = self.decode(latents).numpy()
        return np.ascontiguousarray(np.clip(drawn * 127.5 + 127.5, 0, 255).transpose(0, 2, 3, 1)[:, :h, :w])


def train_autoencoders(
    faces: Sequence[U8],
    out: Path,
    *,
    configs: Sequence[AutoencoderConfig] | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    threads: int = 1,
    seed: int = 0,
) -> list[Path]:
    """Train autoencoders on faces and save each to the folder `out`; returns the files.

    faces: uint8 arrays, luma [..., H, W] or RGB [..., H, W, 3], of any leading dimensions and sides of
    PATCH or more (smaller ones are left out); configs: `varied` of the faces' channels by default.
    seconds, steps: the budget of each, whichever ends first; only `steps` alone gives the same
    weights again. Raises ValueError without a budget or without faces.
    """
    if seconds is None and steps is None:
        raise ValueError("training needs a budget of seconds or steps")
    out.mkdir(parents=True, exist_ok=True)
    chosen = configs or varied(3 if faces and _is_rgb(faces[0]) else 1)
    with _threads(threads):
        return [
            _train_and_save(config, faces, out, seconds=seconds, steps=steps, seed=seed) for config in chosen
        ]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads of torch for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train_and_save(
    config: AutoencoderConfig,
    faces: Sequence[U8],
    out: Path,
    *,
    seconds: float | None,
    steps: int | None,
    seed: int,
) -> Path:
    batches = _batches(faces, config.channels, np.random.default_rng(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = train_autoencoder(config, batches, seconds=seconds, steps=steps)
    file = out / f"{config.name}{SUFFIX}"
    part = file.with_name(file.name + ".part")
    torch.save({"config": config.model_dump(mode="json"), "state_dict": network.state_dict()}, part)
    part.replace(file)
    return file


def train_autoencoder(
    config: AutoencoderConfig, batches: Iterator[Tensor], *, seconds: float | None, steps: int | None
) -> Autoencoder:
    """One autoencoder, trained on batches [N, C, S, S], -1 to 1, and ready to draw."""
    network = Autoencoder(config)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    losses = _Losses(config)
    start, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (0.5 * (1 + np.cos(np.pi * done)) + 0.01)
        real = next(batches)
        drawn = network(real)
        loss = losses(real, drawn, done)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        step += 1
        spent = [step / steps] if steps else []
        done = max([*spent, (time.monotonic() - start) / seconds] if seconds else spent)
    return network.eval()


def load_autoencoders(folder: Path) -> list[Autoencoder]:
    """The autoencoders saved in a folder, by name, ready to draw. Raises CheckpointError."""
    return [_load(file) for file in _files(folder)]


def autoencoders_digest(folder: Path) -> str:
    """SHA-256 of the autoencoders saved in a folder, by name: equal for those that draw the same."""
    digest = hashlib.sha256()
    for file in _files(folder):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def _load(file: Path) -> Autoencoder:
    try:
        # weights_only refuses every pickled object but tensors and plain containers.
        content = torch.load(file, map_location="cpu", weights_only=True)
        network = Autoencoder(AutoencoderConfig.model_validate(content["config"]))
        network.load_state_dict(content["state_dict"])
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, ValidationError) as e:
        raise CheckpointError(f"{file} does not hold an autoencoder: {e}") from e
    except Exception as e:  # pickle.UnpicklingError: refused content
        raise CheckpointError(f"{file} holds more than tensors and was not loaded: {e}") from e
    return network.eval()


class _Losses:
    """How far a reconstruction is from its original; the adversary learns along."""

    def __init__(self, config: AutoencoderConfig) -> None:
        self.kind = config.loss
        self.features = _features(config.channels)
        self.critic = _critic(config.channels)
        self.optimiser = torch.optim.Adam(self.critic.parameters(), LEARNING_RATE / 2, betas=(0.5, 0.99))

    def __call__(self, real: Tensor, drawn: Tensor, done: float) -> Tensor:
        loss = F.l1_loss(drawn, real)
        if self.kind == "perceptual":
            loss = 0.5 * loss + self._perceptual(real, drawn)
        if self.kind == "adversarial" and done >= ADVERSARIAL_FROM:
            self._teach(real, drawn.detach())
            loss = loss - ADVERSARIAL_WEIGHT * self.critic(drawn).mean()
        return loss

    def _perceptual(self, real: Tensor, drawn: Tensor) -> Tensor:
        total = real.new_zeros(())
        for _ in range(3):
            total = total + F.l1_loss(self.features(drawn), self.features(real))
            real, drawn = F.avg_pool2d(real, 2), F.avg_pool2d(drawn, 2)
        return total / 3

    def _teach(self, real: Tensor, drawn: Tensor) -> None:
        loss = F.relu(1 - self.critic(real)).mean() + F.relu(1 + self.critic(drawn)).mean()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()


def _features(channels: int) -> nn.Module:
    """Fixed random filters without a mean: features as of an untrained trunk, of no foreign weights."""
    filters = nn.Conv2d(channels, 16, 3, bias=False)
    weights = torch.randn(filters.weight.shape, generator=torch.Generator().manual_seed(1))
    weights -= weights.mean(dim=(2, 3), keepdim=True)
    filters.weight = nn.Parameter(weights / weights.flatten(1).norm(dim=1)[:, None, None, None], False)
    return nn.Sequential(filters, _activation())


def _critic(channels: int) -> nn.Module:
    """Says of patches of 22 pixels whether they are real (Isola et al. 2017): above zero, real."""
    # Bounded slopes (Miyato et al. 2018): a free critic drives so short a training into ringing.
    first, second, third = (
        spectral_norm(layer)
        for layer in (nn.Conv2d(channels, 16, 4, 2, 1), nn.Conv2d(16, 32, 4, 2, 1), nn.Conv2d(32, 1, 4, 1, 1))
    )
    return nn.Sequential(first, _activation(), second, _activation(), third)


def _doubling(inputs: int, outputs: int, how: Upsampling) -> list[nn.Module]:
    match how:
        case "transposed":
            return [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)]
        case "pixel_shuffle":
            return [nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2)]
        case "nearest":
            return [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(inputs, outputs, 3, padding=1)]
        case "bilinear":
            up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            return [up, nn.Conv2d(inputs, outputs, 3, padding=1)]


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.1)


def _is_rgb(faces: U8) -> bool:
    return faces.ndim >= 3 and faces.shape[-1] == 3


def _batches(
    faces: Sequence[U8], channels: int, rng: np.random.Generator, side: int = PATCH, batch: int = 8
) -> Iterator[Tensor]:
    """Endless batches of random patches: cut, shrunk by up to a half where there is room, mirrored."""
    colour = (3,) if channels == 3 else ()
    stacks = [f.reshape(-1, *f.shape[f.ndim - 2 - len(colour) :]) for f in faces if f.size]
    stacks = [s for s in stacks if min(s.shape[1:3]) >= side]
    if not stacks:
        raise ValueError(f"no faces of {side} pixels or more to train on")
    while True:
        patches = [_patch(stacks[int(rng.integers(len(stacks)))], side, rng) for _ in range(batch)]
        yield _as_input(np.stack(patches).reshape(batch, side, side, channels).astype(np.float32))


def _patch(stack: U8, side: int, rng: np.random.Generator) -> U8:
    cut = int(rng.integers(side, min(2 * side, *stack.shape[1:3]) + 1)) if rng.random() < 0.5 else side
    y, x = (int(rng.integers(0, n - cut + 1)) for n in stack.shape[1:3])
    patch = stack[int(rng.integers(len(stack))), y : y + cut, x : x + cut]
    if cut != side:
        patch = np.asarray(cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    return patch[:, ::-1] if rng.random() < 0.5 else patch


def _as_input(clip: F32) -> Tensor:
    pictures = torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))
    return (pictures / 127.5 - 1).contiguous(memory_format=torch.channels_last)
