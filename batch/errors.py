"""What ends a run; what is wrong with a single clip is a line of its results."""

from pipeline.errors import DetectError


class BatchError(DetectError):
    """The run can not begin as it was asked for. Asking again unchanged does not help."""


class Interrupted(DetectError):
    """The run has lost what it scores with. Started again it goes on after the last whole part."""
