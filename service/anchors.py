"""Certificates that the operator trusts for the signatures of C2PA manifests."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.credentials import Trust

if TYPE_CHECKING:
    from service.settings import Settings

LARGEST_BYTES = 4 * 1024 * 1024
"""The C2PA's own lists have some hundred kilobytes."""


def read_anchors(path: Path) -> str:
    """Certificates in PEM. Raises ValueError when the file holds none, or nothing is there to use them."""
    from cryptography import x509  # not loaded without anchors

    try:
        with path.open(encoding="ascii") as file:
            text = file.read(LARGEST_BYTES + 1)
    except (OSError, UnicodeError) as e:
        raise ValueError(f"the certificates can not be read: {e}") from e
    if len(text) > LARGEST_BYTES:
        raise ValueError(f"a file of certificates has {LARGEST_BYTES:,} bytes at most")
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError as e:
        raise ValueError("there is no certificate in PEM in it, or one that can not be read") from e
    if find_spec("c2pa") is None:
        raise ValueError("it needs the package c2pa-python, which is not installed")
    return text


def trust_of(settings: "Settings") -> Trust:
    """What settings say of C2PA manifests. Raises ValueError when a file is not what it was at the start."""
    signers, stamps = settings.c2pa_anchors_file, settings.c2pa_tsa_anchors_file
    return Trust(
        settings.c2pa_check,
        None if signers is None else read_anchors(signers),
        None if stamps is None else read_anchors(stamps),
    )


def anchors_digest(trust: Trust) -> str | None:
    """Digest of the certificates of both kinds in JSON, None without any."""
    if trust.signers is None:
        return None
    return "sha256:" + hashlib.sha256(json.dumps([trust.signers, trust.timestamps]).encode()).hexdigest()
