"""The sizes in docs/deployment.md are what `make image-check` writes."""

import re
from pathlib import Path

import pytest

from imagecheck.dockerfile import Config, Instruction, chain, parse
from imagecheck.replay import Image, Layer
from imagecheck.report import table, write

ROOT = Path(__file__).resolve().parents[2]
SITE = "opt/venv/lib/python3.11/site-packages"
ROW = r"\| (?P<what>.*) \| (?P<size>\**[\d.]+\**) \|"


def layer(folder: Path, instruction: Instruction, name: str, count: int) -> Layer:
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(b"x" * count)
    return Layer("cpu", instruction, folder)


def test_table_has_each_layer_and_the_large_packages(tmp_path: Path) -> None:
    layers = (
        layer(tmp_path / "0", Instruction("RUN", {}, "first && second"), "etc/x", 100_000),
        Layer("cpu", Instruction("WORKDIR", {}, "/tmp"), tmp_path / "nothing"),
        layer(tmp_path / "1", Instruction("COPY", {"from": "a"}, "/x /y"), f"{SITE}/large/x", 6_000_000),
        layer(tmp_path / "2", Instruction("COPY", {"from": "b"}, "/x /y"), f"{SITE}/small/x", 1_000_000),
    )
    assert table(Image(Path("/base"), layers, Config())).splitlines() == [
        "| Layer, on the base image | MB |",
        "| --- | ---: |",
        "| `RUN first && ...` | 0.1 |",
        "| `COPY --from=a /x /y` | 6.0 |",
        "| `COPY --from=b /x /y` | 1.0 |",
        "| **all** | **7.1** |",
        "",
        "| Installed package | MB |",
        "| --- | ---: |",
        "| `large` | 6.0 |",
        "| 1 smaller ones | 1.0 |",
    ]


def test_a_table_replaces_the_one_before(tmp_path: Path) -> None:
    document = tmp_path / "d.md"
    document.write_text("a\n<!-- image-cpu: words -->\nold\n<!-- /image-cpu -->\nb\n")
    write(document, "cpu", "new")
    assert document.read_text() == "a\n<!-- image-cpu: words -->\nnew\n<!-- /image-cpu -->\nb\n"
    with pytest.raises(ValueError, match="0 places for the image gpu"):
        write(document, "gpu", "new")


def test_the_document_has_the_layers_of_this_dockerfile() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- image-cpu: [^>]*-->\n(.*?)<!-- /image-cpu -->", text, re.DOTALL)
    assert found
    rows = {row["what"]: float(row["size"].strip("*")) for row in re.finditer(ROW, found[1])}
    copies = [
        str(copy)
        for stage in chain(parse((ROOT / "Dockerfile").read_text()), "cpu")
        for copy in stage.all("COPY")
    ]
    assert [f"`{copy}`" for copy in copies] == [what for what in rows if "COPY" in what]
    layers = [size for what, size in rows.items() if what.startswith(("`RUN", "`COPY"))]
    assert rows["**all**"] == pytest.approx(sum(layers), abs=0.2)
    assert {"`cv2`", "`scipy`", "`onnxruntime`"} <= {
        what.replace("opencv_python_headless", "cv2") for what in rows
    }
