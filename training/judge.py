"""A network's score of a prepared clip, by the service's own rule of decision."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.answer import Answer
from pipeline.bundle import Bundle, Calibration, Manifest, Thresholds
from pipeline.prepared import PreparedClip, PreparedTrack
from pipeline.scores import TrackScores
from pipeline.verdict import decide
from training.metrics import F64
from training.model import DetectorNetwork

LEAST = 1e-6

Judge = Callable[[PreparedClip], float | None]


def judge(network: DetectorNetwork) -> Judge:
    """A function from a prepared clip to the uncalibrated probability of `fake`; None if not applicable.

    It runs where the network's weights lie.
    """
    network.eval()
    config = network.config
    plain = Thresholds(authentic_below=0.5, manipulated_above=0.5)
    manifest = Manifest(
        id="network",
        trained=True,
        architecture={},
        precision="fp32",
        opset=0,
        feature_size=config.feature_size,
        crop=config.crop,
        sampling=config.sampling,
        calibration=Calibration(id=None, thresholds=plain, data=""),
        files={},
        parity={},
        summary={},
    )
    bundle = Bundle(Path(), manifest, "")

    def score(clip: PreparedClip) -> float | None:
        scores = [_track(network, track) for track in clip.tracks]
        return fake_of(decide(clip, scores, bundle, timeline=False))

    return score


def fake_of(answer: Answer) -> float | None:
    """Probability of `fake` of an answer, None when the verdict is not_applicable."""
    return answer.probabilities.fake if answer.probabilities else None


def logits(probabilities: F64) -> F64:
    """log(p / (1 - p)), with p kept 1e-6 away from 0 and 1 as the service does."""
    p = np.clip(probabilities, LEAST, 1 - LEAST)
    return np.asarray(np.log(p / (1 - p)), np.float64)


def _track(network: DetectorNetwork, track: PreparedTrack) -> TrackScores:
    device = next(network.parameters()).device
    with torch.no_grad():
        samples = torch.from_numpy(np.ascontiguousarray(track.samples))[None].to(device)
        steps, pooled = network(samples, torch.tensor([samples.shape[1]], device=device))
    return TrackScores(steps[0].cpu().numpy(), pooled[0].cpu().numpy())
