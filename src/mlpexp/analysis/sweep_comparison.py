"""Several sweeps side by side: the best of each, and whether they differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlpexp.analysis.paired_tests import Comparison, compare, granularity
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.metrics import higher_is_better


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The sweeps that have a best configuration; `comparison` is between those, None where only one has."""

    sweeps: list[int]
    best: int
    """of `sweeps`, by validation"""
    comparison: Comparison | None
    same_data: bool


def contest(analyses: Sequence[Analysis]) -> Contest | None:
    """Best against best, paired over the seeds that they share; None where no sweep has a finished run."""
    sweeps = [number for number, analysis in enumerate(analyses) if analysis.best is not None]
    if not sweeps:
        return None
    runs = [_by_seed(analyses[number]) for number in sweeps]
    seeds = sorted({seed for found in runs for seed in found})
    table = np.array([[found.get(seed, np.nan) for seed in seeds] for found in runs])
    by = analyses[sweeps[0]].ranking.by
    sign = 1 if higher_is_better(by) else -1
    means = [sign * analyses[number].ranking.means[by][analyses[number].best] for number in sweeps]
    best = int(np.argmax(means))
    shared = bool(np.isfinite(table).all(axis=0).sum() >= 2)
    # best against best are few values: the step between accuracies shows only in all runs together
    grain = min(granularity(analyses[number].study.table(analyses[number].reported)) for number in sweeps)
    digests = {digest for analysis in analyses for digest in analysis.provenance.data}
    return Contest(
        sweeps=sweeps,
        best=best,
        comparison=compare(table, best, paired=shared, grain=grain) if len(sweeps) > 1 else None,
        same_data=len(digests) <= 1,
    )


def _by_seed(analysis: Analysis) -> dict[tuple[str, ...], float]:
    """The reported metric of the best configuration's runs."""
    study = analysis.study
    assert analysis.best is not None
    found = {}
    for i in study.members[analysis.best]:
        value = study.values[analysis.reported][i]
        if study.ok[i] and np.isfinite(value):
            seed = tuple(f"{key.name}={key.levels[key.codes[i]]}" for key in study.seeds)
            found[seed] = float(value)
    return found
