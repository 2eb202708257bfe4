"""The runs of a sweep as arrays: which configuration and which repetition each run is.

N runs, C configurations, at most B repetitions (seeds, folds) of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlpexp.analysis import swept_keys
from mlpexp.analysis.swept_keys import Key
from mlpexp.nn.metric_columns import all_parts, higher_is_better, is_column
from mlpexp.store.results_table import HEAD, TAIL
from mlpexp.store.run_directory import FINITE

NUMBERS = ("epoch", "epochs", "num_parameters", "seconds")
NAMED_TWINS = 5
SPARSE = 50  # cells per run in the (C, B) table above which repetitions count as unshared


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepTable:
    """N runs; `directory` and `names` say where their files are."""

    directory: Path
    names: list[str]
    """each run's directory below `directory`"""
    status: np.ndarray
    """(N,) texts"""
    messages: list[str]
    values: dict[str, np.ndarray]
    """(N,) each metric and each of `NUMBERS`; NaN where there is none"""
    factors: list[Key]
    """swept keys that make configurations"""
    seeds: list[Key]
    """swept keys that make repetitions"""
    configuration: np.ndarray
    """(N,) the configuration of each run"""
    repetition: np.ndarray
    """(N,) the repetition that each run is"""
    shares_seeds: bool
    """repetition b has the same seeds in every configuration"""
    members: list[np.ndarray]
    """the runs of each configuration"""
    repeats: np.ndarray
    """(N,) an earlier run that is the same training, or -1"""
    counts_diverged: bool = False
    """diverged runs count, with the worst value of the sweep"""

    @property
    def num_runs(self) -> int:
        return len(self.names)

    @property
    def num_configurations(self) -> int:
        return len(self.members)

    @cached_property
    def finite(self) -> np.ndarray:
        """(N,) trained to the end with finite numbers; runs at chance level are among them."""
        return np.isin(self.status.astype(str), (*FINITE, *["diverged"] * self.counts_diverged))

    def with_diverged(self) -> "SweepTable":
        """The same runs, of which diverged ones count with the worst value that a run of the sweep has."""
        diverged, values = self.status == "diverged", dict(self.values)
        for name, column in self.values.items():
            finite = column[self.finite & np.isfinite(column)]
            if is_column(name) and len(finite):
                values[name] = np.where(diverged, finite.min() if higher_is_better(name) else finite.max(), column)
        return replace(self, values=values, counts_diverged=True)

    @cached_property
    def twins(self) -> dict[int, int]:
        """Configurations whose finite runs all repeat runs of one earlier configuration: that configuration."""
        twins: dict[int, int] = {}
        for configuration, runs in enumerate(self.members):
            repeated = self.repeats[runs[self.finite[runs]]]
            originals = set(self.configuration[repeated].tolist()) if (repeated >= 0).all() else set()
            originals.discard(configuration)
            if len(originals) == 1 and (original := originals.pop()) < configuration:
                twins[configuration] = original
        return twins

    @cached_property
    def counted(self) -> np.ndarray:
        """(N,) finite runs, each training once: those that enter means, rankings and tests."""
        within = self.configuration[self.repeats] == self.configuration
        of_a_twin = np.isin(self.configuration, list(self.twins))
        return self.finite & ~((self.repeats >= 0) & within) & ~of_a_twin

    @cached_property
    def coarse(self) -> list[Key]:
        """The factors, numbers with many levels in bins."""
        return [swept_keys.binned(key) for key in self.factors]

    def levels(self, coarse: bool = True) -> np.ndarray:
        """(C, F) the level of each factor in each configuration."""
        first_runs = np.array([runs[0] for runs in self.members], dtype=np.intp)
        columns = [key.codes[first_runs] for key in (self.coarse if coarse else self.factors)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(first_runs), 0), np.intp)

    def table(self, metric: str) -> np.ndarray:
        """(C, B) the metric by configuration and repetition; NaN where no run counts."""
        width = int(self.repetition.max()) + 1 if self.num_runs else 0
        values = np.full((self.num_configurations, width), np.nan)
        values[self.configuration[self.counted], self.repetition[self.counted]] = self.values[metric][self.counted]
        values[~np.isfinite(values)] = np.nan
        return values

    def describe(self, configuration: int, factors: Sequence[Key] | None = None) -> str:
        """`depth=2, width=64`, without keys that it does not have; of nothing but seeds `the only configuration`."""
        run = self.members[configuration][0]
        named = self.factors if factors is None else factors
        settings = {key.label: key.levels[key.codes[run]] for key in named}
        words = [f"{label}={level}" for label, level in settings.items() if level != swept_keys.ABSENT]
        return ", ".join(words) or ("the defaults" if settings else "the only configuration")

    def differing(self, configurations: Sequence[int]) -> tuple[list[Key], str]:
        """The factors in which these configurations differ, and a description of what they have in common."""
        runs = [self.members[c][0] for c in configurations]
        differing = [key for key in self.factors if len(set(key.codes[runs].tolist())) > 1]
        common = [key for key in self.factors if key not in differing]
        return differing, self.describe(configurations[0], common) if common else ""

    def repeat_sentences(self) -> list[str]:
        """Which runs do not count, since they are the same training as others."""
        uncounted = np.flatnonzero(self.finite & ~self.counted)
        if not len(uncounted):
            return []
        repeated = uncounted[self.repeats[uncounted] >= 0]
        keys = [
            key.name
            for key in (*self.factors, *self.seeds)
            if (key.codes[repeated] != key.codes[self.repeats[repeated]]).any()
        ]
        reason = f": different values of {' and '.join(keys)} change nothing" if keys else ": they are copies"
        sentences = [
            f"{len(uncounted):,} of {self.num_runs:,} runs are the same training as another run{reason}. "
            "Equal trainings count once."
        ]
        for twin, original in list(self.twins.items())[:NAMED_TWINS]:
            sentences.append(
                f"{self.describe(twin)} is the same training as {self.describe(original)}; only the latter is ranked."
            )
        return sentences


