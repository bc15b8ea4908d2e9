"""Texts of others in CSV, which no spreadsheet may take for formulas (OWASP, "CSV injection")."""

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a text begins with that some spreadsheet computes, opens or runs; full-width forms count as well."""
GUARD = "'"
"""Spreadsheets take what follows for text."""


def guarded(text: str) -> str:
    """The text, with a guard before it where it needs one or would else be read as a guarded one."""
    return GUARD + text if _looks_dangerous(text) else text


def unguarded(cell: str) -> str:
    """The text of which `guarded` made the cell; others are left as they are."""
    return cell[1:] if cell.startswith(GUARD) and _looks_dangerous(cell) else cell


def _looks_dangerous(text: str) -> bool:
    return text.lstrip(GUARD).startswith(DANGEROUS)
