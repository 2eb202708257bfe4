"""Numbers and lists as words of the report."""

import math
from collections.abc import Sequence

from mlpexp.analysis.statistics import Estimate


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def spelled(estimate: Estimate) -> str:
    """`0.9712 ± 0.0021`"""
    if not math.isfinite(estimate.mean):
        return "–"
    return f"{estimate.mean:.4f}" + (f" ± {estimate.half:.4f}" if math.isfinite(estimate.half) else "")


def listed(words: Sequence[str], total: int | None = None) -> str:
    """`a, b and c`, or `a, b and 7 more` of `total`."""
    more = (total or len(words)) - len(words)
    parts = [*words, f"{more:,} more"] if more else list(words)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
