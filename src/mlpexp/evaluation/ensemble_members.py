"""Which runs of a sweep may belong to an ensemble, in the order of their validation metric.

Results of the test part have no influence on the choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mlpexp.analysis.ranking import best_first
from mlpexp.analysis.sweep_analysis import Analysis, analyse
from mlpexp.analysis.swept_keys import ABSENT
from mlpexp.config import overrides
from mlpexp.runtime.errors import UserError, did_you_mean
from mlpexp.runtime.terminal import counted
from mlpexp.store.file_names import RESULT
from mlpexp.store.results_table import typed

By = Literal["best", "greedy", "seeds"]
MAX_LISTED = 10
LEFT_OUT = {"stopped": "stopped early", "diverged": "diverged", "failed": "failed", "unfinished": "unfinished"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How an ensemble is chosen.

    Attributes:
        count: of members, with `greedy` of picks; None for all.
        by: best: the runs with the best validation metric. greedy: see `greedy_selection`. seeds: the runs of the
            configuration that the ranking of the sweep has first.
        where: `KEY=VALUE` or `KEY=VALUE,VALUE`, conditions on swept keys for the runs that may be chosen.
        names: of the runs that may be chosen; None for all.
    """

    count: int | None
    by: By = "best"
    where: tuple[str, ...] = ()
    names: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Attributes:
    names: of the runs, the best by validation first, R.
    metric: the validation metric that orders them, e.g. `val/loss`.
    values: of this metric, R.
    recorded: validation metric -> its recorded values, R.
    is_chance: whether each is no better than guessing, R.
    left_out: how many of the runs that were admitted cannot be members, and why; None where all can.
    configuration: with `seeds`, a description of the one that was chosen.
    """

    names: list[str]
    metric: str
    values: list[float]
    recorded: dict[str, list[float]]
    is_chance: list[bool]
    left_out: str | None
    configuration: str | None = None


def find(sweep: Path, choice: Choice) -> Candidates:
    """The runs with finite numbers from which `choice` may choose.

    Raises:
        UserError: there is no sweep, a condition is wrong, or there are too few runs.
    """
    if choice.by == "greedy" and choice.count is None:
        raise UserError("greedy selection needs a number of picks, not all; give e.g. --ensemble 25")
    if (sweep / RESULT).is_file():
        raise UserError(f"{sweep} is a single run; an ensemble needs a sweep's directory, e.g. multirun/NAME")
    analysis = analyse(sweep)
    table, metric = analysis.study, analysis.ranking.by
    admitted = _where(analysis, choice.where)
    if choice.names is not None:
        admitted &= np.array([name in choice.names for name in table.names], dtype=bool)
    allowed = admitted & table.counted & np.isfinite(table.values[metric])
    left_out = _left_out(analysis, admitted)
    description = None
    if choice.by == "seeds" and allowed.any():
        configurations = set(table.configuration[allowed].tolist())
        best = next(c for c in analysis.ranking.order.tolist() if c in configurations)
        allowed &= table.configuration == best
        description = table.describe(best)
    order = _order(analysis, allowed)
    needed = 1 if choice.count is None or choice.by == "greedy" else choice.count
    if len(order) < needed:
        conditions = f" with {' '.join(choice.where)}" if choice.where else ""
        origin = f" of the best configuration ({description})" if description else ""
        advice = f"give --ensemble {len(order)} or fewer, or all" if order else "train further runs, or choose others"
        others = f" ({left_out})" if left_out else ""
        raise UserError(
            f"{sweep} has {counted(len(order), 'run')} with finite numbers{conditions}{origin}{others}; {advice}"
        )
    recorded = {name: values[order].tolist() for name, values in table.values.items() if name.startswith("val/")}
    return Candidates(
        names=[table.names[run] for run in order],
        metric=metric,
        values=table.values[metric][order].tolist(),
        recorded=recorded,
        is_chance=(table.status[order] == "chance").tolist(),
        left_out=left_out,
        configuration=description,
    )


def _left_out(analysis: Analysis, admitted: np.ndarray) -> str | None:
    """E.g. `5 of 12 runs cannot be members: 4 stopped early, 1 diverged`."""
    table = analysis.study
    masks = {text: analysis.problems[name] for name, text in LEFT_OUT.items()}
    masks["the same training as others"] = table.finite & ~table.counted
    counts, runs = {text: int((mask & admitted).sum()) for text, mask in masks.items()}, int(admitted.sum())
    if admitted.all():  # runs that have not begun are in no table
        counts[LEFT_OUT["unfinished"]], runs = analysis.missing, analysis.planned
    if not (total := sum(counts.values())):
        return None
    reasons = ", ".join(f"{count:,} {text}" for text, count in counts.items() if count)
    return f"{total:,} of {counted(runs, 'run')} cannot be members: {reasons}"


def _order(analysis: Analysis, allowed: np.ndarray) -> list[int]:
    """The allowed runs, the best first; of equal ones by the other validation metric, then as the grid has them."""
    table, metric = analysis.study, analysis.ranking.by
    second_metric = next((name for name in table.values if name.startswith("val/") and name != metric), metric)
    keys = [best_first(table.values[name], name) for name in (second_metric, metric)]
    return [run for run in np.lexsort(keys).tolist() if allowed[run]]


def _where(analysis: Analysis, conditions: Sequence[str]) -> np.ndarray:
    """(N,) the runs that meet all conditions."""
    directory, records = analysis.study.directory, analysis.sources.records
    keys = [key.name for key in (*analysis.study.factors, *analysis.study.seeds)]
    met = np.ones(len(records), dtype=bool)
    for condition in conditions:
        override = overrides.parse(condition)
        name, text = override.key, override.value_text
        if not text:
            raise UserError(f"--where {condition}: give KEY=VALUE, e.g. --where {(*keys, 'seed')[0]}=0")
        if name not in keys:
            hint = did_you_mean(name, keys, f"swept were: {', '.join(keys) or 'none'}", cutoff=0.4)
            raise UserError(f"--where {condition}: {name} was not swept in {directory}; {hint}")
        values = [row.get(name) for row in records]
        selected = [typed(name, text)]
        if selected[0] not in values:
            selected = [typed(name, piece) for piece in text.split(",")]
        selected = [None if value == ABSENT else value for value in selected]
        if absent := [value for value in selected if value not in values]:
            present = list(dict.fromkeys(ABSENT if value is None else str(value) for value in values))
            listed = ", ".join(present[:MAX_LISTED]) + ", …" * (len(present) > MAX_LISTED)
            raise UserError(f"--where {condition}: no run has {name}={absent[0]}; there are {listed}")
        met &= np.array([value in selected for value in values], dtype=bool)
    return met
