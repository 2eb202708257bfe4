"""Everything that the numbers of one sweep say, before any of it is drawn or worded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlpexp.analysis import effect_cells, failure_summary, load_sweep
from mlpexp.analysis.failure_summary import Trouble
from mlpexp.analysis.intervals import Estimate
from mlpexp.analysis.paired_tests import Comparison, compare, signed_rank
from mlpexp.analysis.pareto_front import front
from mlpexp.analysis.ranking import Ranking, rank
from mlpexp.analysis.sweep_table import Study
from mlpexp.analysis.variance import Decomposition, decompose
from mlpexp.nn.metrics import METRICS, columns
from mlpexp.runtime.errors import UserError
from mlpexp.store import run_files, sweep_manifest
from mlpexp.store.run_files import Provenance
from mlpexp.store.sweep_manifest import Manifest

COSTS = {"num_parameters": "parameters", "seconds": "seconds of training"}
FALLBACK_MONITOR = "val/loss"


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """One sweep; `validation` and `test` name the metrics that are shown, `ranking.by` the one that decides."""

    study: Study
    metric: str
    """`acc` or `loss`"""
    has_test: bool
    ranking: Ranking
    comparison: Comparison | None
    """None where there is no best, or nothing to compare it with"""
    signed_rank: float
    """p of Wilcoxon's test of best against runner-up, as a check; NaN where it cannot be had"""
    variance: Decomposition
    importance: list[int]
    """the factors, most important first"""
    levels: np.ndarray
    """(C, F) of `study.coarse`"""
    fronts: dict[str, np.ndarray]
    """cost -> (C,) whether on the Pareto front by validation"""
    trouble: Trouble
    provenance: Provenance
    plan: Manifest | None

    @property
    def validation(self) -> str:
        return f"val/{self.metric}"

    @property
    def test(self) -> str:
        return f"test/{self.metric}"

    @property
    def parts(self) -> dict[str, str]:
        """What is shown, with its metric: validation, and test where there was one."""
        return {"validation": self.validation} | ({"test": self.test} if self.has_test else {})

    @property
    def reported(self) -> str:
        """The metric that is reported of the best: the test's, where there was one."""
        return self.test if self.has_test else self.validation

    @property
    def best(self) -> int | None:
        return self.ranking.best

    @property
    def runner_up(self) -> int | None:
        order, finished = self.ranking.order, self.ranking.finished
        return int(order[1]) if len(order) > 1 and finished[order[1]] else None

    @property
    def seeds(self) -> int:
        """Runs that ended well of the best configuration."""
        return int(self.ranking.finished[self.best]) if self.best is not None else 0

    @property
    def planned(self) -> int:
        """How many runs the sweep was to have, as far as is known."""
        return max(len(self.plan.runs) if self.plan else 0, self.study.num_runs)

    def cells(self, part: str, keys: list[int]) -> dict[tuple[int, ...], Estimate]:
        return effect_cells.cells(self.levels, self.study.table(self.parts[part]), keys)


def analyse(directory: Path, metric: str = "acc", by: str | None = None) -> Analysis:
    """Read a sweep's directory and work out what its numbers say.

    Args:
        by: the validation metric that decides; by default the one by which the runs chose their best epoch.

    Raises:
        UserError: there is no sweep.
    """
    study = load_sweep.read(directory)
    provenance = run_files.provenance(directory, study.names)
    plan = _plan(directory)
    if by is None:
        by = provenance.monitors.most_common(1)[0][0] if provenance.monitors else FALLBACK_MONITOR
    if by not in columns("val"):
        by = FALLBACK_MONITOR
    ranking = rank(study, by)
    has_test = bool(np.isfinite(study.table(f"test/{metric}")).any())
    reported = study.table(f"test/{metric}" if has_test else f"val/{metric}")
    comparison, check = None, np.nan
    best = ranking.best
    if best is not None and (ranking.finished > 0).sum() > 1:
        comparison = compare(reported, best, paired=study.shares_seeds)
        if study.shares_seeds and ranking.finished[best] >= 10:
            check = signed_rank(reported[best] - reported[ranking.order[1]])
    validation = study.table(f"val/{metric}")
    levels = study.levels()
    variance = decompose(levels, validation)
    gain = ranking.means[f"val/{metric}"] * (1 if METRICS[metric].higher_is_better else -1)
    return Analysis(
        study=study,
        metric=metric,
        has_test=has_test,
        ranking=ranking,
        comparison=comparison,
        signed_rank=check,
        variance=variance,
        importance=_importance(variance, levels.shape[1]),
        levels=levels,
        fronts={name: front(ranking.means[name], gain) for name in COSTS},
        trouble=failure_summary.find(study),
        provenance=provenance,
        plan=plan,
    )


def _importance(variance: Decomposition, number: int) -> list[int]:
    """By what a key explains alone and with others; keys that explain equally much as they were typed."""
    weight = [sum(term.share for term in variance.terms if key in term.keys) for key in range(number)]
    return sorted(range(number), key=lambda key: -weight[key])


def _plan(directory: Path) -> Manifest | None:
    try:
        return sweep_manifest.read(directory)
    except UserError:
        return None  # the page can do without
