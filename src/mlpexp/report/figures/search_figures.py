"""Figures of a search with one objective: its history, the importance of keys, values by key, parallel coordinates."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.analysis.swept_keys import labels
from mlpexp.nn.metric_columns import label
from mlpexp.report.figures.canvas import CATEGORIES, ORDERED, label_width, plain, value_axis
from mlpexp.report.report_figure import FIGURES, Entry, ReportFigure
from mlpexp.runtime.errors import UserError
from mlpexp.store.file_names import SEARCH
from mlpexp.tracking.figures.plot_style import FAINT, GRID, headline, in_house_style, new_figure, place, short

LEAST = 4  # trials with a value from which there is something to see
MOST_KEYS = 8
LETTERS = 14
TREES_SEED = 0
LONG = 5  # letters of a tick from which it is written upright
PANEL, GAP = 1.9, 0.85  # inches
FEW = 5  # steps of an axis, of which each has a tick
FREE = 0.2  # of an axis, around the ticks at its ends


@dataclass(frozen=True, kw_only=True)
class SearchedKey:
    """A searched key, and each trial's place on its axis from 0 to 1; NaN where the trial does not have it.

    Attributes:
        ticks: places with their labels.
    """

    name: str
    places: np.ndarray
    ticks: list[tuple[float, str]]


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of a search.

    Attributes:
        values: of the objective, those of pruned trials as last compared; NaN where there is none.
        pruned: whether a trial ended early.
        importance: share of each key in the variance of the objective, by fANOVA; empty where it cannot be told.
    """

    objective: str
    maximise: bool
    values: np.ndarray
    pruned: np.ndarray
    keys: list[SearchedKey]
    importance: dict[str, float]


def _trials(analysis: Analysis) -> Trials | None:
    """The trials of a search with one objective and some outcomes; None for any other sweep."""
    directory = analysis.study.directory
    if not (directory / SEARCH).is_file():
        return None
    return _load(directory, (directory / SEARCH).stat().st_mtime_ns)


@lru_cache(maxsize=1)  # for all figures of one report
def _load(directory: Path, changed: int) -> Trials | None:
    try:
        from mlpexp.search import study_storage  # optuna: late, and an extra
    except (ImportError, UserError):
        return None
    try:
        loaded = study_storage.load(directory)
    except UserError:  # damaged: the report can do without, and the next start of the search writes it again
        return None
    if loaded is None or len(loaded[0]) > 1:
        return None
    names, study = loaded
    trials = study.get_trials(deepcopy=False)
    complete = [trial.state.name == "COMPLETE" for trial in trials]
    if sum(complete) < LEAST:
        return None
    values = [
        trial.value if done else _last(trial.intermediate_values) for trial, done in zip(trials, complete, strict=True)
    ]
    distributions: dict[str, Any] = {}
    for trial in trials:
        distributions |= trial.distributions
    importance = _importance(study)
    shown = dict(zip(distributions, labels([key.lstrip("+") for key in distributions]), strict=True))
    order = sorted(distributions, key=lambda key: -importance.get(key, -1.0))
    return Trials(
        objective=names[0],
        maximise=study.direction.name == "MAXIMIZE",
        values=np.array([math.nan if value is None else value for value in values]),
        pruned=~np.array(complete),
        keys=[_key(shown[key], distributions[key], [trial.params.get(key) for trial in trials]) for key in order],
        importance={shown[key]: share for key, share in importance.items()},
    )


