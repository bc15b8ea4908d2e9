"""Keys that sign receipts and keys that prove them: Ed25519 (RFC 8037), in PEM or as JWK (RFC 7517).

What is wrong with keys is told without quoting them.
"""

import json
import re
import warnings
from pathlib import Path
from typing import Any

from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import OKPKey

from service.keyset import PublicKey

ALGORITHM = "EdDSA"
"""With Ed25519, which a key of this curve says. RFC 9864 has a name for the two in one, which many libraries
that are to check receipts do not know yet."""
OTHERS = 0o007
"""Rights of everybody in a file's mode."""
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)

warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)


class SigningKeysError(ValueError):
    """Keys can not be read or used. The message is one line that goes on from the name of their file."""


def make_key() -> tuple[str, str]:
    """A new private key in PEM, and its id."""
    key = OKPKey.generate_key("Ed25519")
    return key.as_pem(private=True).decode(), key.thumbprint()


def read_signing_keys(path: Path) -> tuple[OKPKey, ...]:
    """The keys in a file that others can not read.

    The first one is private and signs; of the others, which have signed or will, the public part is enough.
    Raises SigningKeysError.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise SigningKeysError(f"can not be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise SigningKeysError("is not text in UTF-8") from None
    if mode & OTHERS:
        raise SigningKeysError(f"is open to everybody (mode {mode & 0o777:o}); chmod 600 or 440 closes it")
    keys = read_keys(text)
    if not keys[0].is_private:
        raise SigningKeysError("begins with a key that has no private part, so that it can not sign")
    return keys


def read_keys(text: str) -> tuple[OKPKey, ...]:
    """All Ed25519 keys of PEM blocks, of a JWK or of a JWK Set, whose other keys are passed over.

    Raises SigningKeysError when there is none, or anything else in PEM.
    """
    parts = [match[0] for match in _PEM.finditer(text)] or _jwks(text)
    keys = [key for part in parts if (key := _key(part)) is not None]
    if not keys:
        raise SigningKeysError("holds no Ed25519 key, neither in PEM nor as a JWK")
    return tuple(keys)


def public_part(key: OKPKey) -> PublicKey:
    """What may be published of a key."""
    return PublicKey(x=str(key.as_dict(private=False)["x"]), kid=key.thumbprint())


def _jwks(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    listed = found.get("keys", [found]) if isinstance(found, dict) else []
    return [jwk for jwk in listed if isinstance(jwk, dict)] if isinstance(listed, list) else []


def _key(part: str | dict[str, Any]) -> OKPKey | None:
    """A key without what else a JWK says of it; None for a JWK of another kind. Raises SigningKeysError."""
    if isinstance(part, dict) and (part.get("kty"), part.get("crv")) != ("OKP", "Ed25519"):
        return None
    if isinstance(part, str) and "ENCRYPTED" in part:
        raise SigningKeysError("holds an encrypted key; it is read without a passphrase")
    try:
        key = OKPKey.import_key(part)
        plain = OKPKey.import_key(key.raw_value)
    except (JoseError, ValueError, TypeError, KeyError):
        raise SigningKeysError("holds a key that is not Ed25519, or is damaged") from None
    if plain.curve_name != "Ed25519":
        raise SigningKeysError(f"holds a key for {plain.curve_name}; receipts are signed with Ed25519")
    return plain
