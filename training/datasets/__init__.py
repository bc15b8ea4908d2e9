"""Public deepfake data sets as they lie on disk, read into one kind of record.

Nothing is downloaded: each data set has its own terms and comes from its makers.
"""

from collections.abc import Callable
from pathlib import Path

from training.datasets.celebdf import read_celebdf
from training.datasets.dfdc import read_dfdc
from training.datasets.faceforensics import read_faceforensics
from training.datasets.record import Dataset, DatasetError, Record
from training.datasets.table import read_table

__all__ = ["KINDS", "Dataset", "DatasetError", "Record", "read_dataset"]

KINDS = ("faceforensics", "celebdf", "dfdc", "table")


def read_dataset(kind: str, root: Path, *, compression: str = "c23") -> Dataset:
    """The clips of the data set of this kind below `root` (for `table`: of the CSV file `root`).

    compression: which of FaceForensics++'s versions is read: c0 (also called raw), c23 or c40. Raises
    DatasetError, naming what is missing of the layout.
    """
    readers: dict[str, Callable[[Path], Dataset]] = {
        "faceforensics": lambda at: read_faceforensics(at, compression),
        "celebdf": read_celebdf,
        "dfdc": read_dfdc,
        "table": read_table,
    }
    if kind not in readers:
        raise DatasetError(f"unknown data set {kind!r}: there are {', '.join(KINDS)}")
    if not root.exists():
        raise DatasetError(f"{root} does not exist")
    return readers[kind](root)
