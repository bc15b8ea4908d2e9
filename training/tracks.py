"""Which of a clip's faces is learnt from. Without torch, which workers that only cut clips do not load."""

from collections.abc import Sequence

from pipeline.prepared import PreparedTrack


def largest_track(tracks: Sequence[PreparedTrack]) -> PreparedTrack | None:
    """The face with the most and largest crops, by frames times pixels of its side; None without any."""
    return max(tracks, key=lambda t: len(t.samples) * t.quality.size_px, default=None)
