"""`deepfake-detect verify`."""

from pathlib import Path
from typing import Annotated

import typer


def verify(bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")]) -> None:
    """Check a bundle's digests and graphs, and that its answers depend on neither company nor padding."""
    from cli.output import out
    from pipeline.bundle import open_bundle
    from pipeline.selfcheck import selfcheck

    opened = open_bundle(bundle, allow_untrained=True)
    measured = selfcheck(opened)
    trained = "trained" if opened.manifest.trained else "UNTRAINED"
    out.print(
        f"{opened.manifest.id}: {trained}, {opened.manifest.precision}, {opened.digest}", soft_wrap=True
    )
    for name, value in measured.items():
        out.print(f"  {name.replace('_', ' '):<24} {value:.1e}")
    out.print("verified")
