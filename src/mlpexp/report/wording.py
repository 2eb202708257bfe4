"""Numbers and lists as words of the report."""

from collections.abc import Sequence


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def listed(words: Sequence[str], total: int | None = None) -> str:
    """`a, b and c`, or `a, b and 7 more` of `total`."""
    more = (total or len(words)) - len(words)
    items = [*words, f"{more:,} more"] if more else list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
