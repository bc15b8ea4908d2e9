"""What a Dockerfile says: stages, their instructions, and the configuration that these amount to.

Reads what this project's own file uses and refuses everything else, so that nothing of it is passed over.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from string import Template
from typing import Any

FLAGS = {
    "COPY": {"from"},
    "HEALTHCHECK": {"interval", "timeout", "start-period", "retries"},
}
"""Flags that are understood, or need no understanding, by instruction."""
OPS = {
    *("RUN", "COPY", "WORKDIR", "ENV", "ARG", "LABEL", "USER", "EXPOSE", "STOPSIGNAL"),
    *("HEALTHCHECK", "ENTRYPOINT", "CMD"),
}
BASE_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""What the images of Python set, as far as anything here could read it."""


class DockerfileError(ValueError):
    """The Dockerfile holds something that is not understood."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `COPY --from=a b c` is COPY, {from: a}, "b c"."""

    op: str
    flags: dict[str, str]
    rest: str

    def __str__(self) -> str:
        flags = (f"--{name}={value}" for name, value in self.flags.items())
        return " ".join([self.op, *flags, self.rest])


@dataclass(frozen=True, slots=True)
class Stage:
    """What stands between one FROM and the next; base: an earlier stage or an image."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, op: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [instruction for instruction in self.instructions if instruction.op == op]


def parse(text: str) -> dict[str, Stage]:
    """Stages by name, in the order of the file. Raises DockerfileError."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in _joined(text):
        op, _, rest = line.partition(" ")
        if op == "FROM":
            found = re.fullmatch(r"(\S+) AS ([a-z][a-z0-9-]*)", rest.strip())
            if found is None or found[2] in stages:
                raise DockerfileError(f"{line}: a stage has one base and a name of its own")
            stage = stages[found[2]] = Stage(found[2], found[1])
        elif stage is None:
            raise DockerfileError(f"{line}: nothing comes before the first FROM")
        else:
            stage.instructions.append(_instruction(op, rest.strip()))
    return stages


def chain(stages: Mapping[str, Stage], name: str) -> list[Stage]:
    """The stages that `name` is made of, the one on an image first."""
    stage = stages[name]
    return [*(chain(stages, stage.base) if stage.base in stages else []), stage]


@dataclass(frozen=True, slots=True)
class Config:
    """What an image says about how it is built on and run."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(BASE_ENVIRONMENT))
    arguments: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: tuple[int, int] = (0, 0)
    labels: Mapping[str, str] = field(default_factory=dict)
    healthcheck: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"

    def expanded(self, text: str) -> str:
        """With variables of the environment in place of their names."""
        return Template(text).safe_substitute({**self.arguments, **self.environment})

    def after(self, instruction: Instruction, given: Mapping[str, str]) -> "Config":
        """What holds after one more instruction; given: values of build arguments."""
        rest = instruction.rest
        new: dict[str, Any] = {}
        match instruction.op:
            case "ENV":
                new["environment"] = {**self.environment, **pairs(self.expanded(rest))}
            case "LABEL":
                new["labels"] = {**self.labels, **pairs(rest)}
            case "ARG":
                name, default, value = rest.partition("=")
                known = ({name: value} if default else {}) | {k: v for k, v in given.items() if k == name}
                new["arguments"] = {**self.arguments, **known}
            case "WORKDIR":
                new["workdir"] = absolute(rest)
            case "USER":
                new["user"] = numbers(rest)
            case "HEALTHCHECK":
                new["healthcheck"] = words(rest.removeprefix("CMD "))
            case "ENTRYPOINT":
                new |= {"entrypoint": words(rest), "command": ()}
            case "CMD":
                new["command"] = words(rest)
            case "STOPSIGNAL":
                new["stop_signal"] = rest
        return replace(self, **new)


def config(stages: Mapping[str, Stage], name: str) -> Config:
    """What the image of a stage says, without build arguments."""
    result = Config()
    for stage in chain(stages, name):
        result = replace(result, arguments={})
        for instruction in stage.instructions:
            result = result.after(instruction, {})
    return result


def pairs(rest: str) -> dict[str, str]:
    """`A=b C="d e"` as a dictionary."""
    found = dict(word.split("=", 1) for word in shlex.split(rest) if "=" in word)
    if len(found) != len(shlex.split(rest)):
        raise DockerfileError(f"{rest}: not all of it is NAME=VALUE")
    return found


def words(rest: str) -> tuple[str, ...]:
    """A command in its exec form."""
    try:
        found = json.loads(rest)
    except ValueError as e:
        raise DockerfileError(f"{rest}: a shell would stand between the signals and the command") from e
    return tuple(str(word) for word in found)


def numbers(rest: str) -> tuple[int, int]:
    """User and group of `10001:10001`; a name would ask what the base image calls so."""
    found = re.fullmatch(r"(\d+):(\d+)", rest)
    if found is None:
        raise DockerfileError(f"USER {rest}: not the numbers of a user and a group")
    return int(found[1]), int(found[2])


def absolute(path: str) -> str:
    """The path, which is refused where it hangs on something else."""
    if not path.startswith("/"):
        raise DockerfileError(f"{path}: not absolute")
    return path


def _joined(text: str) -> list[str]:
    """One line an instruction; comments dropped, also those between the lines of one."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"[ \t]*\\\n\s*", " ", code).splitlines()
    return [line.strip() for line in lines if line.strip()]


def _instruction(op: str, rest: str) -> Instruction:
    if op not in OPS:
        raise DockerfileError(f"{op} is not understood")
    flags: dict[str, str] = {}
    while found := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
        if found[1] not in FLAGS.get(op, set()):
            raise DockerfileError(f"{op} --{found[1]} is not understood")
        flags[found[1]] = found[2]
        rest = rest[found.end() :]
    if rest.startswith("--") or "<<" in rest:
        raise DockerfileError(f"{op} {rest}: not understood")
    return Instruction(op, flags, rest)
