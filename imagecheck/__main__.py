"""`python -m imagecheck`: replay the Dockerfile for one target, then start and try what came out.

Needs Linux, root, debootstrap and the package registries; nothing outside of its folder changes.
"""

import os
import re
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from subprocess import SubprocessError
from typing import Annotated

import typer
from rich.console import Console

from imagecheck import boot, contents, report
from imagecheck.base import BaseError, make_base, registries
from imagecheck.boot import CheckFailed
from imagecheck.context import Context
from imagecheck.dockerfile import chain, parse
from imagecheck.namespaces import own_mounts, own_network
from imagecheck.replay import Image, Replay, ReplayError

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "deployment.md"
EPOCH = "1767225600"
"""A value of SOURCE_DATE_EPOCH: 1 January 2026. What it is does not matter here."""
out = Console(highlight=False, soft_wrap=True)


class Target(StrEnum):
    """Stages that are images."""

    cpu = "cpu"
    gpu = "gpu"


def main(
    *,
    target: Annotated[Target, typer.Option(help="Which image.")] = Target.cpu,
    base: Annotated[
        Path | None, typer.Option(help="Where the stand-in for the base image is kept, or already lies.")
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Where all else is made, for as long as it runs.")
    ] = None,
    twice: Annotated[bool, typer.Option("--twice", help="Build again and compare every file.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the sizes into docs/deployment.md.")] = False,
) -> None:
    """Build and try an image without an engine."""
    if sys.platform != "linux" or os.geteuid() != 0:
        sys.exit("image-check mounts file systems and changes users: it needs Linux and root")
    try:
        own_mounts()
        with tempfile.TemporaryDirectory(prefix="imagecheck-", dir=scratch) as folder:
            _check(target, base, Path(folder), twice=twice, write=write)
    except (BaseError, CheckFailed, OSError, ReplayError, SubprocessError, ValueError) as e:
        sys.exit(f"image-check: {e}")


def _check(target: Target, base: Path | None, folder: Path, *, twice: bool, write: bool) -> None:
    folder.chmod(0o755)
    stages = parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    tree = base or folder / "base"
    if not tree.exists():
        out.print(f"a stand-in for {chain(stages, target)[0].base}")
        make_base(tree, chain(stages, target)[0].base)

    def built(name: str) -> Image:
        (folder / name).mkdir()
        replay = Replay(
            stages,
            Context(ROOT),
            tree,
            folder / name,
            arguments={"SOURCE_DATE_EPOCH": EPOCH},
            outside=registries(),
            say=lambda step: out.print(step[:120], style="dim", markup=False),
        )
        return replay.build(target)

    image = built("first")
    if left := contents.unwanted(image):
        raise CheckFailed(f"{len(left)} files should not be in the image: {', '.join(left[:10])}")
    out.print("ok  no layer holds leftovers of compilers, installers or tests", markup=False)
    if twice:
        _same(image, built("second"))
    own_network()
    for found in boot.check(_bootable(image, target), folder, _untied(target)):
        out.print(f"ok  {found}", markup=False)
    table = report.table(image)
    out.print(f"\n{table}", markup=False)
    if write:
        report.write(DOCUMENT, target, table)


def _same(first: Image, second: Image) -> None:
    one, other = contents.digests(first), contents.digests(second)
    different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    if different:
        raise CheckFailed(f"{len(different)} files differ when built again: {', '.join(different[:10])}")
    out.print(f"ok  built again, all {len(one)} files are the same", markup=False)


def _untied(target: Target) -> set[str]:
    """Packages that the lock of a target leaves out of it, though others ask for them."""
    file = ROOT / "requirements" / ("overrides.txt" if target is Target.cpu else f"overrides-{target}.txt")
    return set(re.findall(r"(?m)^([\w-]+) ; sys_platform == 'never'", file.read_text(encoding="utf-8")))


def _bootable(image: Image, target: Target) -> Image:
    """As it can be started here, where no GPU is seen."""
    return boot.with_variables(image, {"DETECTOR_PROVIDER": "prefer"}) if target is Target.gpu else image


if __name__ == "__main__":
    typer.run(main)