def from_records(
    directory: Path, records: Sequence[Mapping[str, Any]], identities: Sequence[str | None] = ()
) -> SweepTable:
    """The table of runs that `load_results` has read; see `from_columns`."""
    columns = records[0] if records else {}
    names = dict.fromkeys([*columns, *HEAD, *all_parts(filter(is_column, columns)), *TAIL])
    return from_columns(directory, {name: [row.get(name) for row in records] for name in names}, identities)


def from_columns(
    directory: Path, columns: Mapping[str, Sequence[Any]], identities: Sequence[str | None] = ()
) -> SweepTable:
    """The table of N runs; every column that is not known is a swept key.

    Args:
        columns: by name, each of N values; empty where there are no runs.
        identities: of each run, where known: equal identities are the same training.
    """
    count = len(next(iter(columns.values()), ()))
    empty = [None] * count
    # the metrics of the table, of every part; those of a run that a table of an earlier program lacks are left out
    metrics = all_parts(filter(is_column, columns))
    names = list(filter(is_swept, columns))
    swept = [swept_keys.read(n, l, columns[n]) for n, l in zip(names, swept_keys.labels(names), strict=True)]
    factors = [key for key in swept if not key.is_seed]
    seeds = [key for key in swept if key.is_seed]
    configuration = _numbered([key.codes for key in factors], count)
    members = _members(configuration)
    repetition = _numbered([key.codes for key in seeds], count)
    status = columns.get("status", empty)
    numbers = [columns.get(name, empty) for name in (*metrics, "epochs", "num_parameters")]
    repeats = _repeats(status, numbers, identities, members, seeds)
    # a copied run has the repetition of its original, and is no reason to call seeds unshared
    originals = np.flatnonzero(
        (repeats < 0) | (configuration != configuration[repeats]) | (repetition != repetition[repeats])
    )
    shares = is_shared(configuration[originals], repetition[originals], len(members))
    if not shares:  # each configuration counts its own
        for runs in members:
            repetition[runs] = np.arange(len(runs))
    return SweepTable(
        directory=directory,
        names=[str(name or "") for name in columns.get("name", empty)],
        status=np.array([str(value or "missing") for value in status], dtype=object),
        messages=[str(message or "") for message in columns.get("message", empty)],
        values={name: _numbers(columns.get(name, empty)) for name in (*metrics, *NUMBERS)},
        factors=factors,
        seeds=seeds,
        configuration=configuration,
        repetition=repetition,
        shares_seeds=shares and bool(seeds),
        members=members,
        repeats=repeats,
    )


def is_shared(configuration: np.ndarray, repetition: np.ndarray, size: int) -> bool:
    """Whether most repetitions occur in several configurations, each at most once in each."""
    if len(set(zip(configuration.tolist(), repetition.tolist(), strict=True))) < len(repetition):
        return False
    if size <= 1:
        return True
    shared = np.bincount(repetition, minlength=1)[repetition] > 1
    return bool(shared.mean() >= 0.5) and len(np.unique(repetition)) * size <= SPARSE * len(repetition)


def _repeats(
    status: Sequence[Any],
    columns: Sequence[Sequence[Any]],
    identities: Sequence[str | None],
    members: Sequence[np.ndarray],
    seeds: Sequence[Key],
) -> np.ndarray:
    """(N,) an earlier run that is the same training, or -1.

    Runs with one identity are the same training. So are the runs of a configuration that differ only in a seed that
    changes no metric there, such as `data.seed` where the data is not split.

    Args:
        columns: the numbers in which trainings that are not the same differ, each (N,).
    """
    repeats = np.full(len(status), -1, np.intp)
    first_run: dict[str, int] = {}
    for run, identity in enumerate(identities):
        if identity and identity.strip("0"):  # zeros are a placeholder
            repeats[run] = first_run.setdefault(identity, run)
    numbers = [row if text in FINITE else None for text, row in zip(status, zip(*columns, strict=True), strict=True)]
    for key in seeds:
        other_codes = [seed.codes for seed in seeds if seed is not key]
        for runs in members:
            groups: dict[tuple[int, ...], list[int]] = {}
            for run in runs.tolist():
                if numbers[run] is not None:
                    groups.setdefault(tuple(int(codes[run]) for codes in other_codes), []).append(run)
            repeated = [group for group in groups.values() if len(group) > 1]
            if repeated and all(numbers[run] == numbers[group[0]] for group in repeated for run in group):
                for group in repeated:
                    repeats[group] = group[0]
    repeats[repeats == np.arange(len(status))] = -1
    return repeats


def is_swept(column: str) -> bool:
    """Whether a column of results.csv is a swept key."""
    return column not in (*HEAD, *TAIL) and not is_column(column)


def _numbered(codes: Sequence[np.ndarray], length: int) -> np.ndarray:
    """(N,) equal numbers where all codes are equal, in order of first appearance."""
    if not codes:
        return np.zeros(length, np.intp)
    _, first_runs, inverse = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    order = np.empty(len(first_runs), np.intp)
    order[np.argsort(first_runs)] = np.arange(len(first_runs))
    return order[inverse.reshape(-1)]


def _members(configuration: np.ndarray) -> list[np.ndarray]:
    if not configuration.size:
        return []
    order = np.argsort(configuration, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(configuration[order])) + 1)


def _numbers(values: Sequence[Any]) -> np.ndarray:
    return np.array([v if isinstance(v, int | float) else np.nan for v in values], dtype=float)
