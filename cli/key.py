"""`deepfake-detect key`."""

from typing import Annotated

import typer


def key(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the log and the metrics.")],
) -> None:
    """Make a key of the API and the line for DETECTOR_API_KEYS_FILE that lets it in.

    The line goes to standard output. The key is shown once, on standard error, and kept nowhere.
    """
    import secrets

    from cli.output import err, fail, out
    from service.keys import NAME, line_for

    if NAME.fullmatch(name) is None:
        fail("a name is 1 to 64 letters, digits, dots, hyphens and underscores")
    made = secrets.token_urlsafe(32)
    err.print(f"the key, shown this once: {made}", markup=False, soft_wrap=True)
    out.print(line_for(name, made), markup=False, soft_wrap=True)
