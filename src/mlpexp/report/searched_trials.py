"""The trials of a search: their values, and with one objective their positions on the axes of the searched keys."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from mlpexp.analysis.swept_keys import labels
from mlpexp.report.figures.canvas import plain
from mlpexp.runtime.errors import UserError
from mlpexp.store.file_names import SEARCH
from mlpexp.tracking.figures.plot_style import short

MIN_TRIALS = 4  # with a value; the figures of fewer trials show nothing
LETTERS = 14
TREES_SEED = 0
FEW = 5  # steps of an axis up to which each has a tick
FREE = 0.2  # share of an axis without ticks at each of its ends


@dataclass(frozen=True, kw_only=True)
class SearchedKey:
    """A searched key, and each trial's position on its axis from 0 to 1; NaN where the trial does not have it.

    Attributes:
        ticks: positions with their labels.
    """

    name: str
    positions: np.ndarray
    ticks: list[tuple[float, str]]


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of a search.

    Attributes:
        values: of the objective, those of pruned trials as last compared; NaN where there is none, as of failed trials.
        complete: whether a trial has a final value; else it was pruned, or it failed.
        num_failed: how many have failed.
        importance: share of each key in the variance of the objective over the complete trials, by fANOVA; empty where
            it is not defined.
    """

    objective: str
    maximise: bool
    values: np.ndarray
    complete: np.ndarray
    num_failed: int
    keys: list[SearchedKey]
    importance: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Front:
    """The T trials with values of a search with O objectives.

    Attributes:
        values: (T, O).
        on_front: (T,), whether no other trial is better in one objective and at least as good in all others.
    """

    objectives: list[str]
    values: np.ndarray
    on_front: np.ndarray


def trials_of(directory: Path) -> Trials | None:
    """The trials of the search in `directory`; None where it is another sweep, or has too few outcomes.

    A search with several objectives has a `front_of`.
    """
    return _trials(directory, (directory / SEARCH).stat().st_mtime_ns) if (directory / SEARCH).is_file() else None


def front_of(directory: Path) -> Front | None:
    """The front of a search with several objectives; None where it has one, or too few outcomes."""
    if (found := _study_of(directory)) is None or len(found[0]) == 1:
        return None
    names, study = found
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if len(complete) < MIN_TRIALS:
        return None
    best = {trial.number for trial in study.best_trials}
    return Front(
        objectives=names,
        values=np.array([trial.values for trial in complete]),
        on_front=np.array([trial.number in best for trial in complete]),
    )


def _study_of(directory: Path) -> tuple[list[str], Any] | None:
    if not (directory / SEARCH).is_file():
        return None
    return _load(directory, (directory / SEARCH).stat().st_mtime_ns)


@lru_cache(maxsize=1)  # for all figures of one report
def _load(directory: Path, changed: int) -> tuple[list[str], Any] | None:
    try:
        from mlpexp.search import study_storage  # optuna: late, and an extra
    except (ImportError, UserError):
        return None
    try:
        return study_storage.load(directory)
    except UserError:  # damaged: the report can do without, and the next start of the search writes it again
        return None


@lru_cache(maxsize=1)
def _trials(directory: Path, changed: int) -> Trials | None:
    if (found := _load(directory, changed)) is None or len(found[0]) > 1:
        return None
    names, study = found
    trials = study.get_trials(deepcopy=False)
    complete = [trial.state.name == "COMPLETE" for trial in trials]
    if sum(complete) < MIN_TRIALS:
        return None
    distributions: dict[str, Any] = {}
    for trial in trials:
        distributions |= trial.distributions
    importance = _importance(study)
    labels_of = dict(zip(distributions, labels([key.lstrip("+") for key in distributions]), strict=True))
    order = sorted(distributions, key=lambda key: -importance.get(key, -1.0))
    return Trials(
        objective=names[0],
        maximise=study.direction.name == "MAXIMIZE",
        values=np.array(list(map(_value, trials))),
        complete=np.array(complete),
        num_failed=sum(trial.state.name == "FAIL" for trial in trials),
        keys=[_key(labels_of[key], distributions[key], [trial.params.get(key) for trial in trials]) for key in order],
        importance={labels_of[key]: share for key, share in importance.items()},
    )


def _value(trial: Any) -> float:
    """The value; of a pruned trial the one with which it was compared last; NaN for a failed one."""
    if trial.state.name == "COMPLETE":
        return float(trial.value)
    compared = trial.intermediate_values if trial.state.name == "PRUNED" else {}
    return float(compared[max(compared)]) if compared else math.nan


def _importance(study: Any) -> dict[str, float]:
    """Of the keys that all trained trials have."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    try:
        return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=TREES_SEED))
    except (ValueError, RuntimeError):  # one value only, or no key in common
        return {}


def _key(name: str, distribution: Any, values: Sequence[Any]) -> SearchedKey:
    if hasattr(distribution, "choices"):
        choices = [choice for choice in distribution.choices if choice in set(values)]
        step = max(1, len(choices) - 1)
        position_of = {choice: i / step if len(choices) > 1 else 0.5 for i, choice in enumerate(choices)}
        positions = [math.nan if value is None else position_of[value] for value in values]
        return SearchedKey(
            name=name,
            positions=np.array(positions),
            ticks=[(position_of[c], short(str(c), LETTERS)) for c in choices],
        )
    low, high = float(distribution.low), float(distribution.high)
    if low == high:
        positions = [math.nan if value is None else 0.5 for value in values]
        return SearchedKey(name=name, positions=np.array(positions), ticks=[(0.5, plain(low))])
    scale: Callable[[float], float] = math.log if distribution.log else float
    span = scale(high) - scale(low) or 1.0
    positions = [math.nan if value is None else (scale(float(value)) - scale(low)) / span for value in values]
    step = distribution.step or 0
    if step and (high - low) / step <= FEW:
        marks: Iterable[float] = np.arange(low, high, step)
    else:
        marks = (LogLocator() if distribution.log else MaxNLocator(4)).tick_values(low, high)
    inside = [float(tick) for tick in marks if low < tick < high]
    between = [
        (position, plain(tick))
        for tick in inside
        if FREE <= (position := (scale(tick) - scale(low)) / span) <= 1 - FREE
    ]
    ticks = [(0.0, plain(low)), *between, (1.0, plain(high))]
    return SearchedKey(name=name, positions=np.array(positions), ticks=ticks)
