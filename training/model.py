"""The detector network: a trunk that encodes samples, an LSTM over the sequence of their features.

Two networks come from this one definition. The paper's own (likith-2023): ResNeXt-50 32x4d without its
classifier, adaptive average pooling, 2048 features, LSTM 2048 -> 2048, ReLU, dropout 0.4, linear to
two, softmax. And the compact one, which puts a small CNN over residuals of native windows in the
place of the trunk.

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

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESNEXT_FEATURES = 2048


class DetectorConfig(BaseModel):
    """What a network is and what it is fed. Unknown keys are errors.

    feature_size: D, the trunk's output; hidden: the LSTM's state; dropout: between LSTM and linear;
    width: channels of the first convolutions of the native trunk (unused by the ResNeXt).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trunk: Literal["resnext50_32x4d", "native"]
    crop: CropSpec
    sampling: SamplingSpec
    feature_size: int = Field(ge=2)
    hidden: int = Field(ge=1)
    dropout: float = Field(default=0.4, ge=0, lt=1)
    width: int = Field(default=24, ge=1)

    @model_validator(mode="after")
    def consistent(self) -> "DetectorConfig":
        """Each trunk reads one kind of crop, and the ResNeXt has 2048 features."""
        if self.trunk == "resnext50_32x4d":
            if self.crop.colour != "rgb" or self.crop.frames != 1 or self.feature_size != RESNEXT_FEATURES:
                raise ValueError("resnext50_32x4d takes rgb crops of one frame and gives 2048 features")
        elif self.crop.colour != "yuv" or self.crop.frames < 2 or self.feature_size % 2:
            raise ValueError(
                "the native trunk takes yuv bursts of two frames or more and gives an even feature size"
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
    """The compact network's default: bursts of four frames, nine 64 x 64 windows a burst."""
    return DetectorConfig(
        trunk="native",
        crop=CropSpec(kind="native", side=64, frames=4, colour="yuv", margin=0.8, grid=3),
        sampling=SamplingSpec(bursts=8, burst_frames=4),
        feature_size=64,
        hidden=64,
    )


class Bottleneck(nn.Module):
    """Grouped residual bottleneck (Xie et al., CVPR 2017). Submodules carry torchvision's names."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, groups: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(y + skip)


class ResNeXt50(nn.Module):
    """ResNeXt-50 32x4d without its classifier, ImageNet normalisation included.

    Names and shapes of its state equal torchvision's resnext50_32x4d (without `fc`), so that its
    ImageNet checkpoint loads.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(64, 128, 256, blocks=3, stride=1)
        self.layer2 = self._stage(256, 256, 512, blocks=4, stride=2)
        self.layer3 = self._stage(512, 512, 1024, blocks=6, stride=2)
        self.layer4 = self._stage(1024, 1024, RESNEXT_FEATURES, blocks=3, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, width: int, outputs: int, *, blocks: int, stride: int) -> nn.Sequential:
        first = Bottleneck(inputs, width, outputs, stride)
        return nn.Sequential(first, *(Bottleneck(outputs, width, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, samples: Tensor) -> Tensor:
        """uint8 RGB samples [N, 1, S, S, 3] to features float32 [N, 2048]."""
        x = samples[:, 0].permute(0, 3, 1, 2).float() / 255
        x = (x - self.mean) / self.std
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


def residuals(luma: Tensor) -> Tensor:
    """What prediction from the neighbours leaves of a burst: float [N, F, S, S], 0 to 255, to [N, C, S, S].

    F - 1 first differences in time, then vertical and horizontal second differences of every second
    frame. Each is scaled and clipped to +-3, so that detail and noise count and content does not
    (after Fridrich & Kodovsky, IEEE TIFS 2012).
    """
    time = luma[:, 1:] - luma[:, :-1]
    still = luma[:, ::2]
    vertical = F.pad(2 * still[:, :, 1:-1] - still[:, :, :-2] - still[:, :, 2:], (0, 0, 1, 1))
    horizontal = F.pad(2 * still[..., 1:-1] - still[..., :-2] - still[..., 2:], (1, 1, 0, 0))
    return torch.cat([time / 2, vertical / 3, horizontal / 3], 1).clamp(-3, 3)


class NativeTrunk(nn.Module):
    """A small CNN over residuals of native windows; mean and root mean square of its last maps."""

    def __init__(self, frames: int, width: int, feature_size: int) -> None:
        super().__init__()
        channels = frames - 1 + 2 * ((frames + 1) // 2)
        self.body = nn.Sequential(
            *self._layer(channels, width, 5),
            *self._layer(width, width, 3),
            nn.AvgPool2d(2),
            *self._layer(width, feature_size // 2, 3),
        )

    @staticmethod
    def _layer(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    def forward(self, samples: Tensor) -> Tensor:
        """uint8 YUV samples [N, F, S, S, 3] to features float32 [N, D]; reads the luma alone."""
        maps = self.body(residuals(samples[..., 0].float())).float()
        # The small constant keeps the gradient of the root finite where a map is all zeros.
        rms = (maps.square().mean((2, 3)) + 1e-8).sqrt()
        return torch.cat([maps.mean((2, 3)), rms], 1)


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
        self.trunk: nn.Module = (
            ResNeXt50()
            if config.trunk == "resnext50_32x4d"
            else NativeTrunk(config.crop.frames, config.width, config.feature_size)
        )
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
