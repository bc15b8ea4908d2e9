"""Findings for people: a verdict, a sentence, and for each face how it looked over time, and why."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from cli.findings import Finding

COLOURS = {"authentic": "green", "manipulated": "red", "uncertain": "yellow", "not_applicable": "dim"}
BLOCKS = "▁▂▃▄▅▆▇█"
DIGITS = "0123456789"
"""Instead of blocks where the terminal has ASCII only: tenths."""
MOST_MARKS = 32
VERDICT_WIDTH = 16
QUOTES = dict.fromkeys(
    map(ord, '"\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}„‟«»〝〞＂'), "'"
)
PLACES = (
    ("upper left", "top", "upper right"),
    ("left", "middle", "right"),
    ("lower left", "bottom", "lower right"),
)
"""Thirds of the face as the picture shows it."""


class Table:
    """Prints each finding as it comes, and in the end how many there were of each kind.

    before: how often an earlier scan came to each verdict.
    """

    def __init__(self, console: Console, before: "Counter[str] | None" = None) -> None:
        self._console, self._before = console, before or Counter()
        self._counts: Counter[str] = Counter()

    def add(self, finding: Finding) -> None:
        """One file."""
        answer = finding.answer
        verdict = answer["verdict"] if answer else "error"
        self._counts[verdict] += 1
        style = f"bold {COLOURS.get(verdict, 'red')}"
        head = Text.assemble((verdict.replace("_", " ").ljust(VERDICT_WIDTH), style), shown(finding.file))
        if answer:
            head.append(f"  {answer['media']['duration_s']:.1f} s", "dim")
        self._say(head)
        if finding.error:
            self._below(Text(shown(finding.error["detail"])))
        if answer:
            self._below(Text(answer["summary"]))
            if said := origin(answer["media"].get("provenance", {})):
                self._below(Text(said, "dim"))
            self._faces(answer)

    def close(self) -> None:
        """The counts, where there are several."""
        all_of_them = self._counts + self._before
        if all_of_them.total() > 1:
            words = ", ".join(f"{n} {v.replace('_', ' ')}" for v, n in all_of_them.most_common())
            known = f", {self._before.total()} of them known before" if self._before else ""
            self._say(Text(f"{all_of_them.total()} files: {words}{known}", "bold"))

    def _faces(self, answer: dict[str, Any]) -> None:
        """Each with the line of its map; in the end why others have none, each reason once."""
        without: defaultdict[str, list[str]] = defaultdict(list)
        for face in answer["faces"]:
            thresholds = face.get("thresholds", answer["model"]["thresholds"])
            self._below(self._face(face, thresholds))
            if explanation := face["explanation"]:
                if line := why(explanation, thresholds):
                    self._below(line)
                else:
                    without[withheld(explanation)].append(str(face["track"]))
        for reason, tracks in without.items():
            of = f" for face {', '.join(tracks)}" if len(answer["faces"]) > 1 else ""
            self._below(Text(f"why        -  withheld{of}: {shown(reason)}", "dim"))

    def _face(self, face: dict[str, Any], thresholds: dict[str, float]) -> Text:
        """A line like `face 0   35%  ▂▂▃▂▁▁▂▃  0.0 to 4.0 s`."""
        fake = face["probabilities"] and face["probabilities"]["fake"]
        line = Text(f"face {face['track']:<2} ")
        if fake is None:
            line.append("   -", "dim")
        else:
            line.append(f"{fake:4.0%}", colour(fake, thresholds))
        line.append("  ")
        ascii_only = self._console.options.ascii_only
        line.append_text(sparkline([m["fake"] for m in face["timeline"]], thresholds, ascii_only=ascii_only))
        line.append(f"  {face['first_s']:.1f} to {face['last_s']:.1f} s", "dim")
        if face["quality"]["remarks"]:
            line.append(f"  {', '.join(face['quality']['remarks'])}", "dim")
        return line

    def _below(self, text: Text) -> None:
        """Under the name of the file, also where a terminal is too narrow for it."""
        if self._console.is_terminal:
            self._console.print(Padding(text, (0, 0, 0, VERDICT_WIDTH), expand=False))
        else:
            self._say(Text(" " * VERDICT_WIDTH).append_text(text))

    def _say(self, text: Text) -> None:
        self._console.print(text, soft_wrap=not self._console.is_terminal)


def origin(provenance: dict[str, Any]) -> str:
    """A sentence about a C2PA manifest, empty without one; an older service tells less of it.

    Its signer's name is a stranger's words: it comes last, and only where the signature holds.
    """
    found = defaultdict(lambda: None, provenance)
    if found["c2pa"] != "present":
        return ""
    if found["valid"] is None:
        why = f" ({found['unchecked']})" if found["unchecked"] else ""
        return f"C2PA manifest: present, not looked into{why}"
    if not found["valid"]:
        failed = f" ({', '.join(map(shown, found['codes']))})" if found["codes"] else ""
        return f"C2PA manifest: not valid{failed}"
    trust = {True: "trusted", False: "not trusted", None: "not held against any list of whom to trust"}
    named = f"; named {quoted(found['signer'])}" if found["signer"] else ""
    return f"C2PA manifest: valid, its signer is {trust[found['trusted']]}{named}"


def sparkline(fakes: list[float], thresholds: dict[str, float], *, ascii_only: bool = False) -> Text:
    """Probabilities over time as marks of that height and of the verdict's colour.

    Of more than MOST_MARKS moments neighbours share a mark, that of the highest among them.
    """
    marks = DIGITS if ascii_only else BLOCKS
    count = min(len(fakes), MOST_MARKS)
    bounds = [len(fakes) * i // count for i in range(count + 1)] if count else []
    line = Text()
    for start, end in pairwise(bounds):
        fake = max(fakes[start:end])
        line.append(marks[min(int(fake * len(marks)), len(marks) - 1)], colour(fake, thresholds))
    return line


def why(explanation: dict[str, Any], thresholds: dict[str, float]) -> Text | None:
    """A line like `why      89%  at 1.12 s, upper left; log-odds fall by 0.31 without ...`.

    It is about the most suspicious look that has a map and ends with the test of that map; None where none
    has one.
    """
    frame = next((f for f in explanation["frames"] if f["grid"]), None)
    if frame is None:
        return None
    line = Text("why     ")
    line.append(f"{frame['fake']:4.0%}", colour(frame["fake"], thresholds))
    line.append(f"  at {frame['time_s']:.2f} s, {place(frame['grid'])}")
    if test := frame["faithfulness"]:
        line.append(
            f"; log-odds {_moved(test['deletion'])} without the strongest {test['area']:.0%} of the map's "
            f"cells, {_moved(test['random'])} without as many at random",
            "dim",
        )
    return line


def withheld(explanation: dict[str, Any]) -> str:
    """Why no look has a map, in words."""
    first = next((f["withheld"] for f in explanation["frames"]), None)
    said: str = explanation["withheld"] or first or "no look"
    return said.split(": ", 1)[-1]


def place(grid: list[list[float]]) -> str:
    """Where the strongest cell of a map lies, in words."""
    cells = [value for row in grid for value in row]
    row, column = divmod(cells.index(max(cells)), len(grid[0]))
    return PLACES[_third(row, len(grid))][_third(column, len(grid[0]))]


def _third(at: int, of: int) -> int:
    return min(2, int(3 * (at + 0.5) / of))


def _moved(fall: float) -> str:
    return f"{'rise' if fall < 0 else 'fall'} by {abs(fall):.2f}"


def colour(fake: float, thresholds: dict[str, float]) -> str:
    """That of the verdict to which this probability alone would lead."""
    if fake >= thresholds["manipulated_above"]:
        return COLOURS["manipulated"]
    return COLOURS["authentic"] if fake < thresholds["authentic_below"] else COLOURS["uncertain"]


def shown(text: str) -> str:
    """Text of others, in which nothing can move a terminal's cursor or is not a character at all."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str) -> str:
    """The same as a quotation that it can not end."""
    return f'"{shown(text).translate(QUOTES)}"'
