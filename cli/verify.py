"""`deepfake-detect verify`."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="The fp32 bundle of the same network: measure the loss of precision again.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check a bundle's digests and graphs, and that its answers depend on neither company nor padding."""
    from cli.output import out
    from export.agreement import compare, recorded
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
    found = recorded(opened.manifest)
    if against is not None:
        found = compare(open_bundle(against, allow_untrained=True), opened)
    if found is not None:
        out.print(
            f"  probabilities against fp32: {found.largest:.1e} at most, {found.mean:.1e} on average "
            f"(limit {found.limit:g}, {found.samples} samples in {found.sequences} sequences)",
            soft_wrap=True,
        )
    out.print("verified")
