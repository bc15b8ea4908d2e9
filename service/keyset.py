"""Public keys as they are published: a JWK Set (RFC 7517)."""

from pydantic import BaseModel, ConfigDict, Field


class PublicKey(BaseModel):
    """The public part of an Ed25519 key as a JWK (RFC 8037). `kid` is its thumbprint (RFC 7638)."""

    model_config = ConfigDict(frozen=True)

    kty: str = "OKP"
    crv: str = "Ed25519"
    x: str
    kid: str
    use: str = "sig"
    alg: str = "EdDSA"


class KeySet(BaseModel):
    """Keys that receipts of this service are signed with, or were."""

    model_config = ConfigDict(frozen=True)

    keys: list[PublicKey] = Field(default_factory=list)
