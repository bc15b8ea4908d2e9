"""`deepfake-detect serve`."""

import sys
from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; DETECTOR_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; DETECTOR_PORT.")] = None,
) -> None:
    """Serve the HTTP API. DETECTOR_* environment variables set everything else."""
    from cli.output import err
    from service.server import run
    from service.settings import SettingsError, load_settings

    given = {"host": host, "port": port}
    try:
        settings = load_settings(**{k: v for k, v in given.items() if v is not None})
    except SettingsError as e:
        err.print(f"deepfake-detect: {e}", markup=False, soft_wrap=True)
        sys.exit(2)
    sys.exit(run(settings))
