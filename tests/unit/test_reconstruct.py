"""Autoencoders: trained on faces, saved, read back, drawing clips of any size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.frames import F32, U8
from training.checkpoint import CheckpointError
from training.pseudofakes import KINDS, make
from training.pseudofakes.context import Context, centred_landmarks
from training.reconstruct import (
    SUFFIX,
    Autoencoder,
    AutoencoderConfig,
    autoencoders_digest,
    load_autoencoders,
    train_autoencoders,
    varied,
)

SMALL = [config.model_copy(update={"width": 8}) for config in varied()[:4]]
RECONSTRUCTIONS = [name for name, kind in KINDS.items() if kind.needs == "redrawers"]


def faces(seed: int = 0, bursts: int = 2, side: int = 72, channels: int = 1) -> U8:
    """Smooth blobs and a little noise: uint8 [bursts, 4, side, side], RGB with channels last."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    stacks = []
    for _ in range(bursts * 4):
        a, b, c, d = rng.uniform(2, 8, 4)
        picture = 120 + 50 * np.sin(a * x + c) * np.cos(b * y + d) + 30 * np.sin(b * (x + y))
        stacks.append(np.stack([picture + 8 * k for k in range(channels)], axis=-1))
    pictures = np.stack(stacks).reshape(bursts, 4, side, side, channels) + rng.normal(
        0, 1, (bursts, 4, side, side, 1)
    )
    trimmed = np.clip(pictures, 0, 255).astype(np.uint8)
    return trimmed if channels == 3 else trimmed[..., 0]


def clip(seed: int = 9, side: int = 72, channels: int = 1) -> F32:
    return faces(seed, 1, side, channels).reshape(4, side, side, channels).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoders")
    train_autoencoders([faces(0), faces(1)], folder, configs=SMALL, steps=40)
    return folder


def test_reconstruction_beats_the_mean_picture(trained: Path) -> None:
    unseen = clip()
    for network in load_autoencoders(trained):
        error = np.square(network.redraw(unseen) - unseen).mean()
        assert error < 0.25 * np.square(unseen.mean() - unseen).mean(), network.config.name


def test_more_steps_draw_better(tmp_path: Path) -> None:
    errors = []
    for steps in (4, 40):
        train_autoencoders([faces()], tmp_path / str(steps), configs=SMALL[:1], steps=steps)
        (network,) = load_autoencoders(tmp_path / str(steps))
        errors.append(np.square(network.redraw(clip()) - clip()).mean())
    assert errors[1] < 0.5 * errors[0]


def test_the_same_seed_and_steps_give_the_same_weights(tmp_path: Path) -> None:
    config = AutoencoderConfig(loss="adversarial", upsampling="transposed", width=8)
    for folder in ("a", "b"):
        train_autoencoders([faces()], tmp_path / folder, configs=[config], steps=5, seed=3)
    (a,), (b,) = load_autoencoders(tmp_path / "a"), load_autoencoders(tmp_path / "b")
    assert all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("config", varied() + varied(3), ids=lambda c: c.name)
