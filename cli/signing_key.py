"""`deepfake-detect signing-key`."""

import os
from pathlib import Path
from typing import Annotated

import typer


def signing_key(
    file: Annotated[Path, typer.Argument(help="File to write; must not exist.")],
) -> None:
    """Make a key for DETECTOR_SIGNING_KEY_FILE, with which the service signs its answers."""
    from cli.output import err
    from service.signing import make_key

    pem, kid = make_key()
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(pem)
    err.print(
        f"wrote {file}, the private key {kid}; whoever has it signs as you", markup=False, soft_wrap=True
    )
