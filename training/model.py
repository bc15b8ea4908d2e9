"""The detector network: a trunk that encodes samples, an LSTM over the sequence of their features.

Two networks come from this one definition. The paper's own (likith-2023): ResNeXt-50 32x4d without its
classifier, adaptive average pooling, 2048 features, LSTM 2048 -> 2048, ReLU, dropout 0.4, linear to
two, softmax; fed with aligned crops as in the paper, or with native windows over a burst. And the
compact one, which puts a small CNN over residuals of native windows, or several, in the place of the
trunk.

The paper pools the sequence by its mean. Here the mean is taken after the ReLU; the linear layer is
affine, so the pooled logit is exactly the mean of the logits of the valid steps, and what a step
says is its share of the answer. Dropout acts on the LSTM's output and never on logits.
"""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.bundle import CLASSES
from pipeline.spec import CropSpec, SamplingSpec
from training.trunks import RESNEXT_FEATURES, Evidence, Filters, NativeEnsemble, NativeTrunk, ResNeXt50, Stem


class DetectorConfig(BaseModel):
    """What a network is and what it is fed. Unknown keys are errors.

    feature_size: D, the trunk's output; hidden: the LSTM's state; dropout: between LSTM and linear;
    width: channels of the first convolutions of the native trunk and of the fine stem; members:
    native trunks side by side, each giving its part of the features; stem: of the ResNeXt; filters
    and evidence: of the residuals that a burst is seen through.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trunk: Literal["resnext50_32x4d", "native"]
    crop: CropSpec
    sampling: SamplingSpec
    feature_size: int = Field(ge=2)
    hidden: int = Field(ge=1)
    dropout: float = Field(default=0.4, ge=0, lt=1)
    width: int = Field(default=24, ge=1)
    members: int = Field(default=1, ge=1)
    stem: Stem = "imagenet"
    filters: Filters = "fixed"
    evidence: Evidence = "space_time"

    @model_validator(mode="after")
    def consistent(self) -> "DetectorConfig":
        """What does not fit together, or would be ignored, is an error."""
        burst = self.crop.colour == "yuv" and self.crop.frames > 1
        picture = self.crop.colour == "rgb" and self.crop.frames == 1
        if (self.filters, self.evidence) != ("fixed", "space_time") and not burst:
            raise ValueError("filters and evidence belong to the residuals of yuv bursts")
        if self.trunk == "resnext50_32x4d":
            if not (picture or burst) or self.feature_size != RESNEXT_FEATURES or self.members != 1:
                raise ValueError(
                    "resnext50_32x4d takes rgb crops of one frame or yuv bursts of two frames or more, "
                    "gives 2048 features and has one member"
                )
        elif not burst or self.feature_size % (2 * self.members) or self.stem != "imagenet":
            raise ValueError(
                "the native trunk takes yuv bursts of two frames or more, gives an even feature size "
                "for each member and has no stem to choose"
            )
        return self

    @property
    def sample_shape(self) -> tuple[int, int, int, int]:
        """Shape of one uint8 sample, [F, S, S, 3]."""
        return (self.crop.frames, self.crop.side, self.crop.side, 3)


def paper_config() -> DetectorConfig:
    """The network and the preparation of the paper: aligned 112 x 112 RGB crops, first 150 frames."""
    return DetectorConfig(
        trunk="resnext50_32x4d",
        crop=CropSpec(kind="aligned", side=112),
        sampling=SamplingSpec(bursts=150, burst_frames=1, spread="head"),
        feature_size=RESNEXT_FEATURES,
        hidden=2048,
    )


def native_config() -> DetectorConfig:
    """The compact network's default: two pictures of a burst of three, nine 64 x 64 windows a burst."""
    return DetectorConfig(
        trunk="native",
        crop=CropSpec(kind="native", side=64, frames=3, colour="yuv", margin=1.0, grid=3),
        sampling=SamplingSpec(bursts=8, burst_frames=3),
        feature_size=96,
        hidden=64,
        width=32,
        evidence="space",
    )


def native_resnext_config() -> DetectorConfig:
    """The paper's network over the compact one's native windows."""
    native = native_config()
    return DetectorConfig(
        trunk="resnext50_32x4d",
        crop=native.crop,
        sampling=native.sampling,
        feature_size=RESNEXT_FEATURES,
        hidden=2048,
        stem="fine",
        width=native.width,
        evidence=native.evidence,
    )


