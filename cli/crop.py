"""`deepfake-detect crop`: cut faces here, to have them judged elsewhere."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def crop(
    clip: Annotated[Path, typer.Argument(help="Clip or picture.")],
    out: Annotated[Path | None, typer.Option(help="File to write; CLIP.crops without it.")] = None,
    model: Annotated[str | None, typer.Option(help="Bundle that will judge; DETECTOR_MODEL.")] = None,
    max_faces: Annotated[int | None, typer.Option(help="Faces cut out; DETECTOR_MAX_FACES.")] = None,
    digest: Annotated[
        bool, typer.Option(help="Tell the SHA-256 of the clip, by which it can be known.")
    ] = True,
) -> None:
    """Cut the faces out of a clip, so that nothing else of it has to leave this machine.

    The file is for POST /v1/detect/crops of a service that has the same bundle.
    """
    from cli.output import err, fail
    from pipeline.bundle import default_bundle, open_bundle
    from pipeline.detect.registry import open_detector
    from pipeline.media import Limits
    from pipeline.prepare import prepare
    from service.crops import write_crops
    from service.settings import SettingsError, load_settings
    from service.upload import CROPS_TYPE

    given = {"model": model, "max_faces": max_faces}
    try:
        settings = load_settings(**{k: v for k, v in given.items() if v is not None})
    except SettingsError as e:
        fail(str(e))
    bundle = open_bundle(
        default_bundle(settings.models_dir, settings.model), allow_untrained=settings.allow_untrained
    )
    prepared = prepare(
        clip,
        crop=bundle.manifest.crop,
        sampling=bundle.manifest.sampling,
        detector=open_detector(
            settings.face_detector, settings.face_model, accept_license=settings.accept_insightface_license
        ),
        limits=Limits(max_pixels=settings.max_pixels, max_duration_s=settings.max_duration_s),
        max_faces=settings.max_faces,
    )
    if not digest:
        prepared = replace(prepared, media=replace(prepared.media, sha256=""))
    target = out or clip.with_name(clip.name + ".crops")
    with target.open("wb") as file:
        write_crops(file, prepared, bundle)
    err.print(
        f"wrote {len(prepared.tracks)} faces, {target.stat().st_size:,} bytes, to {target}; try: "
        f"curl -H 'Content-Type: {CROPS_TYPE}' --data-binary @{target} "
        "http://127.0.0.1:8000/v1/detect/crops",
        markup=False,
        soft_wrap=True,
    )
