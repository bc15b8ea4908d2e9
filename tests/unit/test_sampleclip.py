"""The sample is a clip with as many faces as were asked for."""

from itertools import pairwise

import av
import numpy as np
import pytest

from pipeline.detect.registry import open_detector
from pipeline.frames import U8
from pipeline.media import Limits
from pipeline.prepare import prepare
from pipeline.sampleclip import write_sample
from pipeline.spec import CropSpec, SamplingSpec


def frames_of(path) -> list[U8]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def test_faces_beside_each_other_are_held_apart(tmp_path):
    clip = prepare(
        write_sample(tmp_path / "s.mp4", seconds=3, size=800, faces=6),
        crop=CropSpec(kind="native", side=112),
        sampling=SamplingSpec(bursts=6, burst_frames=4, detect_every=4),
        detector=open_detector("yunet"),
        limits=Limits(),
    )
    assert [t.track for t in clip.tracks] == list(range(6))
    lefts = [t.boxes[:, 1] for t in clip.tracks]
    assert [len(x) for x in lefts] == [6] * 6
    assert all(a.max() < b.min() for a, b in pairwise(lefts))


@pytest.mark.parametrize("faces", range(1, 7))
def test_the_detector_finds_the_faces(tmp_path, faces):
    frames = frames_of(write_sample(tmp_path / "s.mp4", seconds=0.2, faces=faces))
    assert [len(found) for found in open_detector("yunet").detect([frames[0], frames[-1]])] == [faces, faces]


@pytest.mark.parametrize(("size", "seconds"), [(128, 0.2), (497, 1.0), (1280, 0.4)])
def test_size_and_length_are_as_asked(tmp_path, size, seconds):
    frames = frames_of(write_sample(tmp_path / "s.mp4", seconds=seconds, size=size))
    assert max(frames[0].shape) == size // 2 * 2
    assert len(frames) == round(seconds * 25)


def test_the_same_arguments_film_the_same_pictures(tmp_path):
    a, b = (frames_of(write_sample(tmp_path / f"{n}.mp4", seconds=0.4)) for n in "ab")
    # The encoder is not exact to the bit, but other noise would differ by more than two levels.
    assert max(np.abs(x.astype(int) - y).mean() for x, y in zip(a, b, strict=True)) < 1.2


def test_the_camera_moves_and_films_noise(tmp_path):
    frames = frames_of(write_sample(tmp_path / "s.mp4", seconds=1))
    assert all((a != b).mean() > 0.1 for a, b in pairwise(frames))
    assert np.abs(frames[0].astype(int) - frames[24]).mean() > 5


@pytest.mark.parametrize("faces", [0, 7])
def test_other_numbers_of_faces_are_refused(tmp_path, faces):
    with pytest.raises(ValueError, match="1 to 6"):
        write_sample(tmp_path / "s.mp4", faces=faces)


def test_an_unwritable_place_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_sample(tmp_path / "absent" / "s.mp4")