def _last(values: dict[int, float]) -> float:
    return values[max(values)] if values else math.nan


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
        at = {choice: i / step if len(choices) > 1 else 0.5 for i, choice in enumerate(choices)}
        places = [math.nan if value is None else at[value] for value in values]
        return SearchedKey(name=name, places=np.array(places), ticks=[(at[c], short(str(c), LETTERS)) for c in choices])
    low, high = float(distribution.low), float(distribution.high)
    scale: Callable[[float], float] = math.log if distribution.log else float
    span = scale(high) - scale(low) or 1.0
    places = [math.nan if value is None else (scale(float(value)) - scale(low)) / span for value in values]
    step = distribution.step or 0
    if step and (high - low) / step <= FEW:
        marks: Iterable[float] = np.arange(low, high, step)
    else:
        marks = (LogLocator() if distribution.log else MaxNLocator(4)).tick_values(low, high)
    inside = [float(tick) for tick in marks if low < tick < high]
    between = [
        (place, plain(tick)) for tick in inside if FREE <= (place := (scale(tick) - scale(low)) / span) <= 1 - FREE
    ]
    ticks = [(0.0, plain(low)), *between, (1.0, plain(high))]
    return SearchedKey(name=name, places=np.array(places), ticks=ticks)


def _title(trials: Trials) -> str:
    return label(trials.objective) if "/" in trials.objective else trials.objective.replace("_", " ")


def history(analysis: Analysis) -> ReportFigure | None:
    """The values of trials in their order, and the best so far."""
    if (trials := _trials(analysis)) is None:
        return None
    ended = int((~trials.pruned).sum())
    caption = f"{ended:,} trials that were trained to the end, and the best of them so far."
    if rest := int((trials.pruned & np.isfinite(trials.values)).sum()):
        caption += f" Crosses: {rest:,} trials that were pruned, as far as their last values are on the axis."
    return ReportFigure(title="History of the search", caption=caption, figure=draw_history(trials))


@in_house_style
def draw_history(trials: Trials) -> Figure:
    figure = new_figure(6.4, 3.2)
    axes = place(figure, 0.75, 0.55, 5.4, 2.2)
    numbers = np.arange(1, len(trials.values) + 1)
    done = ~trials.pruned
    finite = np.isfinite(trials.values)
    axes.plot(numbers[done], trials.values[done], "o", color=CATEGORIES[0], alpha=0.6)
    axes.plot(numbers[~done & finite], trials.values[~done & finite], "x", color=FAINT)
    best = np.maximum.accumulate if trials.maximise else np.minimum.accumulate
    axes.step(numbers[done], best(trials.values[done]), where="post", color=CATEGORIES[1])
    value_axis(axes, trials.values[done])
    axes.set_xlabel("trial")
    axes.set_ylabel(_title(trials))
    headline(figure, "History of the search")
    return figure


def importance(analysis: Analysis) -> ReportFigure | None:
    """The share of each key in the variance of the objective."""
    trials = _trials(analysis)
    if trials is None or not trials.importance:
        return None
    caption = (
        "fANOVA (Hutter et al., 2014): a random forest is fitted to the trials that were trained to the end, and its "
        "variance over the space is divided among the keys. Describes the forest; nothing is tested."
    )
    if missing := [key.name for key in trials.keys if key.name not in trials.importance]:
        caption += f" Not all of these trials have {', '.join(missing)}."
    return ReportFigure(title="Importance of the searched keys", caption=caption, figure=draw_importance(trials))


@in_house_style
def draw_importance(trials: Trials) -> Figure:
    pairs = sorted(trials.importance.items(), key=lambda pair: -pair[1])[: 2 * MOST_KEYS]
    names = [name for name, _ in pairs]
    left, up = label_width(names, 34) + 0.2, 0.27 * len(pairs)
    figure = new_figure(left + 5.0, up + 0.95)
    axes = place(figure, left, 0.5, 4.2, up)
    axes.barh(range(len(pairs)), [share for _, share in pairs], height=0.62, color=CATEGORIES[0])
    for row, (_, share) in enumerate(pairs):
        axes.annotate(f"{share:.1%}", (share, row), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(pairs)), [short(name, 34) for name in names])
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlim(0, max(share for _, share in pairs) * 1.05)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"share of the variance of {_title(trials)}")
    headline(figure, "Importance of the searched keys")
    return figure


def slices(analysis: Analysis) -> ReportFigure | None:
    """The values of trials by each key."""
    if (trials := _trials(analysis)) is None:
        return None
    caption = "Each point is a trial; from blue, the first, to orange, the last."
    if len(trials.keys) > MOST_KEYS:
        caption += f" The {MOST_KEYS} most important of {len(trials.keys)} keys are drawn."
    return ReportFigure(title="Trials by key", caption=caption, figure=draw_slices(trials))


