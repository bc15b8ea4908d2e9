"""Signed receipts: what was judged, by what, and what came of it, for those who were not there.

A receipt is a JWS in compact form (RFC 7515), signed with Ed25519 (RFC 8037). Its payload names the file by
its digest and the answer by that of its canonical JSON (RFC 8785), and repeats the scores. It proves who
answered that, and when by the server's clock; not that the answer is right.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import rfc8785
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.answer import Answer, Model, Probabilities, Verdict
from pipeline.credentials import Trust
from service.anchors import anchors_digest
from service.keyset import KeySet
from service.signing import ALGORITHM, public_part
from service.version import VERSION

if TYPE_CHECKING:
    from service.judge import Question
    from service.settings import Settings
    from service.upload import Upload

TYPE = "vnd.deepfake-detect.receipt+jwt"
UNSIGNED = frozenset({"receipt", "timing_ms"})
"""Fields of an answer that are no part of its digest."""
Kind = Literal["clip", "crops"]
_EDDSA = jws.JWSRegistry(algorithms=[ALGORITHM])
"""No receipt passes that asks for another algorithm, or for none."""


class ReceiptError(ValueError):
    """A receipt, or what it is held against, is not what was signed. The message is one line."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Received(_Part):
    """The file that was uploaded: a clip, or crops that the client has cut out of one."""

    kind: Kind
    sha256: str
    bytes: int


class Conditions(_Part):
    """Settings and parameters that bear on the answer. face_model: digest of the detector's file, None for
    the embedded one; partial: the client's deadline might cut it short; c2pa_anchors: digest of the
    certificates that signers of manifests are held against."""

    face_detector: str
    face_model: str | None
    provider: str
    max_faces: int
    max_pixels: int
    max_duration_s: float
    decoder_threads: int
    explain: bool
    timeline: bool
    partial: bool
    c2pa_check: bool = False
    c2pa_anchors: str | None = None


class Scored(_Part):
    """The probabilities of one face."""

    track: int
    probabilities: Probabilities | None


class Receipt(_Part):
    """The payload. iat: when it was signed, in seconds since 1970. version: of the service. answer: digest of
    its canonical form without `receipt` and `timing_ms`."""

    iat: int
    version: str
    media: Received
    model: Model
    settings: Conditions
    verdict: Verdict
    probabilities: Probabilities | None
    faces: list[Scored]
    answer: str


class Signer:
    """Signs answers with the first of its keys. published: the public parts of all of them."""

    def __init__(self, keys: tuple[OKPKey, ...], settings: "Settings", trust: Trust) -> None:
        from pipeline.detect.registry import digest_of  # who only checks receipts opens no detector

        self._key, self._settings = keys[0], settings
        self._face_model = digest_of(settings.face_model)
        self._anchors = anchors_digest(trust)
        self.published = KeySet(keys=[public_part(key) for key in keys])

    def signed(self, answer: Answer, kind: Kind, upload: "Upload", question: "Question") -> Answer:
        """An answer with its receipt, which is another one each second."""
        receipt = Receipt(
            iat=int(time.time()),
            version=VERSION,
            media=Received(kind=kind, sha256=upload.sha256.hex(), bytes=upload.size),
            model=answer.model,
            settings=self._conditions(question),
            verdict=answer.verdict,
            probabilities=answer.probabilities,
            faces=[Scored(track=f.track, probabilities=f.probabilities) for f in answer.faces],
            answer=digest(json.loads(answer.model_dump_json())),
        )
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": self.published.keys[0].kid}
        compact = jws.serialize_compact(header, receipt.model_dump_json(), self._key, registry=_EDDSA)
        return answer.model_copy(update={"receipt": compact})

    def _conditions(self, question: "Question") -> Conditions:
        given = self._settings
        return Conditions(
            face_detector=given.face_detector,
            face_model=self._face_model,
            provider=question.model.engine.provider,
            max_faces=question.max_faces,
            max_pixels=given.max_pixels,
            max_duration_s=given.max_duration_s,
            decoder_threads=given.decoder_threads,
            explain=question.explain,
            timeline=question.timeline,
            partial=question.partial,
            c2pa_check=given.c2pa_check,
            c2pa_anchors=self._anchors,
        )


def digest(answer: dict[str, Any]) -> str:
    """Of the canonical form of an answer, as it is found in JSON."""
    kept = {name: value for name, value in answer.items() if name not in UNSIGNED}
    return "sha256:" + hashlib.sha256(rfc8785.dumps(kept)).hexdigest()


def verified(compact: str, keys: Iterable[OKPKey]) -> tuple[Receipt, str]:
    """What a receipt says, and the id of the key that it is signed with. Raises ReceiptError.

    The key is one of those given, found by its id: nothing in a receipt says how it is to be checked.
    """
    known = {key.thumbprint(): key for key in keys}
    try:
        header = jws.extract_compact(compact.encode(), registry=_EDDSA).headers()
        kid = str(header.get("kid"))
        if header.get("typ") != TYPE:
            raise ReceiptError("this is no receipt: its header names another type")
        if kid not in known:
            raise ReceiptError("the receipt is signed with a key that is none of those given")
        payload = jws.deserialize_compact(compact, known[kid], registry=_EDDSA).payload
        return Receipt.model_validate_json(payload), kid
    except (JoseError, ValidationError, UnicodeError) as e:
        raise ReceiptError("the signature does not fit what the receipt says, or it is no receipt") from e


def read_answer(text: str) -> dict[str, Any]:
    """An answer in JSON. Raises ReceiptError, also when a name stands twice in an object: readers differ in
    which of the two they take."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ReceiptError("the answer has a name twice in one object")
        return found

    try:
        answer = json.loads(text, object_pairs_hook=once)
    except ReceiptError:
        raise
    except (ValueError, RecursionError) as e:  # numbers of thousands of digits, too
        raise ReceiptError("the answer is not JSON") from e
    if not isinstance(answer, dict):
        raise ReceiptError("the answer is no JSON object")
    return answer


def check_answer(receipt: Receipt, answer: dict[str, Any]) -> None:
    """Raises ReceiptError when the receipt is that of another answer."""
    try:
        found = digest(answer)
    except rfc8785.CanonicalizationError as e:
        raise ReceiptError("the answer has values that no answer has") from e
    if found != receipt.answer:
        raise ReceiptError("the answer is not the one that was signed: something in it was changed")
