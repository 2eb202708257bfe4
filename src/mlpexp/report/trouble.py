"""Runs that went wrong: diverged, failed, no better than guessing; how many, and where in the grid."""

from dataclasses import dataclass

import numpy as np

from mlpexp.report.keys import Key
from mlpexp.report.study import Study

CLASSES = {"digits": 10, "wine": 3, "iris": 3}  # of the data sets that we know
CHANCE_FACTOR = 1.5  # times the accuracy of guessing, up to which a run has learned nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Trouble:
    """(N,) masks; a run is in at most one of them."""

    diverged: np.ndarray
    failed: np.ndarray
    unfinished: np.ndarray
    """interrupted or missing"""
    guessing: np.ndarray
    chance: float | None
    """the accuracy of guessing; None: not known"""

    @property
    def counts(self) -> dict[str, int]:
        return {name: int(getattr(self, name).sum()) for name in ("diverged", "failed", "unfinished", "guessing")}

    def __bool__(self) -> bool:
        return any(self.counts.values())

    def by_level(self, key: Key) -> dict[str, list[int]]:
        """For each kind of trouble the number of runs at each level of a key; `runs` has all of them."""
        masks = {"runs": np.ones(len(key.codes), bool)} | {name: getattr(self, name) for name in self.counts}
        size = len(key.levels)
        return {name: np.bincount(key.codes[mask], minlength=size).tolist() for name, mask in masks.items()}


def find(study: Study, classes: int | None) -> Trouble:
    """Every run of the study that went wrong.

    Args:
        classes: of the data; None: not known, so nobody can say what guessing would give.
    """
    chance = 1 / classes if classes else None
    accuracy = study.values["val/acc"]
    with np.errstate(invalid="ignore"):
        guessing = study.ok & (accuracy <= CHANCE_FACTOR * chance) if chance else np.zeros(study.num_runs, bool)
    diverged, failed = study.status == "diverged", study.status == "failed"
    return Trouble(
        diverged=diverged,
        failed=failed,
        unfinished=~(study.ok | diverged | failed),
        guessing=guessing,
        chance=chance,
    )
