"""What a figure of the page is made of."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from mlpexp.analysis.intervals import Estimate
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.analysis.swept_keys import Key
from mlpexp.nn.metrics import METRICS
from mlpexp.report.report_tables import Table


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with its words."""

    name: str
    title: str
    caption: str
    figure: Figure
    table: Table | None = None


def levels_kept(analysis: Analysis, k: int, limit: int) -> list[int]:
    """The levels of a key that are drawn: all, or those with the best means, always that of the best configuration."""
    key: Key = analysis.study.coarse[k]
    if len(key.levels) <= limit:
        return list(range(len(key.levels)))
    sign = 1 if METRICS[analysis.metric].higher_is_better else -1
    found: dict[tuple[int, ...], Estimate] = analysis.cells("validation", [k])
    ranked = sorted(found, key=lambda level: -sign * found[level].mean)
    best = int(analysis.levels[analysis.best, k])
    return sorted({best, *(level for (level,) in ranked[: limit - 1])})


def intervals(analysis: Analysis) -> str:
    return " Intervals: 95% over seeds." if analysis.seeds > 1 else " One run each: no intervals."
