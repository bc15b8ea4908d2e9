"""Which decoders may leave out the pictures that nobody wants."""

from av.video.codeccontext import VideoCodecContext

_ALIKE = frozenset({"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video"})
"""Decoders of libav that leave out pictures to which none refers, and change no other by that.

In VP8 and VP9 also these hand on probabilities and segments to what follows.
"""

_HVCC_LAYERS = 21
"""Byte of an HEVC configuration record with the number of temporal layers (ISO/IEC 14496-15, 8.3.2.1)."""


def may_skip(context: VideoCodecContext) -> bool:
    """Whether a decoder that leaves out pictures without references makes the same of all others."""
    return context.name in _ALIKE and (context.name != "hevc" or _has_one_layer(context.extradata))


def _has_one_layer(record: bytes | None) -> bool:
    """Whether an HEVC stream says that it has a single temporal layer.

    With several, pictures of a higher layer may refer to those that are no reference in their own
    (ITU-T H.265, 7.4.2.2), and which these are is not told from the packets alone.
    """
    return (
        record is not None
        and len(record) > _HVCC_LAYERS
        and record[0] == 1
        and record[_HVCC_LAYERS] >> 3 & 7 == 1
    )