@in_house_style
def draw_slices(trials: Trials) -> Figure:
    keys = trials.keys[:MOST_KEYS]
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    long = any(len(text) > LONG for key in keys for _, text in key.ticks)
    height, below = 1.7, 1.0 if long else 0.4
    figure = new_figure(0.5 + columns * (PANEL + GAP), rows * (height + below + 0.4) + 0.4)
    done = ~trials.pruned
    shades = ORDERED(np.linspace(0, 1, len(done)))
    for i, key in enumerate(keys):
        row, column = divmod(i, columns)
        bottom = (rows - 1 - row) * (height + below + 0.4) + below
        axes = place(figure, 0.7 + column * (PANEL + GAP), bottom, PANEL, height)
        axes.scatter(key.places[done], trials.values[done], s=14, c=shades[done], alpha=0.8)
        value_axis(axes, trials.values[done])
        _ticks(axes, key, rotated=any(len(text) > LONG for _, text in key.ticks))
        axes.set_xlim(-0.08, 1.08)
        axes.set_title(key.name, size=9)
        if column == 0:
            axes.set_ylabel(_title(trials))
    headline(figure, "Trials by key")
    return figure


def _ticks(axes: Axes, key: SearchedKey, *, rotated: bool) -> None:
    kept = key.ticks[:: max(1, -(-len(key.ticks) // 8))]
    axes.set_xticks([at for at, _ in kept], [text for _, text in kept], rotation=90 if rotated else 0)


def parallel(analysis: Analysis) -> ReportFigure | None:
    """One line for each trial over an axis for each key."""
    trials = _trials(analysis)
    if trials is None or len(trials.keys) < 2:
        return None
    keys = min(MOST_KEYS, len(trials.keys))
    caption = "Each line is a trial that was trained to the end; from blue, the best, to orange, the worst."
    if keys < len(trials.keys):
        caption += f" The {keys} most important of {len(trials.keys)} keys are drawn."
    return ReportFigure(title="Parallel coordinates of the trials", caption=caption, figure=draw_parallel(trials))


@in_house_style
def draw_parallel(trials: Trials) -> Figure:
    keys = trials.keys[:MOST_KEYS]
    gap, up = 1.15, 2.4
    left = 0.5
    figure = new_figure(left + gap * (len(keys) - 1) + 1.15, up + 1.0)
    axes = place(figure, left, 0.45, gap * (len(keys) - 1), up)
    done = ~trials.pruned & np.isfinite(trials.values)
    points = np.stack([key.places[done] for key in keys], 1)  # (trials, keys)
    values = trials.values[done] if trials.maximise else -trials.values[done]
    ranks = values.argsort().argsort() / max(1, len(values) - 1)  # 1: the best
    order = ranks.argsort()
    lines = [
        np.column_stack([np.arange(len(keys))[there], points[i][there]])
        for i in order
        if (there := np.isfinite(points[i])).any()
    ]
    axes.add_collection(LineCollection(lines, colors=ORDERED(1 - ranks[order]), linewidths=1.0, alpha=0.8))
    axes.set_xlim(-0.02, len(keys) - 1 + 0.02)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    for place_, key in enumerate(keys):
        axes.axvline(place_, color=GRID, zorder=0)
        axes.annotate(
            short(key.name, 11), (place_, -0.04), xytext=(0, -6), textcoords="offset points", ha="center", va="top"
        )
        for at, text in key.ticks[:: max(1, -(-len(key.ticks) // 8))]:
            beside: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
            beside["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.annotate(short(text, 9), (place_, at), size=7, color=FAINT, **beside)
    headline(figure, f"Parallel coordinates, {_title(trials)}")
    return figure


FIGURES.register("search_history", Entry(90, history))
FIGURES.register("search_importance", Entry(91, importance))
FIGURES.register("search_slices", Entry(92, slices))
FIGURES.register("search_parallel", Entry(93, parallel))
