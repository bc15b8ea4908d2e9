"""The common way of the paper's public ancestor, for its cost: `python -m benchmarks.ancestor CLIP FRAMES`.

From the start of the clip every frame is decoded to RGB and searched for a face by dlib's HOG
detector with one upsampling, until FRAMES faces were found; PyTorch then runs ResNeXt-50 and the LSTM
over the 112 x 112 crops, anew for each request. The network is that of the paper from
`training.model` with random weights, which cost as much as any. Prints JSON.
"""

import json
import sys
import time
from pathlib import Path

import av
import cv2
import dlib
import numpy as np
import torch
from numpy.typing import NDArray

from training.model import DetectorNetwork, paper_config

SIDE = 112
UPSAMPLING = 1


def main(clip: str, wanted: str) -> None:
    """Judge one clip and say what it took. The network is made beforehand and not counted."""
    torch.manual_seed(0)
    network = DetectorNetwork(paper_config()).eval()
    find = dlib.get_frontal_face_detector()
    wall, cpu = time.perf_counter(), time.process_time()
    crops, frames = faces(Path(clip), int(wanted), find)
    found = time.process_time()
    if crops:
        with torch.inference_mode():
            network(torch.from_numpy(np.stack(crops)[None, :, None]), torch.tensor([len(crops)]))
    ended = time.process_time()
    facts = {
        "frames": frames,
        "faces": len(crops),
        "cpu_s": ended - cpu,
        "wall_s": time.perf_counter() - wall,
        "decode_detect_cpu_s": found - cpu,
        "network_cpu_s": ended - found,
        "threads": torch.get_num_threads(),
        "dlib": dlib.__version__,
        "torch": torch.__version__,
    }
    sys.stdout.write(json.dumps(facts) + "\n")


def faces(clip: Path, wanted: int, find: "dlib.fhog_object_detector") -> tuple[list[NDArray[np.uint8]], int]:
    """Crops of the first face of each frame, uint8 RGB [112, 112, 3], and how many frames were read."""
    crops: list[NDArray[np.uint8]] = []
    frames = 0
    with av.open(str(clip)) as container:
        for picture in container.decode(video=0):
            frames += 1
            rgb = picture.to_ndarray(format="rgb24")
            for box in list(find(rgb, UPSAMPLING))[:1]:
                part = rgb[max(box.top(), 0) : box.bottom(), max(box.left(), 0) : box.right()]
                crops.append(np.asarray(cv2.resize(part, (SIDE, SIDE)), np.uint8))
            if len(crops) >= wanted:
                break
    return crops, frames


if __name__ == "__main__":
    main(*sys.argv[1:])