class TemporalHead(nn.Module):
    """LSTM, ReLU, dropout, linear; probabilities of (real, fake) for each step and for the sequence."""

    def __init__(self, feature_size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(feature_size, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, len(CLASSES))

    def logits(self, features: Tensor) -> Tensor:
        """Features [B, T, D] to the logits of each step [B, T, 2]."""
        states, _ = self.lstm(features)
        return self.linear(self.dropout(F.relu(states)))  # type: ignore[no-any-return]

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, T, D] and lengths int64 [B] to steps [B, T, 2] and pooled [B, 2], probabilities.

        Whatever stands past a sequence's length changes nothing: the LSTM runs forward in time
        only, and the steps past the length are left out of the mean and come out as zeros.
        """
        logits = self.logits(features)
        valid = (torch.arange(features.shape[1], device=features.device) < lengths[:, None])[..., None]
        nothing = torch.zeros_like(logits)
        total = torch.where(valid, logits, nothing).sum(1)
        pooled = (total / lengths.clamp(min=1)[:, None].to(logits.dtype)).softmax(-1)
        return torch.where(valid, logits.softmax(-1), nothing), pooled


class DetectorNetwork(nn.Module):
    """Trunk and temporal head of one configuration."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = _trunk(config)
        self.head = TemporalHead(config.feature_size, config.hidden, config.dropout)

    def features(self, samples: Tensor) -> Tensor:
        """uint8 [B, T, F, S, S, 3] to features [B, T, D]."""
        return self.trunk(samples.flatten(0, 1)).unflatten(0, samples.shape[:2])  # type: ignore[no-any-return]

    def step_logits(self, samples: Tensor) -> Tensor:
        """uint8 [B, T, F, S, S, 3] to logits [B, T, 2]; their mean over T is the pooled logit."""
        return self.head.logits(self.features(samples))

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, T, F, S, S, 3] and lengths [B] to steps [B, T, 2] and pooled [B, 2] probabilities."""
        return self.head(self.features(samples), lengths)  # type: ignore[no-any-return]


def _trunk(config: DetectorConfig) -> nn.Module:
    frames, width = config.crop.frames, config.width
    seen = (config.filters, config.evidence)
    if config.trunk == "resnext50_32x4d":
        return ResNeXt50(frames, config.stem, width, *seen)
    each = config.feature_size // config.members
    members = [NativeTrunk(frames, width, each, *seen) for _ in range(config.members)]
    return members[0] if config.members == 1 else NativeEnsemble(members)


def combine(networks: list[DetectorNetwork]) -> DetectorNetwork:
    """One network whose logits are exactly the mean of those of several native networks.

    Features and states follow each other, the LSTM's weights are block-diagonal, and the linear
    layer takes the mean. All networks share one configuration with one member each. Raises
    ValueError.
    """
    config, k = networks[0].config, len(networks)
    if any(n.config != config for n in networks) or config.trunk != "native" or config.members != 1:
        raise ValueError("only native networks of one configuration, one member each, can be combined")
    grown = {"members": k, "feature_size": k * config.feature_size, "hidden": k * config.hidden}
    whole = DetectorNetwork(config.model_copy(update=grown))
    trunks = [n.trunk for n in networks]
    whole.trunk.load_state_dict((NativeEnsemble(trunks) if k > 1 else trunks[0]).state_dict())
    with torch.no_grad():
        for name, parameter in whole.head.lstm.named_parameters():
            parts = [dict(n.head.lstm.named_parameters())[name].chunk(4) for n in networks]
            parameter.copy_(torch.cat([_joined(gate) for gate in zip(*parts, strict=True)]))
        whole.head.linear.weight.copy_(torch.cat([n.head.linear.weight for n in networks], 1) / k)
        whole.head.linear.bias.copy_(torch.stack([n.head.linear.bias for n in networks]).mean(0))
    return whole.train(networks[0].training)


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    """Vectors one behind the other, matrices on the diagonal."""
    if parts[0].ndim == 1:
        return torch.cat(parts)
    return torch.block_diag(*parts)  # type: ignore[no-untyped-call,no-any-return]
