"""Runs that went wrong: diverged, failed, no better than guessing; how many, and where in the grid."""

from dataclasses import dataclass

import numpy as np

from mlpexp.analysis.sweep_table import Study
from mlpexp.analysis.swept_keys import Key


@dataclass(frozen=True, kw_only=True, eq=False)
class Trouble:
    """(N,) masks; a run is in at most one of them."""

    diverged: np.ndarray
    failed: np.ndarray
    unfinished: np.ndarray
    """interrupted or missing"""
    stopped: np.ndarray
    """out of the race by halving, which is no fault of theirs; their means would not be comparable"""
    chance: np.ndarray
    """no better than guessing after training, see `mlpexp.nn.chance_level`"""

    @property
    def counts(self) -> dict[str, int]:
        return {
            name: int(getattr(self, name).sum()) for name in ("diverged", "failed", "unfinished", "stopped", "chance")
        }

    def __bool__(self) -> bool:
        return any(self.counts.values())

    def by_level(self, key: Key) -> dict[str, list[int]]:
        """For each kind of trouble the number of runs at each level of a key; `runs` has all of them."""
        masks = {"runs": np.ones(len(key.codes), bool)} | {name: getattr(self, name) for name in self.counts}
        size = len(key.levels)
        return {name: np.bincount(key.codes[mask], minlength=size).tolist() for name, mask in masks.items()}


def find(study: Study) -> Trouble:
    """Every run of the study that went wrong."""
    diverged, failed, stopped = (study.status == name for name in ("diverged", "failed", "stopped"))
    return Trouble(
        diverged=diverged,
        failed=failed,
        unfinished=~(study.ok | diverged | failed | stopped),
        stopped=stopped,
        chance=study.status == "chance",
    )
