"""Whether a C2PA manifest is valid, and who signed it, as the C2PA project's own library finds.

The library is native code that parses strangers' bytes. It is loaded for the first file that carries a
manifest, so that others cost nothing, and the service calls it in a decoder process alone. It reads the file
and nothing else: manifests that lie elsewhere, states of certificates and identities are not asked for.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.c2pa import parts_of

Unchecked = Literal[
    "not_asked", "crops", "no_library", "too_large", "too_many_parts", "deadline", "timeout", "failed"
]
"""Why a manifest was not looked into: nobody asked; the client had cut the faces, so that there is no file;
the library is not installed; the manifest has more than MOST_BYTES, or the file more parts than
pipeline.c2pa reads; the client's deadline came first; it took too long; the library fails on the file."""

MOST_BYTES = 16 * 1024 * 1024
"""Manifests with pictures of all that a file was made of have a few megabytes."""
LONGEST_TEXT = 100
MOST_CODES = 8
UNREADABLE = "unreadable"
"""The one code that is not of the C2PA specification: what stands there can not be read as a manifest."""

_CODE = re.compile(r"[A-Za-z0-9._]{1,64}")
_SOURCE = re.compile(r"https?://cv\.iptc\.org/newscodes/digitalsourcetype/([A-Za-z]{1,40})")
_UNTRUSTED = "signingCredential.untrusted"
_NO_MANIFEST = (
    *("Assertion", "AssertionNotFound", "Decoding", "Json", "Manifest", "ManifestNotFound"),
    *("Signature", "Verify"),
)
"""The library's errors that are about the manifest; others are about the file around it, or its own."""
_KINDS = {
    "mp4": "video/mp4",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "apng": "image/png",
    "avi": "video/avi",
    "webp": "image/webp",
}
_LIBRARY = "C2PA_LIBRARY_NAME"
_OFFLINE: dict[str, dict[str, Any]] = {
    "core": {
        "allowed_network_hosts": [],
        "allow_redirects": False,
        "decode_identity_assertions": False,
        "max_decompressed_manifest_size_in_mb": MOST_BYTES // 2**20,
    },
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
"""What keeps the library from the network, each on its own: an identity may name a web address too."""


def plain(text: str) -> str:
    """A stranger's text in one line without what can not be seen or turns the direction of writing."""
    seen = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(seen.split())[:LONGEST_TEXT].strip()


def _is_plain(text: str) -> str:
    if not text or text != plain(text):
        raise ValueError("text that was not made plain")
    return text


def _is_code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise ValueError("no code")
    return text


Text = Annotated[str, AfterValidator(_is_plain)]
Codes = Annotated[tuple[Annotated[str, AfterValidator(_is_code)], ...], Field(max_length=MOST_CODES)]


class Credentials(BaseModel):
    """What a manifest turned out to be.

    valid: it is well-formed, its signature holds, and the media are those that were signed, by whomever (in
    an MP4 neither padding nor the box of its type is covered); None where `unchecked` says why it was not
    looked into. trusted: the signer's certificate leads to an anchor; None where there are no anchors,
    nothing valid to trust, or the library fails on that question. signer, generator: who and what made it by
    its own account. sources: kinds of origin that it names, of IPTC's list. codes: what failed, as the C2PA
    specification names it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    valid: bool | None = None
    trusted: bool | None = None
    signer: Text | None = None
    generator: Text | None = None
    sources: Codes = ()
    codes: Codes = ()
    unchecked: Unchecked | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.valid is None) != (self.unchecked is not None) or (self.trusted and not self.valid):
            raise ValueError("what was not looked into has a reason, and what is trusted is valid")
        return self


NOT_ASKED = Credentials(unchecked="not_asked")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether manifests are looked into, and certificates in PEM: of whom signers' have to come, and of whom
    those of time stamps."""

    check: bool = True
    signers: str | None = None
    timestamps: str | None = None


def credentials_of(path: Path, container: str, trust: Trust) -> Credentials:
    """What the manifest of the file at `path` turns out to be; `container` as answers name it.

    The whole file is read and hashed, up to three times where there are anchors. Whatever fails is told, not
    raised; native code that crashes or hangs is the caller's to bear.
    """
    if not trust.check:
        return NOT_ASKED
    parts = parts_of(path, container)
    if parts is not None and not parts.whole:  # the library's time grows with the square of their number
        return Credentials(unchecked="too_many_parts")
    if parts is not None and parts.manifest_bytes > MOST_BYTES:
        return Credentials(unchecked="too_large")
    try:
        library = _library()
    except (ImportError, OSError, RuntimeError):
        return Credentials(unchecked="no_library")
    try:
        return _checked(library, path, _KINDS[container], trust)
    except Exception:  # what a stranger's manifest does to the library, or to the parser of what it says
        return Credentials(unchecked="failed")


def _checked(library: Any, path: Path, kind: str, trust: Trust) -> Credentials:
    """The first reading asks of the file alone, so that `valid` is the same with all anchors; stamps of time
    count as they stand. Further ones ask of whom the certificates come."""
    try:
        report = _read(library, path, kind, {"verify_trust": False, "verify_timestamp_trust": False}, [])
    except tuple(getattr(library.C2paError, name) for name in _NO_MANIFEST):
        return Credentials(valid=False, codes=(UNREADABLE,))
    valid, trusted, codes = report.get("validation_state") == "Valid", None, _failures(report)
    if valid and trust.signers is not None:
        with suppress(library.C2paError):  # it was read once, and is what it was found to be
            codes = _distrust(library, path, kind, trust.signers, trust.timestamps)
            trusted = not codes
    manifest = _part(_part(report, "manifests"), str(report.get("active_manifest")))
    return Credentials(
        valid=valid,
        trusted=trusted,
        signer=_signer(manifest),
        generator=_generator(manifest),
        sources=tuple(_sources(manifest))[:MOST_CODES],
        codes=tuple(codes)[:MOST_CODES],
    )


def _distrust(library: Any, path: Path, kind: str, signers: str, timestamps: str | None) -> list[str]:
    """Why a valid manifest's signer is not trusted, nothing where he is.

    The library lets anchors of either kind vouch for either. Those for stamps, which are often authorities
    that certify everybody, must not vouch for signers: these have to pass without them first.
    """
    own = {"trust_kind": "manifest", "trust_anchors": signers}
    readings = [({"verify_trust": True, "verify_timestamp_trust": timestamps is None}, [own])]
    if timestamps is not None:
        stamps = {"trust_kind": "tsa", "trust_anchors": timestamps}
        readings.append(({"verify_trust": True, "verify_timestamp_trust": True}, [own, stamps]))
    for verify, anchors in readings:
        report = _read(library, path, kind, verify, anchors)
        if report.get("validation_state") != "Trusted":
            return _failures(report) or [_UNTRUSTED]
    return []


def _read(
    library: Any, path: Path, kind: str, verify: dict[str, bool], anchors: list[dict[str, str]]
) -> dict[str, Any]:
    """The library's report of a file. Raises its C2paError."""
    settings: dict[str, Any] = {**_OFFLINE, "verify": _OFFLINE["verify"] | verify}
    if anchors:
        settings["trust"] = {"anchors": anchors}
    with (
        library.Context.from_dict(settings) as context,
        path.open("rb") as file,
        library.Reader(kind, file, context=context) as reader,
    ):
        report: dict[str, Any] = json.loads(reader.json())
        return report


def _failures(report: dict[str, Any]) -> list[str]:
    """Codes of what failed, in the manifest itself and in those of what the file was made of, each once."""
    results = _part(report, "validation_results")
    parts = [_part(results, "activeManifest")]
    parts += [_part(ingredient, "validationDeltas") for ingredient in _each(results, "ingredientDeltas")]
    codes = (status.get("code") for part in parts for status in _each(part, "failure"))
    return list(dict.fromkeys(code for code in codes if isinstance(code, str) and _CODE.fullmatch(code)))


def _signer(manifest: dict[str, Any]) -> str | None:
    """Name and organisation in the signer's certificate."""
    said = _part(manifest, "signature_info")
    names = (said.get("common_name"), said.get("issuer"))
    return plain(", ".join(name for name in names if isinstance(name, str))) or None


def _generator(manifest: dict[str, Any]) -> str | None:
    """Name and version of the program that made the claim."""
    for said in _each(manifest, "claim_generator_info"):
        words = (said.get("name"), said.get("version"))
        return plain(" ".join(word for word in words if isinstance(word, str))) or None
    old = manifest.get("claim_generator")
    return plain(old) or None if isinstance(old, str) else None


def _sources(manifest: dict[str, Any]) -> Iterator[str]:
    """Kinds of origin that actions of the manifest name, each once."""
    told = set()
    for assertion in _each(manifest, "assertions"):
        if str(assertion.get("label")).startswith("c2pa.actions"):
            for action in _each(_part(assertion, "data"), "actions"):
                found = _SOURCE.fullmatch(str(action.get("digitalSourceType")))
                if found and found[1] not in told:
                    told.add(found[1])
                    yield found[1]


def _part(whole: dict[str, Any], name: str) -> dict[str, Any]:
    """An object within another; an empty one for what is none, since strangers choose what is in it."""
    part = whole.get(name)
    return part if isinstance(part, dict) else {}


def _each(whole: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a list within an object."""
    parts = whole.get(name)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def library_places() -> list[Path]:
    """Directories of the library, which it is not loaded for; none where it is not installed."""
    spec = find_spec("c2pa")
    return [Path(place) for place in (spec and spec.submodule_search_locations) or []]


@cache
def _library() -> Any:
    """The package `c2pa` with the native library that it brings. Raises ImportError, OSError or RuntimeError.

    By itself it would take one from the working directory, where a stranger's may lie beside his clips.
    """
    brought = (file for place in library_places() for file in (place / "libs").iterdir())
    native = next((f for f in brought if f.suffix in {".so", ".dylib", ".dll"}), None)
    if native is None:
        raise ImportError("c2pa-python is not installed")
    before = os.environ.get(_LIBRARY)
    os.environ[_LIBRARY] = str(native.resolve())
    try:
        return import_module("c2pa")
    finally:
        os.environ.pop(_LIBRARY)
        if before is not None:
            os.environ[_LIBRARY] = before
