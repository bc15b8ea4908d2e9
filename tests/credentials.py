"""Files with C2PA manifests, signed by the library's own signer under certificates made on the spot."""

import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from tests.media import face_clip, still

KINDS = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".mp4": "video/mp4"}
CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


class Authority:
    """An authority of its own and one signer that it vouches for. root: its organisation; pem: its
    certificate; ocsp: where the signer's says that its state can be asked for."""

    def __init__(
        self,
        signer: str = "Camera 7",
        organisation: str = "Example News",
        root: str = "Example Authority",
        ocsp: str | None = None,
    ) -> None:
        key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        name = _name("root", root)
        roots = _certificate(name, key, name, key, authority=True)
        signers = _certificate(_name(signer, organisation), own, name, key, authority=False, ocsp=ocsp)
        self.pem = roots.public_bytes(Encoding.PEM).decode()
        self._chain = signers.public_bytes(Encoding.PEM)
        self._key = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def signed(self, source: Path, to: Path, *, remote: str | None = None, **manifest: Any) -> Path:
        """A copy of a picture or clip with a manifest; remote: an address to name instead of carrying it."""
        definition = {
            "claim_generator_info": [{"name": "test", "version": "1"}],
            "assertions": [
                {
                    "label": "c2pa.actions",
                    "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": CAPTURE}]},
                }
            ],
        } | manifest
        info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=self._chain, private_key=self._key, ta_url=b"")
        info.ta_url = None
        settings = {"verify": {"verify_after_sign": False}, "builder": {"thumbnail": {"enabled": False}}}
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(json.dumps(definition), context=context) as builder,
            source.open("rb") as before,
            to.open("w+b") as after,
        ):
            if remote is not None:
                builder.set_no_embed()
                builder.set_remote_url(remote)
            builder.sign(signer, KINDS[to.suffix], before, after)
        return to


def plain_file(path: Path) -> Path:
    """A picture or clip without a manifest, of the kind that the suffix says."""
    if path.suffix == ".mp4":
        return face_clip(path, seconds=0.4)
    return still(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))


def changed(path: Path, at: int) -> Path:
    """The same file with one bit of one byte turned over."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    return path


def within_the_media(path: Path) -> int:
    """Where a byte of the picture lies: in an MP4 in the middle of its frames, in a WebP behind
    their header, else near the end."""
    content = path.read_bytes()
    at = content.find(b"mdat")
    if path.suffix == ".webp":  # which has its manifest at the end
        return content.find(b"VP8") + 200
    if path.suffix != ".mp4":
        return len(content) - 40
    (size,) = struct.unpack_from(">I", content, at - 4)
    return at + int(size) // 2


def _name(common: str, organisation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuers_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
    ocsp: str | None = None,
) -> x509.Certificate:
    """In the profile that C2PA asks for: what a key may be used for is said, and critical."""
    now = datetime.now(UTC)
    uses = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    usage = x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **uses
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuers_key.public_key()), critical=False
        )
    )
    if not authority:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
    if ocsp is not None:
        at = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp))
        builder = builder.add_extension(x509.AuthorityInformationAccess([at]), critical=False)
    return builder.sign(issuers_key, hashes.SHA256())
