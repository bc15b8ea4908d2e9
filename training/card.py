"""The model card, written from the manifest alone, so that the two never tell different stories.

What the card says in words stands in the manifest too, as `summary.card`, so that who reads the JSON
reads the same. Of a training run's summary (`summary.training`) these keys are understood, all of
them optional: `data`, Markdown that says what the network learnt from; `sources`, a list of objects with
`what`, `clips` and `licence`; `limits`, a list of sentences; `commands`, a list of command lines. Every
other entry that is a number or a short text is shown in a table.
"""

from pathlib import Path
from typing import Any

from pipeline.bundle import CARD, Manifest, open_bundle, sha256
from training.report import (
    basis,
    conditions_table,
    figures_table,
    footage_table,
    forgeries_table,
    interval,
    name_of,
    pairs_table,
    table,
)
from training.transcode import PUBLISHED

Json = dict[str, Any]
LICENCE = "MIT, as the rest of the project."
UNTRAINED = "None: the weights are random."
UNSTATED = "The training run did not say what it learnt from."
INTENDED_USE = (
    "To rank and to flag clips for a person to look at. It is no proof, in either direction, and must not "
    "be the only ground of a decision about anybody. Below the lower threshold it says `authentic` only in "
    "the sense that none of the traces it knows was found."
)
NATIVE = (
    "It reads fine traces in untouched pixels of the face: noise, detail, resampling, blending. Footage that "
    "was scaled down, filtered, smoothed by a phone's camera or encoded at a low rate looks altered to it; a "
    "generator whose output was re-filmed or re-noised may look real."
)
ALIGNED = (
    "It reads faces scaled to {side} x {side} pixels. What is finer than that is lost to it, and a smaller "
    "face is enlarged and remarked upon."
)
ALWAYS = "It reads pictures alone, and nothing of sound, speech or meaning."
NOT_IN_CARD = ("reliability", "sources", "unreadable")
"""Parts of an evaluation that its report shows and a card does not: they are long."""


def write_card(path: Path, manifest: Manifest) -> Manifest:
    """Write MODEL_CARD.md and manifest.json of a bundle; returns the manifest, with the card's words and
    its digest."""
    manifest = manifest.model_copy(update={"summary": manifest.summary | {"card": words(manifest)}})
    (path / CARD).write_text(card(manifest, _size(path, manifest)), encoding="utf-8")
    files = manifest.files | {CARD: sha256(path / CARD)}
    manifest = manifest.model_copy(update={"files": files})
    part = path / "manifest.json.part"
    part.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    part.replace(path / "manifest.json")
    return manifest


def write_figures(path: Path, figures: Json) -> Manifest:
    """Write an evaluation into a bundle's manifest and card. Raises BundleError."""
    manifest = open_bundle(path, allow_untrained=True).manifest
    kept = {k: v for k, v in figures.items() if k not in NOT_IN_CARD}
    # The digest of a bundle covers its manifest, which is about to change.
    kept["bundle"] = {k: v for k, v in figures["bundle"].items() if k != "digest"}
    return write_card(path, manifest.model_copy(update={"summary": manifest.summary | {"evaluation": kept}}))


def words(manifest: Manifest) -> Json:
    """What the card says in words: data, intended use, limits and licence."""
    training = manifest.summary.get("training", {})
    return {
        "data": training.get("data", UNSTATED) if manifest.trained else UNTRAINED,
        "sources": training.get("sources", []),
        "intended_use": INTENDED_USE,
        "limits": limits(manifest),
        "licence": LICENCE,
    }


def limits(manifest: Manifest) -> list[str]:
    """What the bundle can not do, as far as its manifest tells."""
    crop, sampling = manifest.crop, manifest.sampling
    found = [NATIVE if crop.kind == "native" else ALIGNED.format(side=crop.side), ALWAYS]
    if crop.frames > 1:
        found.append(
            f"Single pictures and clips of fewer than {crop.frames} frames are beyond it, since a sample is "
            f"{crop.frames} consecutive frames of the {sampling.burst_frames} of a burst."
        )
    found += manifest.summary.get("training", {}).get("limits", [])
    evaluation = manifest.summary.get("evaluation")
    if evaluation:
        clips = evaluation["clips"]
        found.append(
            f"Its figures come from {clips['listed']} clips of {clips['people']} people. What is in no table "
            "was not measured, and a figure says nothing of clips of another kind."
        )
    else:
        found.append("How often it is right was not measured.")
    return found


def card(manifest: Manifest, size: int) -> str:
    """The card as Markdown. size: bytes of the two graphs."""
    title = f"# {manifest.id}\n"
    if not manifest.trained:
        return (
            title + "\nUntrained: the weights are random and every answer is meaningless. For tests only.\n"
        )
    said = manifest.summary["card"]
    limits_listed = "\n".join(f"- {line}" for line in said["limits"])
    parts = [
        title,
        _what(manifest, size),
        f"## Data\n\n{said['data']}\n",
        _sources(said["sources"]),
        _training(manifest.summary.get("training", {})),
        _export(manifest.summary),
        _calibration(manifest),
        _figures(manifest.summary.get("evaluation")),
        f"## Intended use and limits\n\n{said['intended_use']}\n\nLimits, said plainly:\n{limits_listed}\n",
        f"## Licence\n\n{said['licence']}\n",
    ]
    return "\n".join(p for p in parts if p)


