"""Words that the sections of the document share."""


def counts(values: dict[str, int]) -> str:
    """Names with their counts, in their order."""
    return ", ".join(f"{name} {n}" for name, n in values.items()) or "none"


def met(is_met: bool, wanted: str) -> str:
    """Whether a target was met."""
    return f"target {wanted}: {'met' if is_met else 'missed'}"
