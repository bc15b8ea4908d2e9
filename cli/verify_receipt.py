"""`deepfake-detect verify-receipt`."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

    from service.receipts import Receipt

INVALID = 1
MOST_BYTES = 64 * 1024 * 1024
"""Of an answer or of keys, which are far smaller."""
PATIENCE_S = 20.0


def verify_receipt(
    given: Annotated[
        str, typer.Argument(metavar="ANSWER.json|RECEIPT", help="File of an answer or a receipt, or that.")
    ],
    *,
    keys: Annotated[
        str,
        typer.Option(metavar="FILE|URL", help="Keys that are trusted: PEM, JWK, or a service's /v1/keys."),
    ],
    clip: Annotated[
        Path | None, typer.Option(help="The file that was sent, to compare.", show_default=False)
    ] = None,
) -> None:
    """Check who signed an answer, that nothing in it was changed, and which file it is about.

    Exit code: 0 when all of that fits, 1 when anything does not, 3 when it can not be checked.
    """
    from cli.output import err, out
    from service.receipts import ReceiptError, verified

    trusted = _trusted(keys)
    try:
        answer, compact = _taken_apart(given)
        receipt, kid = verified(compact, trusted)
        said = [_origin(receipt, kid), _compared(receipt, answer), _of(receipt, clip)]
    except ReceiptError as e:
        err.print(f"not verified: {e}", markup=False, soft_wrap=True)
        sys.exit(INVALID)
    out.print("verified", *said, sep="\n", markup=False, soft_wrap=True)


def _trusted(keys: str) -> "tuple[OKPKey, ...]":
    from cli.output import fail
    from service.signing import SigningKeysError, read_keys

    text = _fetched(keys) if keys.startswith(("https://", "http://")) else _read(Path(keys))
    try:
        return read_keys(text)
    except SigningKeysError as e:
        fail(f"{keys} {e}")


def _fetched(url: str) -> str:
    from urllib.request import urlopen

    from cli.output import fail

    try:
        with urlopen(url, timeout=PATIENCE_S) as response:  # noqa: S310 - its scheme was looked at
            return str(response.read(MOST_BYTES).decode())
    except (OSError, ValueError) as e:
        fail(f"{url} can not be read: {e}")


def _read(path: Path) -> str:
    from cli.output import fail

    with path.open("rb") as file:
        content = file.read(MOST_BYTES)
    try:
        return content.decode()
    except UnicodeDecodeError:
        fail(f"{path} is not text in UTF-8")


def _taken_apart(given: str) -> tuple[dict[str, Any] | None, str]:
    """An answer, None where only a receipt was given, and the receipt. Raises ReceiptError."""
    from service.receipts import ReceiptError, read_answer

    text = given if given.count(".") == 2 and given.startswith("ey") else _read(Path(given))
    if not text.lstrip().startswith("{"):
        return None, text.strip()
    answer = read_answer(text)
    compact = answer.get("receipt")
    if not isinstance(compact, str):
        raise ReceiptError("the answer has no receipt: its service has no key to sign with")
    return answer, compact


def _origin(receipt: "Receipt", kid: str) -> str:
    when = datetime.fromtimestamp(receipt.iat, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"signed {when} with key {kid} by deepfake-detect {receipt.version}"


def _compared(receipt: "Receipt", answer: dict[str, Any] | None) -> str:
    """What was answered. Raises ReceiptError when the answer is another one."""
    from service.receipts import check_answer

    if answer is not None:
        check_answer(receipt, answer)
    score = f", probability of fake {receipt.probabilities.fake:.3f}" if receipt.probabilities else ""
    told = f"{receipt.verdict}{score}, said by {receipt.model.id} {receipt.model.digest}"
    unread = "" if answer is not None else "; no answer was compared"
    return told + unread


def _of(receipt: "Receipt", clip: Path | None) -> str:
    """Of which file. Raises ReceiptError when the clip is another one."""
    from pipeline.bundle import sha256
    from service.receipts import ReceiptError

    cut = ", which its client had cut out of a clip" if receipt.media.kind == "crops" else ""
    if clip is None:
        return f"about {receipt.media.kind} of SHA-256 {receipt.media.sha256}{cut}; no file was compared"
    if sha256(clip) != f"sha256:{receipt.media.sha256}":
        raise ReceiptError(f"{clip} is not the file that was judged")
    return f"about {clip}{cut}"
