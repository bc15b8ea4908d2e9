"""CSV with texts of others, none of which a spreadsheet may take for a formula (OWASP, "CSV injection")."""

import csv
import io
import re
from collections.abc import Iterable

DANGEROUS = "=+-@\t\r\n＝＋－＠"
"""What a cell begins with that some spreadsheet computes, opens or runs; full-width forms count as well."""
SEPARATORS = ";\t\r\n"
"""Besides commas: where a spreadsheet begins a cell that was not told of commas, quoted text or not."""
GUARD = "'"
"""Spreadsheets take what follows for text."""

_BEGIN = rf"(^|(?<=[{re.escape(SEPARATORS)}]))"
_DANGER = rf"(?=['\"]*[{re.escape(DANGEROUS)}])"
_TO_GUARD = re.compile(_BEGIN + _DANGER)
_GUARDED = re.compile(_BEGIN + GUARD + _DANGER)


def guarded(text: str) -> str:
    """The text, with a guard wherever a cell could begin that needs one or would else be read as guarded."""
    return _TO_GUARD.sub(GUARD, text)


def unguarded(cell: str) -> str:
    """The text of which `guarded` made the cell; others are left as they are."""
    return _GUARDED.sub("", cell)


def csv_line(row: Iterable[object]) -> str:
    """One row with its end (RFC 4180): texts guarded and quoted, numbers plain, None an empty text."""
    line = io.StringIO()
    cells = [guarded(value) if isinstance(value, str) else value for value in row]
    csv.writer(line, quoting=csv.QUOTE_NONNUMERIC).writerow(cells)
    return line.getvalue()
