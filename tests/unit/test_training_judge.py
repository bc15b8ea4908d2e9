"""A network judges where its weights lie."""

import numpy as np
import torch

from pipeline.prepared import Coverage, MediaFacts, PreparedClip, PreparedTrack, Quality
from training.judge import judge
from training.model import DetectorNetwork, native_config

LOOKS, WINDOWS = 8, 9
COUNT = LOOKS * WINDOWS


def clip() -> PreparedClip:
    """A face of eight looks, good enough to be judged."""
    times = np.repeat(np.arange(LOOKS, dtype=np.float32), WINDOWS)
    track = PreparedTrack(
        track=0,
        samples=np.zeros((COUNT, 3, 64, 64, 3), np.uint8),
        start_s=times,
        end_s=times + 0.1,
        boxes=np.array([[k, 0, 0, 160, 160] for k in range(LOOKS)], np.float32),
        quality=Quality(160.0, 200.0, 0.5, 0.1, 1.0),
        bursts=LOOKS,
        frames_used=3 * LOOKS,
        cuts=tuple((k, 0) for k in range(LOOKS)),
    )
    media = MediaFacts("0" * 64, 1, "mp4", "h264", 640, 480, 8.0, 25.0, 200, 24)
    return PreparedClip(media, Coverage(2.4, 0.3, LOOKS, False, None), [track], 1)


def test_samples_go_to_the_device_of_the_weights() -> None:
    """PyTorch's device `meta` computes shapes alone, and refuses tensors of the CPU as a card does."""
    with torch.device("meta"):
        network = DetectorNetwork(
            native_config().model_copy(update={"width": 8, "feature_size": 16, "hidden": 4})
        )
    seen = []

    def scored(_: object, given: tuple[torch.Tensor, ...], answered: tuple[torch.Tensor, ...]) -> object:
        seen.extend((*given, *answered))
        return tuple(torch.full(t.shape, 0.5) for t in answered)

    network.register_forward_hook(scored)
    assert judge(network)(clip()) == 0.5
    assert [t.device.type for t in seen] == ["meta"] * 4
    assert [tuple(t.shape) for t in seen] == [(1, COUNT, 3, 64, 64, 3), (1,), (1, COUNT, 2), (1, 2)]
