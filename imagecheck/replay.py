"""Carries out a Dockerfile: each instruction leaves a folder with what it changed, as an engine's layer."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from imagecheck.context import Context
from imagecheck.dockerfile import Config, DockerfileError, Instruction, Stage
from imagecheck.namespaces import layered


class ReplayError(Exception):
    """An instruction failed."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one instruction changed; stage: where it stands."""

    stage: str
    instruction: Instruction
    folder: Path


@dataclass(frozen=True, slots=True)
class Image:
    """Layers, the lowest first, on the base; and what is said of them."""

    base: Path
    layers: tuple[Layer, ...]
    config: Config

    @property
    def folders(self) -> list[Path]:
        """Of the base and of all layers, the lowest first."""
        return [self.base, *(layer.folder for layer in self.layers)]


class Replay:
    """Builds stages, each once. It needs a mount namespace and root's rights."""

    def __init__(
        self,
        stages: Mapping[str, Stage],
        context: Context,
        base: Path,
        folder: Path,
        *,
        arguments: Mapping[str, str] | None = None,
        outside: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """base: tree of the image that all stages stand on; folder: an empty one that gets the layers.

        arguments: values of build arguments; outside: variables that every RUN sees and no image keeps.
        """
        self._stages, self._context, self._base = stages, context, base
        self._layers, self._point = folder / "layers", folder / "root"
        self._layers.mkdir()
        self._arguments, self._outside = arguments or {}, outside or {}
        self._say = say
        self._built: dict[str, Image] = {}
        self._log = folder / "log"

    def build(self, name: str) -> Image:
        """The image of a stage, after those that it is made of. Raises ReplayError or DockerfileError."""
        if name not in self._built:
            stage = self._stages[name]
            below = stage.base in self._stages
            image = self.build(stage.base) if below else Image(self._base, (), Config())
            image = replace(image, config=replace(image.config, arguments={}))
            for instruction in stage.instructions:
                image = self._after(image, name, instruction)
            self._built[name] = image
        return self._built[name]

    def _after(self, image: Image, stage: str, instruction: Instruction) -> Image:
        done = replace(image, config=image.config.after(instruction, self._arguments))
        match instruction.op:
            case "RUN":
                with self._layer(image, stage, instruction) as (root, layer):
                    self._run(root, image.config, instruction)
            case "COPY":
                taken = self.build(instruction.flags["from"]) if "from" in instruction.flags else None
                with self._layer(image, stage, instruction) as (root, layer):
                    self._copy(root, image.config, instruction, taken)
            case "WORKDIR":
                with self._layer(image, stage, instruction) as (root, layer):
                    _inside(root, done.config.workdir).mkdir(parents=True, exist_ok=True)
            case _:
                return done
        return replace(done, layers=(*image.layers, layer))

    @contextmanager
    def _layer(self, image: Image, stage: str, instruction: Instruction) -> Iterator[tuple[Path, Layer]]:
        self._say(f"{stage}: {instruction}")
        folder = self._layers / f"{len(list(self._layers.iterdir()))}"
        with layered(self._point, image.folders, folder) as root:
            yield root, Layer(stage, instruction, folder)
        shutil.rmtree(folder.with_name(folder.name + ".work"))

    def _run(self, root: Path, config: Config, instruction: Instruction) -> None:
        environment = {"HOME": "/root", **self._outside, **config.arguments, **config.environment}
        with self._log.open("w+", encoding="utf-8", errors="replace") as log:
            done = start(root, ["/bin/sh", "-c", instruction.rest], config, environment, log).wait()
            if done != 0:
                log.seek(0)
                raise ReplayError(f"{instruction}\nended with {done}:\n{''.join(log.readlines()[-30:])}")

    def _copy(self, root: Path, config: Config, instruction: Instruction, taken: Image | None) -> None:
        *sources, target = instruction.rest.split()
        into = _inside(root, target if target.startswith("/") else f"{config.workdir}/{target}")
        if len(sources) > 1 and not target.endswith("/"):
            raise DockerfileError(f"{instruction}: several sources want a folder with a / behind its name")
        for source in sources:
            if taken is None:
                self._copy_context(source, into, folder=target.endswith("/"))
            else:
                self._copy_stage(source, into, taken)

    def _copy_context(self, source: str, into: Path, *, folder: bool) -> None:
        files = list(self._context.files(source))
        if not files:
            raise ReplayError(f"COPY {source}: the build context has nothing of that name")
        single = files == [source]
        for name in files:
            relative = Path(name).relative_to(source)
            target = into / Path(source).name if single and folder else into / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._context.root / name, target, follow_symlinks=False)

    def _copy_stage(self, source: str, into: Path, taken: Image) -> None:
        """A folder of another stage with all that it holds, into what is there already."""
        with layered(self._point.with_name("from"), taken.folders) as root:
            into.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "--archive", f"{_inside(root, source)}/.", str(into)], check=True)


def start(
    root: Path,
    command: Sequence[str],
    config: Config,
    environment: Mapping[str, str],
    output: IO[str] | int,
    *,
    isolated: bool = False,
) -> subprocess.Popen[str]:
    """A command in a tree, as the user and in the folder that its image names.

    isolated: it is the first process of a namespace, has no capabilities and can get none, as under
    `--cap-drop ALL --security-opt no-new-privileges`; whatever it started ends with it. The process returned
    is its parent.
    """
    user, group = config.user
    become = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    apart = ["unshare", "--mount", f"--root={root}", f"--wd={config.workdir}"]
    if isolated:
        become += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        apart += ["--pid", "--fork", "--mount-proc"]
    return subprocess.Popen(
        [*apart, *become, "--", *command],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0o022,
    )


def _inside(root: Path, path: str) -> Path:
    """A path of an image below the folder where the image is seen."""
    return root / os.path.normpath(path).lstrip("/")
