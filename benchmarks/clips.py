"""The clips that are measured: one film, scaled, shortened and repeated."""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.filter import Graph

from pipeline.sampleclip import FRAME_RATE, write_sample

FILM_S = 10
WIDTH, HEIGHT = 1280, 720
ENCODER = {"crf": "18", "preset": "veryfast"}
"""x264 with its own distance between key frames, which is these 10 s: the dearest that is common."""


class Clips:
    """Makes clips into a folder, each once. All show the same film of one face, 16:9, 25 frames a second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clip(self, seconds: int = FILM_S, height: int = HEIGHT) -> Path:
        """The film in that height: its beginning, or over and over for more than its 10 s."""
        path = self._folder / f"{height}p-{seconds}s.mp4"
        if not path.exists():
            if seconds > FILM_S:
                _repeat(self.clip(FILM_S, height), path, seconds // FILM_S)
            else:
                _film(self._master(), path, seconds, height)
        return path

    def _master(self) -> Path:
        path = self._folder / "master.mp4"
        return path if path.exists() else write_sample(path, seconds=FILM_S, size=WIDTH)


def _film(source: Path, target: Path, seconds: int, height: int) -> None:
    """The upper 16:9 of the first seconds of a film, scaled to a height, and to an even width."""
    width = height * WIDTH // HEIGHT // 2 * 2
    with av.open(str(source)) as film, av.open(str(target), "w", format="mp4") as made:
        graph = Graph()
        steps = [
            graph.add_buffer(template=film.streams.video[0]),
            graph.add("crop", f"{WIDTH}:{HEIGHT}:0:0"),
            graph.add("scale", f"{width}:{height}:flags=bicubic"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*steps).configure()
        stream = made.add_stream("libx264", rate=FRAME_RATE, options=ENCODER)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k, picture in enumerate(islice(film.decode(video=0), seconds * FRAME_RATE)):
            graph.vpush(picture)
            frame = graph.vpull()
            frame.pts, frame.time_base = k, Fraction(1, FRAME_RATE)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))


def _repeat(source: Path, target: Path, times: int) -> None:
    """The packets of a clip `times` times in a row; nothing is encoded anew."""
    with av.open(str(source)) as clip, av.open(str(target), "w", format="mp4") as made:
        video = clip.streams.video[0]
        stream = made.add_stream_from_template(video)
        assert video.time_base is not None  # noqa: S101 - every MP4 has one
        length = round(video.frames / Fraction(FRAME_RATE) / video.time_base)
        for k in range(times):
            clip.seek(0)
            for packet in clip.demux(video):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.dts, packet.pts = packet.dts + k * length, packet.pts + k * length
                packet.stream = stream
                made.mux(packet)
