"""`python -m benchmarks.gpu.page`: docs/cuda.md, from what was measured on CUDA devices."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter

from benchmarks.gpu.report import Result, markdown

RESULTS = "benchmarks/cuda"
HEAD = """# On CUDA

Written by `python -m benchmarks.gpu.page` from what `python -m benchmarks.gpu` measured on a card, which
[benchmarks/gpu](../benchmarks/gpu/README.md) says how to repeat. Parity is over synthetic samples of many
strengths of grain, whole sequences through both graphs. What a table lacks was not measured."""


def main(
    docs: Annotated[Path, typer.Option(help="Folder with the results; gets cuda.md.")] = Path("docs"),
) -> None:
    """Render the page."""
    (docs / "cuda.md").write_text(render(read(docs)), encoding="utf-8")


def read(docs: Path) -> list[Result]:
    """What was measured, by the bundles' names. Raises ValidationError on a file that is no result."""
    kept = TypeAdapter(Result)
    return [kept.validate_json(path.read_bytes()) for path in sorted((docs / RESULTS).glob("*.json"))]


def render(results: list[Result]) -> str:
    """The page in Markdown."""
    return "\n\n".join([HEAD, *(markdown(r, level=2).strip() for r in results)]) + "\n"


if __name__ == "__main__":
    typer.run(main)
