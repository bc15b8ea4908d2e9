"""The child process that touches strangers' bytes: `python -m service.decoder`.

It reads its configuration and then one job after the other as lines of JSON from standard input,
and writes frames to standard output: one byte of kind, four bytes of length (little endian), content.
It gives up what a decoder does not need before it looks at the first clip (`sandbox`). Nothing that it
sends is ever unpickled, and it is meant to be killed: there is nothing to clean up.
"""

import json
import os
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import cv2
import numpy as np

from pipeline.credentials import Credentials, Trust, credentials_of, library_places
from pipeline.decode import open_clip
from pipeline.detect import FaceDetector
from pipeline.detect.registry import open_detector
from pipeline.errors import FaceModelError, MediaError, UndecodableMedia
from pipeline.frames import U8
from pipeline.media import Limits
from pipeline.prepare import Preparation
from pipeline.prepared import Outline
from pipeline.spec import CropSpec, SamplingSpec
from service.checker import CHECK_CPU_S
from service.sandbox import allow_cpu, restrict, tie_to_parent

READY, TAKEN, LOOKED, OUTLINED, PREPARED, REFUSED, FAILED = b"R", b"T", b"L", b"O", b"P", b"E", b"F"
CHECKED = b"C"
"""Kinds of frames: started, with its Confinement; job received; the samples of a look; an Outline of what was
seen so far; the last one; a MediaError as JSON; unforeseen, as text; behind the last outline of a clip that
carries a manifest, its Credentials as JSON."""

HEADER = struct.Struct("<cI")
LOOK = struct.Struct("<7I")
"""Before the samples of a look: its number and their shape [K, n, F, S, S, 3]."""
OUTLINE_EVERY_S = 0.1


def main() -> int:
    """Serve jobs until standard input ends."""
    jobs = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    _silence(sys.stdout, nowhere)  # what a library prints must not look like an answer
    config = json.loads(jobs.readline())
    if not tie_to_parent(config["parent"]):
        return 1
    try:
        detector = _open_detector(config)
    except FaceModelError as e:
        _send(answers, FAILED, str(e).encode())
        return 1
    confinement = restrict(
        config["memory_bytes"], Path(config["scratch"]), config["sandbox"], also=library_places()
    )
    _silence(sys.stderr, nowhere)  # a decoder's complaints are of no use, and may tell of the clip
    _send(answers, READY, confinement.to_bytes())
    limits, trust = Limits(**config["limits"]), Trust(**config["trust"])
    for line in jobs:
        _send(answers, TAKEN, b"")  # from here on, a crash is the clip's fault
        job = json.loads(line)
        if job["cpu_s"] is not None:
            allow_cpu(job["cpu_s"])
        for kind, content in _answer(job, detector, limits, trust, answers):
            _send(answers, kind, content)
    return 0


def look_at(job: dict[str, Any], detector: FaceDetector, limits: Limits, answers: BinaryIO) -> Outline:
    """Send the samples of each look as soon as they are cut, and, where the job asks for them, outlines of
    what was seen so far; return the last one. Raises MediaError."""
    path = Path(job["path"])
    with open_clip(path, limits, threads=job["threads"]) as clip:
        preparation = Preparation(
            path,
            clip,
            CropSpec.model_validate(job["crop"]),
            SamplingSpec.model_validate(job["sampling"]),
            detector,
            max_faces=job["max_faces"],
            budget_s=job["budget_s"],
            sha256=job["sha256"],
        )
        told = 0.0
        for look in preparation.looks():
            if look.samples:
                samples = np.stack(look.samples)
                _send(answers, LOOKED, LOOK.pack(look.number, *samples.shape[:5], 3), samples)
            if job["outlines"] and time.monotonic() - told >= OUTLINE_EVERY_S:
                _send(answers, OUTLINED, preparation.outline().to_bytes())
                told = time.monotonic()
        return preparation.outline()


def _answer(
    job: dict[str, Any], detector: FaceDetector, limits: Limits, trust: Trust, answers: BinaryIO
) -> Iterator[tuple[bytes, bytes]]:
    """Frames that end a job. What a manifest does to its reader comes last, so that it costs no verdict."""
    try:
        outline = look_at(job, detector, limits, answers)
        prepared = outline.to_bytes()
    except MediaError as e:
        yield REFUSED, _refusal(e)
    except MemoryError:
        yield REFUSED, _refusal(UndecodableMedia("decoding the clip needs more memory than is allowed"))
    except Exception:  # a clip may bring any library below to its knees; the parent logs it
        yield FAILED, traceback.format_exc().encode()
    else:
        yield PREPARED, prepared
        if outline.media.c2pa == "present":
            yield CHECKED, _checked(job, outline, trust).model_dump_json().encode()


def _checked(job: dict[str, Any], outline: Outline, trust: Trust) -> Credentials:
    if outline.coverage.expired:
        return Credentials(unchecked="deadline")
    allow_cpu(CHECK_CPU_S)
    return credentials_of(Path(job["path"]), outline.media.container, trust)


def _refusal(error: MediaError) -> bytes:
    return json.dumps({"error": type(error).__name__, "detail": str(error)}).encode()


def _send(answers: BinaryIO, kind: bytes, content: bytes, samples: U8 | None = None) -> None:
    answers.write(HEADER.pack(kind, len(content) + (0 if samples is None else samples.nbytes)))
    answers.write(content)
    if samples is not None:
        answers.write(samples.data)
    answers.flush()


def _silence(stream: TextIO, nowhere: int) -> None:
    os.dup2(nowhere, stream.fileno())


def _open_detector(config: dict[str, Any]) -> FaceDetector:
    """The configured detector after one run, so that the memory of an idle decoder is known."""
    cv2.setNumThreads(1)  # clips are decoded side by side, each on one core
    model = Path(config["face_model"]) if config["face_model"] else None
    detector = open_detector(
        config["face_detector"], model, accept_license=config["accept_license"], threads=1
    )
    detector.detect([np.zeros((360, 640, 3), np.uint8)])
    return detector


if __name__ == "__main__":
    sys.exit(main())
