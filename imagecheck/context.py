"""What of a folder reaches a build: everything that `.dockerignore` does not keep out."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of `.dockerignore`: what it matches, with all below, is kept out, or let in again."""

    pattern: re.Pattern[str]
    lets_in: bool


class Context:
    """The folder that a Dockerfile copies from, without what its `.dockerignore` keeps out."""

    def __init__(self, root: Path) -> None:
        """root: the folder; without a `.dockerignore` all of it counts."""
        self.root = root
        file = root / ".dockerignore"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self._rules = [_rule(line.strip()) for line in lines if line.strip() and not line.startswith("#")]

    def holds(self, path: str) -> bool:
        """Whether a file, named relative to the root, reaches the build. The last rule that fits decides."""
        result = True
        for rule in self._rules:
            if rule.pattern.fullmatch(path):
                result = rule.lets_in
        return result

    def files(self, source: str) -> Iterator[str]:
        """Files at or below `source` that reach the build, relative to the root and sorted."""
        top = self.root / source
        if top.is_file():
            names = [source]
        else:
            found = (Path(folder, name) for folder, _, names in os.walk(top) for name in names)
            names = sorted(path.relative_to(self.root).as_posix() for path in found)
        return (name for name in names if self.holds(name))


def _rule(line: str) -> Rule:
    """From a line in the syntax of Go's filepath.Match, with `**` for any number of folders."""
    lets_in, line = line.startswith("!"), line.removeprefix("!").strip("/")
    pieces = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", line)
    pattern = "".join(pieces.get(part, re.escape(part)) for part in parts)
    return Rule(re.compile(rf"{pattern}(?:/.*)?"), lets_in)
