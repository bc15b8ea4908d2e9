"""The card of bundles that were exported before their summary carried its texts (`native-lstm-1`)."""

from typing import Any

from pipeline.bundle import Manifest

DATA = """\
Native windows of the real clips of the training corpus: short extracts of footage that is published
in public repositories (demo results of generators with their camera originals, samples of vision
libraries), mostly without a stated licence for the footage, so it is not redistributed. The network
was taught to tell a real clip from altered copies of itself, both encoded alike; it saw no
generator's output. Clips of the split `measure` share no generator, no repository of real footage
and no known person with the training clips; nothing was trained, calibrated or chosen on them."""

USE = """\
To rank and to flag clips for a person to look at. It is no proof, in either direction, and must not
be the only ground of a decision about anybody. Below the lower threshold it says `authentic` only
in the sense that none of the traces it knows was found.

Limits, said plainly:
- It reads fine traces in untouched pixels of the face: noise, detail, resampling, blending. Footage
  that was scaled down, filtered, smoothed by a phone's camera or encoded at a low rate looks altered
  to it; a generator whose output was re-filmed or re-noised may look real.
- It reads luma only, and nothing of sound, speech or meaning.
- Small faces, single pictures and clips of less than a burst of frames are beyond it.
- The figures come from a few dozen clips; their intervals are wide. Kinds of forgery that are not
  in the table were not measured."""


def first_card(manifest: Manifest, size: int) -> str:
    """The card as Markdown. size: bytes of the two graphs."""
    title = f"# {manifest.id}\n"
    parts = [
        title,
        _what(manifest, size),
        "## Data\n\n" + DATA + "\n",
        _training(manifest.summary.get("training", {})),
        _calibration(manifest),
        _figures(manifest.summary.get("evaluation", {})),
        "## Intended use and limits\n\n" + USE + "\n",
        "## Licence\n\nMIT, as the rest of the project.\n",
    ]
    return "\n".join(p for p in parts if p)


def _what(manifest: Manifest, size: int) -> str:
    a, crop, sampling = manifest.architecture, manifest.crop, manifest.sampling
    return (
        f"Says how likely it is that the face in a clip was manipulated. Trunk `{a['trunk']}`, "
        f"{manifest.feature_size} features a sample, LSTM {manifest.feature_size} -> {a['hidden']}, ReLU, "
        f"linear, softmax over {', '.join(manifest.classes)}; {size / 1e6:.2f} MB, {manifest.precision}. "
        f"It sees {sampling.bursts} bursts of {sampling.burst_frames} consecutive frames of a clip, and of "
        f"each {crop.samples_per_burst} {crop.kind} windows of {crop.side} x {crop.side} pixels.\n"
    )


def _training(t: dict[str, Any]) -> str:
    if not t:
        return ""
    commands = "\n".join(t["commands"])
    return (
        f"## Training\n\n{t['clips']} real clips, {t['steps']} steps, {t['minutes']:.1f} minutes on "
        f"{t['threads']} core(s), seed {t['seed']}. No pretrained weights. The recipe is in the "
        f"repository and these commands made the bundle:\n\n```\n{commands}\n```\n"
    )


def _calibration(manifest: Manifest) -> str:
    c = manifest.calibration
    if c.id is None:
        return (
            "## Calibration\n\nNone: probabilities are the network's own softmax, thresholds are defaults.\n"
        )
    return (
        f"## Calibration\n\n`{c.id}`: {c.data}\n\nBelow {c.thresholds.authentic_below:.3f} the verdict is "
        f"`authentic`, from {c.thresholds.manipulated_above:.3f} on `manipulated`, "
        "between them `uncertain`.\n"
    )


def interval(figure: dict[str, Any]) -> str:
    """A figure with its interval, as `0.74 (0.63 to 0.83)`; `not measured` without one."""
    if figure.get("value") is None:
        return "not measured"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _figures(e: dict[str, Any]) -> str:
    if not e:
        return "## Figures\n\nNot measured.\n"
    rows = ["| Condition | Clips (real, fake) | AUC (95% interval) |", "|---|---|---|"]
    rows += [f"| {name} | {f['real']}, {f['fake']} | {interval(f)} |" for name, f in e["auc"].items()]
    pairs = ["| Kind of forgery | Exact pairs in order |", "|---|---|"]
    pairs += [f"| {name} | {p['won']} of {p['pairs']} |" for name, p in e["pairs"].items()]
    at = e["thresholds"]
    lines = [
        "## Figures",
        "",
        "Video level, on clips of the split `measure` that nothing was trained or chosen on, scored through "
        "this bundle and the service's own pipeline; bootstrap intervals by person.",
        "",
        *rows,
        "",
        "In an exact pair both clips show the same footage with the same encoding, one of them forged; it is "
        "in order when the forged one has the higher score.",
        "",
        *pairs,
        "",
        f"At the thresholds, {interval(at['false_positive_rate'])} of the real clips are called "
        f"`manipulated` and {interval(at['true_positive_rate'])} of the fakes; "
        f"{interval(at['uncertain_rate'])} of all are `uncertain`. "
        f"Expected calibration error {interval(e['calibration_error'])}. "
        f"{e['not_applicable']} of {e['clips']} clips had no usable face.",
        "",
    ]
    return "\n".join(lines)
