"""Which configuration is best: chosen by validation, whatever the test says."""

from dataclasses import dataclass

import numpy as np

from mlpexp.report.intervals import mean_and_half
from mlpexp.report.study import Study


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """All C configurations; arrays are by configuration, `order` says who comes when."""

    order: np.ndarray
    """(C,) the best first; those without a finished run last"""
    validation: np.ndarray
    validation_half: np.ndarray
    test: np.ndarray
    test_half: np.ndarray
    finished: np.ndarray
    """(C,) runs that ended well"""
    runs: np.ndarray
    diverged: np.ndarray
    others: np.ndarray
    """(C,) failed, interrupted, missing"""

    @property
    def best(self) -> int | None:
        """None where no run ended well."""
        return int(self.order[0]) if len(self.order) and self.finished[self.order[0]] else None


def rank(study: Study, metric: str) -> Ranking:
    """By the mean validation metric over seeds.

    Those of which less than half as many runs have ended well as of the fullest come after the others, and so do
    those with a diverged run: a mean over the survivors would flatter them. Ties are broken by validation loss.
    """
    validation, validation_half, finished = mean_and_half(study.table(f"val/{metric}"))
    test, test_half, _ = mean_and_half(study.table(f"test/{metric}"))
    loss = mean_and_half(study.table("val/loss"))[0]
    runs = np.array([len(members) for members in study.members], dtype=int)
    diverged = np.array([(study.status[m] == "diverged").sum() for m in study.members], dtype=int)
    worse = validation if metric == "loss" else -validation
    thin = finished < finished.max(initial=0) / 2
    order = np.lexsort((loss, worse, diverged > 0, thin, finished == 0))
    return Ranking(
        order=order,
        validation=validation,
        validation_half=validation_half,
        test=test,
        test_half=test_half,
        finished=finished,
        runs=runs,
        diverged=diverged,
        others=runs - diverged - np.array([study.ok[m].sum() for m in study.members], dtype=int),
    )
