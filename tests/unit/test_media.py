"""What is taken for media, told from the first bytes."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import PictureTooLarge, PictureTooSmall, UnsupportedMedia
from pipeline.media import HEAD_BYTES, NAMES, Limits, sniff, sniff_file
from tests.media import HTML, TEXT, animation, pattern, still, write_clip, zip_archive

CLIPS = {
    "a.mp4": ("libx264", "mov"),
    "a.mov": ("libx264", "mov"),
    "a.3gp": ("libx264", "mov"),
    "a.mkv": ("libx264", "matroska"),
    "a.webm": ("libvpx-vp9", "matroska"),
    "a.avi": ("mpeg4", "avi"),
    "a.ts": ("libx264", "mpegts"),
    "a.mpg": ("mpeg2video", "mpeg"),
    "a.flv": ("libx264", "flv"),
}
PICTURES = {"a.jpg": "jpeg_pipe", "a.png": "png_pipe", "a.bmp": "bmp_pipe", "a.webp": "webp_pipe"}
ANIMATIONS = {"a.gif": "gif", "a.png": "apng", "a.webp": "webp"}


@pytest.mark.parametrize("name", CLIPS)
def test_clips_by_their_first_bytes_not_their_names(tmp_path, name):
    codec, demuxer = CLIPS[name]
    made = write_clip(tmp_path / name, pattern(3), codec=codec)
    assert sniff_file(made.rename(tmp_path / "clip.txt")) == demuxer


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(tmp_path, name):
    assert sniff_file(still(tmp_path / name, pattern(1)[0])) == PICTURES[name]


@pytest.mark.parametrize("name", ANIMATIONS)
def test_animations(tmp_path, name):
    assert sniff_file(animation(tmp_path / name, pattern(3))) == ANIMATIONS[name]


def test_a_gif_of_one_frame_is_a_gif(tmp_path):
    assert sniff_file(still(tmp_path / "a.gif", pattern(1)[0])) == "gif"


def test_a_transport_stream_with_time_codes():
    packet = b"\x00\x01\x02\x03" + b"\x47" + bytes(187)
    assert sniff(packet * 4) == "mpegts"


def test_one_sync_byte_is_no_transport_stream():
    with pytest.raises(UnsupportedMedia):
        sniff(b"G" + bytes(400))


REFUSED = [
    (b"", "empty"),
    (TEXT, "text"),
    ("größer als Text\n".encode() * 300, "text"),
    (HTML, "HTML"),
    (b"\xef\xbb\xbf\n <HTML>", "HTML"),
    (zip_archive(), "ZIP"),
    (b"\x1f\x8b\x08" + bytes(50), "gzip"),
    (b"%PDF-1.7\n", "PDF"),
    (b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1/a.ts\n", "HLS playlist"),
    (b"ffconcat version 1.0\nfile /etc/hostname\n", "concat script"),
    (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "SDP"),
    (b'<?xml version="1.0"?><MPD></MPD>', "XML"),
    (b"<MPD></MPD>", "XML"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "XML"),
    (b'{"a": 1}', "JSON"),
    (b"frame%03d.png", "text"),
    (b"RIFF\x24\x00\x00\x00WAVEfmt ", "WAV"),
    (b"ID3\x04" + bytes(30), "MP3"),
    (b"\x00\x00\x00\x1cftypheic" + bytes(30), "HEIF"),
    (b"\x00\x00\x00\x1cftypavif" + bytes(30), "AVIF"),
    (b"\x7fELF\x02", "executable"),
    (bytes(range(128, 256)), "no known format"),
]


@pytest.mark.parametrize(("head", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_the_refusal_says_what_the_bytes_look_like(head, words):
    with pytest.raises(UnsupportedMedia, match=words):
        sniff(head)


def test_a_character_cut_in_two_is_still_text():
    head = ("ä" * 3000).encode()[:4095]
    with pytest.raises(UnsupportedMedia, match="text"):
        sniff(head)


@given(st.binary(max_size=400))
@example(b"RIFF")
@example(b"\x89PNG\r\n\x1a\n")
@example(b"RIFF\x00\x00\x00\x00WEBPVP8X")
def test_any_bytes_are_a_known_demuxer_or_refused(head):
    try:
        assert sniff(head) in NAMES
    except UnsupportedMedia as e:
        assert str(e)  # noqa: PT017


@given(st.text(string.printable, min_size=1, max_size=300))
def test_text_never_reaches_a_demuxer(words):
    with pytest.raises(UnsupportedMedia):
        sniff(words.encode())


def test_only_the_beginning_is_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"text " * HEAD_BYTES)
    with pytest.raises(UnsupportedMedia, match="text"):
        sniff_file(path)


@pytest.mark.parametrize(
    ("size", "error"),
    [
        ((16000, 16000), PictureTooLarge),
        ((36_000_001, 1), PictureTooLarge),
        ((1, 1), PictureTooSmall),
        ((4000, 15), PictureTooSmall),
    ],
)
def test_sizes_outside_of_the_limits(size, error):
    with pytest.raises(error, match=f"{size[0]}x{size[1]}"):
        Limits().check_size(*size)


@pytest.mark.parametrize("size", [(16, 16), (6000, 6000), (7680, 4320)])
def test_sizes_inside_of_the_limits(size):
    Limits().check_size(*size)


def test_limits_of_length_say_which_was_reached():
    limits = Limits(max_duration_s=10, max_frames=100)
    assert limits.reached(99, 9.9) is None
    assert "100 frames" in (limits.reached(100, 1.0) or "")
    assert "10 s" in (limits.reached(5, 10.0) or "")
