"""The table of an image's sizes in docs/deployment.md."""

import re
from collections.abc import Mapping
from pathlib import Path

from imagecheck.contents import packages, size
from imagecheck.replay import Image, Layer

SMALLEST = 5_000_000
"""Packages below it share a line."""


def table(image: Image) -> str:
    """Size of each layer that holds anything, and of the largest packages, in Markdown."""
    sizes = [(layer, size(layer)) for layer in image.layers]
    rows = ["| Layer, on the base image | MB |", "| --- | ---: |"]
    rows += [f"| {_words(layer)} | {_mb(count)} |" for layer, count in sizes if count]
    rows += [f"| **all** | **{_mb(sum(count for _, count in sizes))}** |", ""]
    rows += ["| Installed package | MB |", "| --- | ---: |"]
    return "\n".join([*rows, *_packages(packages(image.layers))])


def write(document: Path, target: str, content: str) -> None:
    """Put the table between its marks. Raises ValueError when the document has none."""
    text = document.read_text(encoding="utf-8")
    pattern = rf"(<!-- image-{target}: [^>]*-->\n).*?(<!-- /image-{target} -->)"
    text, count = re.subn(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{document} has {count} places for the image {target}")
    document.write_text(text, encoding="utf-8")


def _packages(found: Mapping[str, int]) -> list[str]:
    large = {name: count for name, count in found.items() if count >= SMALLEST}
    rest = sum(found.values()) - sum(large.values())
    rows = [f"| `{name}` | {_mb(count)} |" for name, count in large.items()]
    return [*rows, f"| {len(found) - len(large)} smaller ones | {_mb(rest)} |"]


def _words(layer: Layer) -> str:
    """An instruction as far as it tells the layer from others."""
    instruction = str(layer.instruction)
    commands = instruction.split(" && ")
    short = commands[0] if len(commands) == 1 else f"{commands[0]} && ..."
    return f"`{short}`"


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f}"
