"""The trunks: what encodes one sample, a crop of one frame or a native window over a burst, as features.

ResNeXt-50 32x4d is the paper's. Fed with a burst, it and the native trunk look at residuals, what
prediction of a pixel from its neighbours leaves, since the traces of a forgery are weaker than any
content (Fridrich & Kodovsky, IEEE TIFS 2012).
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Stem = Literal["imagenet", "fine"]
Filters = Literal["fixed", "constrained"]
Evidence = Literal["space", "space_time"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESNEXT_FEATURES = 2048
LEAST_LEVEL = 0.05


def residuals(luma: Tensor, evidence: Evidence = "space_time") -> Tensor:
    """What prediction from the neighbours leaves of a burst: float [N, F, S, S], 0 to 255, to [N, C, S, S].

    Vertical and horizontal second differences of every second frame; `space_time` puts F - 1 first
    differences in time before them. All are scaled and clipped to +-3, so that detail and noise count
    and content does not (after Fridrich & Kodovsky, IEEE TIFS 2012).
    """
    time, still = _differences(luma)
    vertical = F.pad(2 * still[:, :, 1:-1] - still[:, :, :-2] - still[:, :, 2:], (0, 0, 1, 1))
    horizontal = F.pad(2 * still[..., 1:-1] - still[..., :-2] - still[..., 2:], (1, 1, 0, 0))
    return _scaled(time, torch.cat([vertical, horizontal], 1) / 3, evidence)


def residual_channels(frames: int, evidence: Evidence = "space_time") -> int:
    """C, the residuals of a burst of F frames."""
    still = 2 * ((frames + 1) // 2)
    return still if evidence == "space" else frames - 1 + still


def _scaled(time: Tensor, space: Tensor, evidence: Evidence) -> Tensor:
    """Residuals in time, as differences, and in space, [N, ., S, S], clipped to +-3 alike.

    Those of `space` alone are divided by their own mean size in the window: how strong the grain of a
    camera is says little, how it is shaped says more.
    """
    if evidence == "space":
        level = space.abs().mean((1, 2, 3), keepdim=True) + LEAST_LEVEL
        return (space / (1.5 * level)).clamp(-3, 3)
    return torch.cat([time / 2, space], 1).clamp(-3, 3)


class Residuals(nn.Module):
    """The residuals of a burst, with spatial filters that are fixed or learnt under a constraint.

    `fixed`: `residuals`. `constrained`: the two second differences give way to two learnt 5 x 5
    prediction errors, each with -1 at its centre and neighbours that sum to 1 (Bayar & Stamm,
    IH&MMSec 2016), so that flat content gives zero whatever was learnt. evidence: with or without
    what changes in time.
    """

    def __init__(self, filters: Filters, evidence: Evidence = "space_time") -> None:
        super().__init__()
        self.evidence: Evidence = evidence
        self.weight: nn.Parameter | None = None
        if filters == "constrained":
            self.weight = nn.Parameter(torch.randn(2, 1, 5, 5) / 24)

    def forward(self, samples: Tensor) -> Tensor:
        """uint8 YUV samples [N, F, S, S, C'] to float [N, C, S, S], -3 to 3; reads the luma alone."""
        luma = samples[..., 0].float()
        if self.weight is None:
            return residuals(luma, self.evidence)
        time, still = _differences(luma)
        # Half precision would round the filters away from their constraint.
        with torch.autocast(luma.device.type, enabled=False):
            errors = F.conv2d(still.flatten(0, 1)[:, None], self.kernels(self.weight))
        # Two pixels at the border have no full neighbourhood, and padding first would make an edge of it.
        errors = F.pad(errors, (2, 2, 2, 2)).reshape(len(luma), -1, *luma.shape[2:])
        return _scaled(time, errors, self.evidence)

    @staticmethod
    def kernels(weight: Tensor) -> Tensor:
        """The nearest [2, 1, 5, 5] that meets the constraint; free weights are projected on it."""
        centre = torch.zeros_like(weight)
        centre[..., 2, 2] = 1
        neighbours = weight * (1 - centre)
        excess = (neighbours.sum((2, 3), keepdim=True) - 1) / 24
        return (neighbours - excess) * (1 - centre) - centre


def _differences(luma: Tensor) -> tuple[Tensor, Tensor]:
    """First differences in time [N, F - 1, S, S] and every second frame [N, ceil(F / 2), S, S]."""
    return luma[:, 1:] - luma[:, :-1], luma[:, ::2]


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class NativeTrunk(nn.Module):
    """A small CNN over residuals of native windows; mean and root mean square of its last maps.

    Its first layer has stride 2: what is fine stays in the channels, at a third of the cost.
    """

    def __init__(
        self,
        frames: int,
        width: int,
        feature_size: int,
        filters: Filters = "fixed",
        evidence: Evidence = "space_time",
    ) -> None:
        super().__init__()
        self.residuals = Residuals(filters, evidence)
        self.body = nn.Sequential(
            *_layer(residual_channels(frames, evidence), width, 5, 2),
            *_layer(width, width, 3),
            *_layer(width, feature_size // 2, 3, 2),
        )

    def forward(self, samples: Tensor) -> Tensor:
        """uint8 YUV samples [N, F, S, S, 3] to features float32 [N, D]; reads the luma alone."""
        maps = self.body(self.residuals(samples)).float()
        # The small constant keeps the gradient of the root finite where a map is all zeros.
        rms = (maps.square().mean((2, 3)) + 1e-8).sqrt()
        return torch.cat([maps.mean((2, 3)), rms], 1)


class NativeEnsemble(nn.Module):
    """Several native trunks side by side; their features follow each other.

    Apart rather than as one trunk with grouped convolutions, which is slower, trained or served.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, samples: Tensor) -> Tensor:
        """uint8 YUV samples [N, F, S, S, 3] to features float32 [N, D], D / K of each of K members."""
        return torch.cat([member(samples) for member in self.members], 1)


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
    """ResNeXt-50 32x4d without its classifier, over RGB crops or over residuals of native windows.

    frames: 1 for RGB crops, normalised as ImageNet's here; else the burst's length. stem: `imagenet`
    is torchvision's, 7 x 7 with stride 2 and a max-pooling, and then names and shapes of the state
    equal torchvision's resnext50_32x4d (without `fc`), so that its ImageNet checkpoint loads (with
    frames 1). `fine` skips no pixel: convolutions with stride 1 between two average poolings, `width`
    channels at full resolution. Both hand maps of S / 4 x S / 4 to the first stage, at equal cost.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        frames: int = 1,
        stem: Stem = "imagenet",
        width: int = 24,
        filters: Filters = "fixed",
        evidence: Evidence = "space_time",
    ) -> None:
        super().__init__()
        channels = 3 if frames == 1 else residual_channels(frames, evidence)
        self.residuals = Residuals(filters, evidence) if frames > 1 else None
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.fine: nn.Sequential | None = None
        if stem == "fine":
            self.fine = nn.Sequential(
                *_layer(channels, width, 5),
                *_layer(width, width, 3),
                nn.AvgPool2d(2),
                *_layer(width, 64, 3),
                nn.AvgPool2d(2),
            )
        else:
            self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
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
        """uint8 samples [N, F, S, S, 3], RGB (F = 1) or YUV, to features float32 [N, 2048]."""
        x = self._stem(self._seen(samples))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1).float()

    def _seen(self, samples: Tensor) -> Tensor:
        if self.residuals is not None:
            return self.residuals(samples)  # type: ignore[no-any-return]
        return (samples[:, 0].permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def _stem(self, x: Tensor) -> Tensor:
        if self.fine is not None:
            return self.fine(x)  # type: ignore[no-any-return]
        return F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
