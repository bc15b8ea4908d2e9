"""Writes what is generated: docs/openapi.json, and the marked parts of README.md and of pages in docs.

The answer is a real server's, to the very commands that the README shows.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from pipeline.bundle import Manifest, bundles, default_bundle, default_models
from scripts.verdict_docs import outcomes, remarks_table
from service.settings import settings_table
from training.card import headline
from training.recipe_docs import recipe_table
from training.report import interval

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).parent / "deepfake-detect"


def main() -> None:
    """Write all of it."""
    with tempfile.TemporaryDirectory() as scratch:
        clip = Path(scratch) / "sample.mp4"
        subprocess.run([COMMAND, "sample", clip], check=True, stderr=subprocess.DEVNULL)
        answer, openapi = _ask(clip)
    (ROOT / "docs" / "openapi.json").write_text(json.dumps(openapi, indent=2, ensure_ascii=False) + "\n")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = _replaced(text, "answer", f"```json\n{compact(answer)}\n```")
    text = _replaced(text, "settings", settings_table().strip())
    text = _replaced(text, "models", models_table())
    text = _replaced(text, "limits", limits(_manifest()))
    readme.write_text(text, encoding="utf-8")
    training = ROOT / "docs" / "training.md"
    text = _replaced(training.read_text(encoding="utf-8"), "recipe", recipe_table())
    training.write_text(text, encoding="utf-8")
    verdicts = ROOT / "docs" / "verdicts.md"
    text = _replaced(verdicts.read_text(encoding="utf-8"), "remarks", remarks_table())
    verdicts.write_text(_replaced(text, "outcomes", outcomes(_manifest())), encoding="utf-8")


def _ask(clip: Path) -> tuple[dict[str, object], dict[str, object]]:
    """The answer to a clip and the OpenAPI document, of a real server with default settings."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    server = subprocess.Popen(
        [COMMAND, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        found = re.match(r"ready: (http://\S+)", ready)
        if found is None:
            raise SystemExit(f"the server did not start: {ready!r}")
        with httpx.Client(base_url=found[1], timeout=60) as client:
            answer = client.post("/v1/detect", files={"file": clip.read_bytes()})
            return answer.raise_for_status().json(), client.get("/openapi.json").json()
    finally:
        server.terminate()
        server.wait(timeout=60)


def _manifest() -> Manifest:
    return Manifest.model_validate_json((default_bundle(default_models()) / "manifest.json").read_bytes())


def limits(manifest: Manifest) -> str:
    """What the README says of the figures of the embedded model, from its manifest."""
    e = headline(manifest.summary["evaluation"])
    won = e["pairs"]
    pairs = (
        won and f"It puts {won['won']} of {won['pairs']} exact pairs of genuine and forged footage in order. "
    )
    return (
        f"- **The default model `{manifest.id}` is a modest one.** On {e['real']} real and {e['fake']} "
        "forged clips of people, cameras and generators that it never saw, its area under the ROC curve is "
        f"{interval(e['auc'])}; {interval(e['encoded'])} after re-encoding, {interval(e['matched'])} at "
        f"matched sharpness (0.5 is chance; 95% intervals). {pairs or ''}At its thresholds it calls "
        f"{interval(e['true_positive_rate'])} of the forged and {interval(e['false_positive_rate'])} of the "
        "genuine clips `manipulated`. Decide nothing about anybody by it alone."
    )


def models_table() -> str:
    """The embedded bundles beside each other, from their manifests."""
    models = default_models()
    default = default_bundle(models).name
    rows = [
        "| Model | Network | Size | AUC | matched sharpness | at crf 30 | Exact pairs | Samples/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, path in bundles(models).items():
        manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
        e, speed = headline(manifest.summary["evaluation"]), manifest.summary.get("speed", {})
        size = sum((path / file).stat().st_size for file in manifest.files) / 1e6
        network = f"{manifest.architecture['trunk']}, LSTM {manifest.architecture['hidden']}"
        cells = [
            f"[`{name}`](models/{name}/MODEL_CARD.md){', the default' if name == default else ''}",
            network,
            f"{size:.0f} MB, {manifest.precision}",
            *(interval(e[figure]) for figure in ("auc", "matched", "encoded")),
            f"{e['pairs']['won']} of {e['pairs']['pairs']}",
            f"{speed.get('samples_per_second', 'not measured')}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def compact(value: object) -> str:
    """JSON with two blanks of indentation, innermost objects and lists on one line where they fit."""
    text = json.dumps(value, indent=2, ensure_ascii=False)

    def joined(match: re.Match[str]) -> str:
        line = re.sub(r"\s*\n\s*", " ", match[0])
        return line if len(line) <= 100 else match[0]

    # Twice: an object that holds a box is innermost when the box is one line.
    return re.sub(r"\{[^{}]*\}", joined, re.sub(r"[\[{][^\[\]{}]*[\]}]", joined, text))


def _replaced(text: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)"
    replaced, count = re.subn(pattern, lambda m: m[1] + content + "\n" + m[2], text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{count} parts are named {name}")
    return replaced


if __name__ == "__main__":
    main()
