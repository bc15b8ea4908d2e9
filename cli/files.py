"""Pictures and videos among what a command line names: files, folders and patterns."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.errors import UnsupportedMedia
from pipeline.media import sniff_file

VIDEOS = {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
PICTURES = {".apng", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}
"""What ends so in a folder is meant to be one, even where its bytes say nothing of the kind any more."""
MAGIC = set("*?[")


def media_files(named: Iterable[Path], *, recursive: bool = True) -> list[Path]:
    """What is meant by files, folders and patterns, in that order and each once.

    A file that is named is taken as it is, also when there is none of that name. Of a folder it is what looks
    like a picture or a video by its ending or its first bytes, in the order of names, in folders below it as
    well if `recursive`; nothing hidden, and no folder that is a symbolic link. A pattern (`*`, `?`, `[...]`,
    `**`) counts where no file has that very name. Raises OSError for a folder that can not be read.
    """
    found: dict[str, Path] = {}
    for name in named:
        for path in _matches(name):
            for file in _in_folder(path, recursive) if path.is_dir() else (path,):
                found.setdefault(os.path.abspath(file), file)  # noqa: PTH100 - links are files of their own
    return list(found.values())


def _matches(name: Path) -> list[Path]:
    if os.path.lexists(name) or not MAGIC & set(str(name)):
        return [name]
    found = Path(name.anchor or ".").glob(str(name.relative_to(name.anchor)))
    return sorted(match for match in found if not _hidden(match, name)) or [name]


def _hidden(match: Path, name: Path) -> bool:
    """Whether a part begins with a dot that the pattern does not name, as shells see it."""
    return any(part.startswith(".") for part in match.parts if part not in name.parts)


def _in_folder(folder: Path, recursive: bool) -> Iterator[Path]:
    for at, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(f for f in folders if recursive and not f.startswith("."))
        yield from (
            path for name in sorted(files) if not name.startswith(".") and _is_media(path := Path(at) / name)
        )


def _is_media(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() in VIDEOS | PICTURES:
        return True
    try:
        return bool(sniff_file(path))
    except (UnsupportedMedia, OSError):
        return False


def _raise(error: OSError) -> None:
    raise error