def headline(evaluation: Json) -> Json:
    """The few figures that sum an evaluation up: `real` and `fake` clips judged, `auc`, `encoded` (AUC
    after encoding at crf 30), `matched`, `pairs` (None without any), `false_positive_rate` and
    `true_positive_rate`."""
    plain = evaluation["conditions"][PUBLISHED]
    figures = plain["figures"]
    return {
        "real": plain["real"],
        "fake": plain["fake"],
        "auc": figures["auc"],
        "encoded": evaluation["conditions"].get("crf-30", {}).get("figures", {}).get("auc", {"value": None}),
        "matched": figures["auc_at_matched_sharpness"],
        "pairs": evaluation.get("pairs", {}).get("all"),
        **{k: figures[k] for k in ("false_positive_rate", "true_positive_rate")},
    }


def _what(manifest: Manifest, size: int) -> str:
    crop, sampling = manifest.crop, manifest.sampling
    network = ", ".join(f"{k} {v}" for k, v in manifest.architecture.items())
    seen = f"{crop.kind} windows" if crop.kind == "native" else f"{crop.kind} crops"
    return (
        f"Says how likely it is that the face in a clip was manipulated. Network: {network}; "
        f"{manifest.feature_size} features a sample, softmax over {', '.join(manifest.classes)}; "
        f"{size / 1e6:.2f} MB, {manifest.precision}. It sees {sampling.bursts} bursts of "
        f"{sampling.burst_frames} consecutive frames of a clip, and of them {seen} of {crop.side} x "
        f"{crop.side} pixels, {crop.samples_per_burst} a burst"
        f"{'' if crop.kind == 'native' else ' and frame'}.\n"
    )


def _sources(sources: list[Json]) -> str:
    rows = [
        [str(s.get("what", "")), str(s.get("clips", "")), str(s.get("licence", "not stated"))]
        for s in sources
    ]
    return table(["Source", "Clips", "Licence"], rows) + "\n" if rows else ""


def _training(t: Json) -> str:
    if not t:
        return ""
    shown = [
        [k.replace("_", " "), str(v)]
        for k, v in t.items()
        if k != "data" and isinstance(v, str | int | float)
    ]
    parts = ["## Training\n"]
    if shown:
        parts.append(table(["", ""], shown) + "\n")
    if t.get("commands"):
        parts.append("These commands made the bundle:\n\n```\n" + "\n".join(t["commands"]) + "\n```\n")
    return "\n".join(p for p in parts if p)


def _facts(of: Json) -> str:
    """Everything that is a number or a text, in a table of two columns."""
    rows = [[k.replace("_", " "), str(v)] for k, v in of.items() if isinstance(v, str | int | float)]
    return table(["", ""], rows) + "\n" if rows else ""


def _export(summary: Json) -> str:
    """What the export measured of its precision and of this machine's speed, as far as it did."""
    found = [(n, summary[n]) for n in ("precision", "speed") if isinstance(summary.get(n), dict)]
    return "\n".join(f"## {name.capitalize()}\n\n{_facts(facts)}" for name, facts in found)


def _calibration(manifest: Manifest) -> str:
    c = manifest.calibration
    if c.id is None:
        return (
            "## Calibration\n\nNone: probabilities are the network's own softmax, thresholds are defaults.\n"
        )
    measured = manifest.summary.get("calibration", {}).get("figures", {})
    rows = [[name_of(k), interval(f)] for k, f in measured.items()]
    own = (
        "\nMeasured by cross-fitting, on clips that the scale and the thresholds that judged them were not "
        f"fitted on:\n\n{table(['Figure', 'Value (95% interval)'], rows)}\n"
        if rows
        else ""
    )
    t = c.thresholds
    meet = t.authentic_below == t.manipulated_above
    return (
        f"## Calibration\n\n`{c.id}`: {c.data}\n\nBelow {t.authentic_below:.3f} the verdict is "
        f"`authentic`, from {t.manipulated_above:.3f} on `manipulated`, between them `uncertain`"
        f"{'; they meet, so that remarks on quality alone make a clip uncertain' if meet else ''}.\n{own}"
    )


def _figures(e: Json | None) -> str:
    if not e:
        return "## Figures\n\nNot measured.\n"
    parts = [
        "## Figures",
        basis(e),
        "### Conditions",
        conditions_table(e),
        "### All figures, clips as published",
        figures_table(e),
    ]
    for title, body in (
        ("Generators", forgeries_table(e, "methods")),
        ("Kinds of forgery", forgeries_table(e, "families")),
        ("Kinds of footage", footage_table(e)),
        ("Exact pairs", pairs_table(e)),
    ):
        if body:
            parts += [f"### {title}", body]
    return "\n\n".join(parts) + "\n"


def _size(path: Path, manifest: Manifest) -> int:
    return sum((path / name).stat().st_size for name in manifest.files if name != CARD)
