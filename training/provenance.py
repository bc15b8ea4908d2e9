"""Where a network comes from: what its card says of data, licences, recipe and code."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training.corpus import Corpus

REPOSITORY = Path(__file__).resolve().parents[1]


def sources(corpus: Corpus, files: Iterable[str], what: str) -> list[dict[str, Any]]:
    """How many of these clips of a corpus stand under which licence, the most frequent first."""
    licence = {clip.file: clip.licence for clip in corpus.clips}
    counted = Counter(licence[file] or "not stated" for file in files)
    return [{"what": what, "clips": n, "licence": name} for name, n in counted.most_common()]


def measuring(corpus: Corpus) -> str:
    """The command that writes a bundle's figures on the split `measure` of a corpus into its card."""
    root = shown(corpus.root)
    pairs = f" --pairs {root}/pairs.csv" if corpus.pairs else ""
    return f"deepfake-detect evaluate models/NAME --clips {root}/clips.csv{pairs} --split measure --card"


def revision() -> str:
    """The commit of the code that runs, `+` when it was changed since; outside of a checkout the version."""
    git = shutil.which("git")
    if git is not None and (REPOSITORY / ".git").exists():
        found = subprocess.run(  # noqa: S603 - a fixed command
            [git, "-C", str(REPOSITORY), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode == 0:
            return found.stdout.strip()
    try:
        return version("deepfake-detect")
    except PackageNotFoundError:
        return "unknown"


def shown(path: Path) -> str:
    """A path as a card shows it: what lies outside of the working directory by its name alone, since
    where it lay on one machine says nothing to others."""
    outside = path.is_absolute() or ".." in path.parts
    return path.name if outside else str(path)
