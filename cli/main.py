"""`deepfake-detect`: one command a stage. Each imports what it needs when it runs."""

import sys

import typer

from cli import (
    autoencoders,
    batch,
    calibrate,
    crop,
    distill,
    evaluate,
    export,
    key,
    prepare,
    sample,
    scan,
    serve,
    signing_key,
    train,
    verify,
    verify_receipt,
)
from cli.output import fail
from pipeline.errors import DetectError

app = typer.Typer(
    name="deepfake-detect",
    help="Says whether the faces in a video clip were manipulated, how sure it is, which face, when and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve.serve)
app.command()(key.key)
app.command()(signing_key.signing_key)
app.command()(scan.scan)
app.command()(batch.batch)
app.command()(sample.sample)
app.command()(crop.crop)
app.command()(prepare.prepare)
app.command()(autoencoders.autoencoders)
app.command()(train.train)
app.command()(distill.distill)
app.command()(export.export)
app.command()(evaluate.evaluate)
app.command()(calibrate.calibrate)
app.command()(verify.verify)
app.command()(verify_receipt.verify_receipt)


def main() -> None:
    """Entry point. Whatever was foreseen ends in one line on standard error, never in a traceback."""
    try:
        app()
    except DetectError as e:
        fail(str(e))
    except OSError as e:
        fail(f"{e.filename}: {e.strerror}" if e.filename else str(e))
    except KeyboardInterrupt:
        sys.exit(128 + 2)
