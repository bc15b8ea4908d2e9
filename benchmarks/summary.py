"""Statistics of what was measured, and how it is kept."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some measurements, and how many they were."""

    median: float
    least: float
    greatest: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Raises ValueError when there is none."""
        if not values:
            raise ValueError("no measurement, so no median")
        return cls(float(np.median(values)), min(values), max(values), len(values))

    def shown(self, digits: int = 2, scale: float = 1.0) -> str:
        """As `1.20 (1.10 to 1.35)`, each number times `scale`; a single one alone."""
        median, least, greatest = (
            f"{v * scale:.{digits}f}" for v in (self.median, self.least, self.greatest)
        )
        return median if self.count == 1 else f"{median} ({least} to {greatest})"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed, linear between neighbours.

    Raises ValueError when there is none.
    """
    if not values:
        raise ValueError("no measurement, so no percentile")
    return float(np.quantile(values, share))


def rounded(value: object) -> object:
    """Lists and dictionaries with every float cut to six significant digits: finer ones are noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return value


def as_json(value: object) -> str:
    """Results as text for a file: rounded, each list of plain values on one line."""
    text = json.dumps(rounded(value), indent=1) + "\n"
    return re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers[0].split()), text)
