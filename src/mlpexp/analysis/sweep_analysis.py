"""The statistics of one sweep, before anything is drawn or worded."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from mlpexp.analysis import blocks, load_sweep
from mlpexp.analysis.blocks import Blocks
from mlpexp.analysis.comparison import Comparison, compare
from mlpexp.analysis.load_sweep import Sources
from mlpexp.analysis.ranking import Ranking, best_first, rank, usual_metric
from mlpexp.analysis.statistics import Estimate, cell_means, pareto_front
from mlpexp.analysis.sweep_table import SweepTable
from mlpexp.analysis.swept_keys import Key
from mlpexp.analysis.variance import Decomposition, decompose
from mlpexp.nn.losses import DEFAULTS, LOSSES, Task
from mlpexp.nn.metric_columns import headline, is_share, title
from mlpexp.nn.metrics import recorded
from mlpexp.runtime.errors import UserError

COSTS = {"num_parameters": "parameters", "seconds": "seconds of training"}
FALLBACK_MONITOR = "val/loss"
Diverged = Literal["last", "worst"]
MARGIN = 0.005  # half a percentage point
PROBLEMS = ("diverged", "failed", "unfinished", "stopped", "chance")
"""unfinished: interrupted or missing. stopped: eliminated by halving, so that its numbers cannot be compared."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """One sweep; `validation` and `test` name the metrics that are shown, `ranking.by` the one that decides."""

    study: SweepTable
    sources: Sources
    metric: str
    """e.g. `acc`"""
    has_test: bool
    ranking: Ranking
    comparison: Comparison | None
    """None where there is no best, or nothing to compare it with"""
    blocks: Blocks
    """the repetitions that count as independent"""
    variance: Decomposition

    @cached_property
    def importance(self) -> list[int]:
        """The factors by what they explain alone and in pairs; equal ones as they were typed."""
        terms, number = self.variance.terms, len(self.study.factors)
        weight = [sum(term.share for term in terms if key in term.keys) for key in range(number)]
        return sorted(range(number), key=lambda key: -weight[key])

    @cached_property
    def levels(self) -> np.ndarray:
        """(C, F) of `study.coarse`."""
        return self.study.levels()

    @cached_property
    def fronts(self) -> dict[str, np.ndarray]:
        """For each cost (C,) whether on the Pareto front by validation."""
        means = self.ranking.means
        gain = -best_first(means[self.validation], self.validation)
        return {name: pareto_front(means[name], gain) for name in COSTS}

    @cached_property
    def problems(self) -> dict[str, np.ndarray]:
        """(N,) mask for each of `PROBLEMS`, of which a run has at most one."""
        masks = {name: self.study.status == name for name in PROBLEMS}
        masks["unfinished"] = ~(self.study.finite | masks["diverged"] | masks["failed"] | masks["stopped"])
        return masks

    @property
    def title(self) -> str:
        """The metric with its unit, e.g. "loss (nats)"."""
        swept = [key.levels for key in self.study.factors if key.name == "loss.name"]
        plan = self.sources.plan
        losses = swept[0] if swept else [plan.constants.get("loss.name") if plan else None]
        task: Task = "regression" if headline(self.study.values) in recorded("regression")[1:] else "classification"
        names = {str(name) if name not in (None, "null", "") else DEFAULTS[task] for name in losses}
        return title(self.metric, names & set(LOSSES))

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
        return next(iter(self.ranking.ranked[1:]), None)

    @property
    def seeds(self) -> int:
        """Blocks of the best configuration: seeds, folds or data seeds that its interval is computed from."""
        return int(self.ranking.blocks[self.best]) if self.best is not None else 0

    @property
    def planned(self) -> int:
        """How many runs the sweep was to have, as far as is known."""
        plan = self.sources.plan
        return max(len(plan.runs) if plan else 0, self.study.num_runs)

    @property
    def missing(self) -> int:
        """How many planned runs have not ended."""
        return self.planned - self.study.num_runs + self.counts["unfinished"]

    @property
    def counts(self) -> dict[str, int]:
        """The number of runs with each problem."""
        return {name: int(mask.sum()) for name, mask in self.problems.items()}

    def problems_by_level(self, key: Key) -> dict[str, list[int]]:
        """The number of runs with each problem at each level of a key; `runs` counts all of them."""
        masks = {"runs": np.ones(len(key.codes), bool)} | self.problems
        size = len(key.levels)
        return {name: np.bincount(key.codes[mask], minlength=size).tolist() for name, mask in masks.items()}

    def cells(self, part: str, keys: Sequence[int]) -> dict[tuple[int, ...], Estimate]:
        """See `cell_means`; `part` is one of `parts`."""
        return cell_means(self.levels, self.blocks.table(self.parts[part]), keys, self.blocks.sampling)


def analyse(directory: Path, metric: str | None = None) -> Analysis:
    """Read a sweep's directory and compute its statistics; `metric` as for `analyse_table`.

    Raises:
        UserError: there is no sweep.
    """
    return analyse_table(*load_sweep.read(directory), metric)


def analyse_table(
    study: SweepTable,
    sources: Sources,
    metric: str | None = None,
    by: str | None = None,
    margin: float | None = None,
    diverged: Diverged = "last",
) -> Analysis:
    """
    Args:
        metric: which is shown; by default accuracy, of values RMSE.
        by: the validation metric that decides; by default the one by which the runs chose their best epoch.
        margin: differences of the metric below it do not matter; by default `MARGIN` for shares such as accuracy, and
            none for other metrics, of which no configuration is then called equivalent.
        diverged: `last` ranks configurations with a diverged run after those without; `worst` counts a diverged run
            with the worst value of the sweep.
    """
    if by is None:
        by = usual_metric(study, sources.monitors.most_common(1)[0][0] if sources.monitors else FALLBACK_MONITOR)
    if diverged == "worst":
        study = study.with_diverged()
    metric = metric or headline(study.values)
    _check_columns(study, metric, by)
    has_test = bool(np.isfinite(study.table(f"test/{metric}")).any())
    repetitions = blocks.independent_blocks(study, sources.data)
    ranking = rank(repetitions, by)
    comparison = None
    if ranking.best is not None and len(ranking.ranked) > 1:
        if margin is None and is_share(metric):
            margin = MARGIN
        comparison = compare(
            repetitions.table(f"test/{metric}" if has_test else f"val/{metric}"),
            ranking.best,
            -best_first(repetitions.table(by), by),
            paired=repetitions.shared,
            sampling=repetitions.sampling,
            margin=margin,
        )
    return Analysis(
        study=study,
        sources=sources,
        metric=metric,
        has_test=has_test,
        ranking=ranking,
        comparison=comparison,
        blocks=repetitions,
        variance=decompose(study.levels(), study.table(f"val/{metric}"), study.shares_seeds),
    )


def _check_columns(study: SweepTable, metric: str, by: str) -> None:
    """Raises `UserError` where a sweep lacks the validation metric that is shown or that decides."""
    columns = [name for name in study.values if name.startswith("val/")]
    for option, column in (("--metric", f"val/{metric}"), ("--by", by)):
        if column not in columns:
            choices = ", ".join(name.removeprefix("val/") if option == "--metric" else name for name in columns)
            raise UserError(f"{option}: {study.directory} has no {column}; choose one of {choices}")
