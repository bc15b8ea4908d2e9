"""What all commands share: exit codes, and how a failure is told."""

import sys
from typing import NoReturn

from rich.console import Console

AUTHENTIC, MANIPULATED, UNDECIDED, ERROR = 0, 1, 2, 3
"""Exit codes of `scan`; `ERROR` is that of every command."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def fail(message: str) -> NoReturn:
    """Say in one line what is wrong and leave."""
    err.print(f"deepfake-detect: {message}", markup=False, soft_wrap=True)
    sys.exit(ERROR)
