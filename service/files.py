"""Files of a package that browsers load: served from memory, each known by name beforehand."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import Request, Response

KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent. etag: of its content, so that replicas agree on it and releases do not."""

    content: bytes
    kind: str
    etag: str


def read_files(package: str, folder: str) -> dict[str, File]:
    """The files in a folder of a package by name; those of other kinds are left out."""
    found = {}
    for file in files(package).joinpath(folder).iterdir():
        if kind := KINDS.get(PurePosixPath(file.name).suffix):
            content = file.read_bytes()
            found[file.name] = File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


def sent(request: Request, file: File, headers: Mapping[str, str]) -> Response:
    """The response with a file, or 304 without one. The browser asks each time and is told when nothing
    changed, so that no part of a page runs beside another release's."""
    all_headers = {**headers, "Cache-Control": "no-cache", "ETag": file.etag}
    if _known(request.headers.getlist("if-none-match"), file.etag):
        return Response(status_code=304, headers=all_headers)
    return Response(file.content, media_type=file.kind, headers=all_headers)


def _known(if_none_match: list[str], etag: str) -> bool:
    """Whether the client holds the file already (RFC 9110, 13.1.2)."""
    told = ",".join(if_none_match).strip()
    return told == "*" or etag in _TAG.findall(told)