@pytest.mark.parametrize("size", [(48, 48), (50, 61), (72, 49)])
def test_clips_of_any_size_are_drawn(config: AutoencoderConfig, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = Autoencoder(config).eval()
    real = np.random.default_rng(0).uniform(0, 255, (2, *size, config.channels)).astype(np.float32)
    kept = real.copy()
    drawn = network.redraw(real)
    assert drawn.shape == real.shape
    assert drawn.dtype == np.float32
    assert 0 <= drawn.min() <= drawn.max() <= 255
    assert np.array_equal(real, kept)
    assert np.array_equal(drawn, network.redraw(real))
    halved = network.encode(torch.zeros(1, config.channels, 64, 64))
    assert halved.shape == (1, config.latent, 64 // 2**config.halvings, 64 // 2**config.halvings)


def test_the_zoo_has_every_operator_loss_and_more_than_one_bottleneck() -> None:
    zoo = varied()
    assert {c.upsampling for c in zoo} == {"nearest", "bilinear", "transposed", "pixel_shuffle"}
    assert {c.loss for c in zoo} == {"l1", "perceptual", "adversarial"}
    assert len({(c.halvings, c.latent) for c in zoo}) > 3
    assert len({c.name for c in zoo}) == len(zoo)


def test_latents_can_be_changed(trained: Path) -> None:
    network = load_autoencoders(trained)[0]
    real = clip()
    middle = network.redraw(real, lambda latents: np.repeat(latents[2:3], len(latents), axis=0))
    assert np.allclose(middle, network.redraw(real[2:3]), atol=0.05)


@pytest.mark.parametrize("name", RECONSTRUCTIONS)
def test_reconstruction_fakes_change_the_mask_and_nothing_else(name: str, trained: Path) -> None:
    networks = load_autoencoders(trained)
    real = clip(side=128)
    kept = real.copy()
    landmarks = np.array([[54, 54], [74, 54], [64, 62], [57, 72], [71, 72]], np.float32)
    for seed in range(6):
        context = Context(landmarks, regions=("mouth",), redrawers=networks)
        forged = KINDS[name].forge(real, np.random.default_rng(seed), context)
        assert forged.shape == real.shape
        assert forged.dtype == np.float32
        assert np.array_equal(forged, KINDS[name].forge(real, np.random.default_rng(seed), context))
        changed = np.abs(forged - real).max(axis=(0, 3)) > 0
        assert changed[72, 64]
        assert not changed[:36].any()
        assert not changed[:, :20].any()
    assert np.array_equal(real, kept)


def test_latents_smoothed_in_time_draw_a_calmer_face(trained: Path) -> None:
    networks = load_autoencoders(trained)[:1]
    real = clip(side=64)  # four pictures that have nothing in common
    context = Context(centred_landmarks(64, 64), regions=("picture",), redrawers=networks)

    def motion(name: str) -> float:
        forged = [KINDS[name].forge(real, np.random.default_rng(seed), context) for seed in range(4)]
        return float(np.mean([np.abs(np.diff(f, axis=0)).mean() for f in forged]))

    assert motion("smoothed_latents") < 0.9 * motion("reconstructed")


def test_noisy_latents_make_a_still_clip_move(trained: Path) -> None:
    still = np.repeat(clip(side=64)[:1], 4, axis=0)
    networks = load_autoencoders(trained)[:1]
    context = Context(centred_landmarks(64, 64), regions=("picture",), redrawers=networks)

    def motion(name: str) -> float:
        forged = [KINDS[name].forge(still, np.random.default_rng(seed), context) for seed in range(12)]
        return float(np.mean([np.abs(np.diff(f, axis=0)).mean() for f in forged]))

    assert motion("noisy_latents") > motion("reconstructed") + 0.1


def test_make_takes_redrawers(trained: Path) -> None:
    real = clip(side=64).astype(np.uint8)
    networks = load_autoencoders(trained)
    forged = make(real, np.random.default_rng(0), redrawers=networks, kinds=["reconstructed"])
    assert forged.shape == real.shape
    assert not np.array_equal(forged, real)
    with pytest.raises(ValueError, match="reconstructed needs redrawers"):
        make(real, np.random.default_rng(0), kinds=["reconstructed"])
    coloured = np.repeat(real, 3, axis=3)
    with pytest.raises(ValueError, match="reconstructed needs redrawers"):
        make(coloured, np.random.default_rng(0), redrawers=networks, kinds=["reconstructed"])
    for seed in range(10):
        assert make(coloured, np.random.default_rng(seed), redrawers=networks).shape == coloured.shape


def test_rgb_faces_get_rgb_autoencoders(tmp_path: Path) -> None:
    (file, *_) = train_autoencoders([faces(channels=3)], tmp_path, configs=[varied(3)[0]], steps=2)
    assert file.name.startswith("rgb-")
    (network,) = load_autoencoders(tmp_path)
    assert network.redraw(clip(channels=3)).shape == (4, 72, 72, 3)
    with pytest.raises(ValueError, match="3 channels"):
        network.redraw(clip())


def test_what_can_not_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="budget"):
        train_autoencoders([faces()], tmp_path)
    with pytest.raises(ValueError, match="no faces of 64 pixels"):
        train_autoencoders([faces(side=48)], tmp_path, steps=1)
    assert not list(tmp_path.iterdir())


def test_a_budget_of_seconds_ends(tmp_path: Path) -> None:
    assert train_autoencoders([faces()], tmp_path, configs=varied()[:1], seconds=0.01)[0].is_file()


def test_files_that_hold_no_autoencoder_are_refused(tmp_path: Path) -> None:
    file = tmp_path / f"broken{SUFFIX}"
    file.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="broken"):
        load_autoencoders(tmp_path)
    torch.save({"config": {"channels": 2}, "state_dict": {}}, file)
    with pytest.raises(CheckpointError, match="does not hold an autoencoder"):
        load_autoencoders(tmp_path)
    torch.save({"config": AutoencoderConfig().model_dump(), "state_dict": {}}, file)
    with pytest.raises(CheckpointError, match="does not hold an autoencoder"):
        load_autoencoders(tmp_path)
    torch.save(Context(centred_landmarks(64, 64)), file)
    with pytest.raises(CheckpointError, match="more than tensors"):
        load_autoencoders(tmp_path)


def test_pictures_are_drawn_by_one_thread(trained: Path) -> None:
    """Whoever draws, and however many threads it has, sums in the same order."""
    network = load_autoencoders(trained)[0]
    seen: list[int] = []
    network.decoder.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        network.redraw(clip())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_the_digest_is_that_of_all_weights(tmp_path: Path) -> None:
    train_autoencoders([faces()], tmp_path, configs=SMALL[:2], steps=1)
    whole = autoencoders_digest(tmp_path)
    assert autoencoders_digest(tmp_path) == whole
    file = sorted(tmp_path.glob(f"*{SUFFIX}"))[1]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert autoencoders_digest(tmp_path) != whole
    file.unlink()
    assert autoencoders_digest(tmp_path) != whole
