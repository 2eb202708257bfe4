"""Which configuration is best: chosen by validation, whatever the test says."""

from dataclasses import dataclass

import numpy as np

from mlpexp.analysis.intervals import Estimate, mean_and_half
from mlpexp.analysis.sweep_table import Study
from mlpexp.nn.metrics import higher_is_better


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """All C configurations; arrays are by configuration, `order` says who comes when."""

    by: str
    """the validation metric that decides"""
    order: np.ndarray
    """(C,) the best first; those without a finished run last"""
    means: dict[str, np.ndarray]
    """metric -> (C,) mean over the runs that ended well"""
    halves: dict[str, np.ndarray]
    """metric -> (C,) half of its 95% interval"""
    finished: np.ndarray
    """(C,) runs that ended well"""
    runs: np.ndarray
    diverged: np.ndarray

    @property
    def best(self) -> int | None:
        """None where no run ended well."""
        return int(self.order[0]) if len(self.order) and self.finished[self.order[0]] else None

    def estimate(self, configuration: int, metric: str) -> Estimate:
        return Estimate(
            float(self.means[metric][configuration]),
            float(self.halves[metric][configuration]),
            int(self.finished[configuration]),
        )


def rank(study: Study, by: str) -> Ranking:
    """By the mean of a validation metric over seeds.

    Those of which less than half as many runs have ended well as usual (the median) come after the others, and so do
    those with a diverged run: a mean over the survivors would flatter them.
    """
    means, halves = {}, {}
    finished = np.zeros(study.num_configurations, int)
    for metric in study.values:
        means[metric], halves[metric], count = mean_and_half(study.table(metric))
        if metric == by:
            finished = count
    diverged = np.array([(study.status[m] == "diverged").sum() for m in study.members], dtype=int)
    other = "val/acc" if by == "val/loss" else "val/loss"
    worse, tie = (-means[name] if higher_is_better(name) else means[name] for name in (by, other))
    usual = np.median(finished[finished > 0]) if finished.any() else 0
    thin = finished < usual / 2
    return Ranking(
        by=by,
        order=np.lexsort((tie, worse, diverged > 0, thin, finished == 0)),
        means=means,
        halves=halves,
        finished=finished,
        runs=np.array([len(members) for members in study.members], dtype=int),
        diverged=diverged,
    )
