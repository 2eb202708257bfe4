"""A sweep's table as arrays: who belongs to which configuration, and which repetition of it a run is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlpexp.analysis import swept_keys
from mlpexp.analysis.swept_keys import Key
from mlpexp.nn.metrics import epoch_columns, final_columns, is_column
from mlpexp.store.results_table import HEAD, TAIL
from mlpexp.store.run_directory import FINITE

NUMBERS = ("epoch", "epochs", "num_parameters", "seconds")
SPARSE = 50  # cells per run in the table of configurations by seeds, above which seeds count as unshared


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """The N runs of a sweep: C configurations, each repeated over at most B seeds."""

    directory: Path
    names: list[str]
    """a run's directory below `directory`"""
    status: np.ndarray
    """(N,) texts"""
    messages: list[str]
    values: dict[str, np.ndarray]
    """(N,) each: metrics, seconds, parameters; NaN where there is none"""
    factors: list[Key]
    seeds: list[Key]
    configuration: np.ndarray
    """(N,) which configuration a run is of"""
    repetition: np.ndarray
    """(N,) which repetition"""
    shares_seeds: bool
    """repetition b is the same seed in every configuration"""
    members: list[np.ndarray] = field(default_factory=list)
    """the runs of each configuration"""

    @property
    def num_runs(self) -> int:
        return len(self.names)

    @property
    def num_configurations(self) -> int:
        return len(self.members)

    @cached_property
    def ok(self) -> np.ndarray:
        """(N,) trained to the end with finite numbers; runs at chance level are among them."""
        return np.isin(self.status.astype(str), FINITE)

    @cached_property
    def coarse(self) -> list[Key]:
        """The factors, numbers with many levels in bins."""
        return [swept_keys.binned(key) for key in self.factors]

    def levels(self, coarse: bool = True) -> np.ndarray:
        """(C, F): the level of each factor in each configuration."""
        first = np.array([runs[0] for runs in self.members], dtype=np.intp)
        columns = [key.codes[first] for key in (self.coarse if coarse else self.factors)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(first), 0), np.intp)

    def table(self, metric: str) -> np.ndarray:
        """(C, B): the metric by configuration and repetition; NaN where no run came to a good end."""
        width = int(self.repetition.max()) + 1 if self.num_runs else 0
        found = np.full((self.num_configurations, width), np.nan)
        found[self.configuration[self.ok], self.repetition[self.ok]] = self.values[metric][self.ok]
        found[~np.isfinite(found)] = np.nan
        return found

    def describe(self, configuration: int, factors: Sequence[Key] | None = None) -> str:
        """`depth=2, width=64`, or what a sweep over nothing but seeds has."""
        run = self.members[configuration][0]
        named = self.factors if factors is None else factors
        return ", ".join(f"{key.label}={key.levels[key.codes[run]]}" for key in named) or "the one configuration"

    def apart(self, configurations: Sequence[int]) -> tuple[list[Key], str]:
        """The factors in which these configurations differ, and in words what they have in common."""
        runs = [self.members[c][0] for c in configurations]
        differing = [key for key in self.factors if len(set(key.codes[runs].tolist())) > 1]
        same = [key for key in self.factors if key not in differing]
        return differing, self.describe(configurations[0], same) if same else ""


def from_records(directory: Path, records: Sequence[dict[str, Any]]) -> Study:
    """The study that `mlpexp.load_results` has read; any column that is not known is a swept key."""
    given = [name for name in records[0] if name is not None] if records else []
    metrics = dict.fromkeys([*epoch_columns(), *final_columns(), *(name for name in given if is_column(name))])
    names = [name for name in given if name not in metrics and name not in (*HEAD, *TAIL)]
    labels = swept_keys.labels(names)
    swept = [swept_keys.read(n, l, [row.get(n) for row in records]) for n, l in zip(names, labels, strict=True)]
    factors = [key for key in swept if not key.is_seed]
    seeds = [key for key in swept if key.is_seed]
    configuration = _numbered([key.codes for key in factors], len(records))
    members = _members(configuration)
    repetition = _numbered([key.codes for key in seeds], len(records))
    width = len(np.unique(repetition))
    pairs = len(set(zip(configuration.tolist(), repetition.tolist(), strict=True)))
    in_company = np.bincount(repetition, minlength=1)[repetition] > 1
    shares = len(members) <= 1 or (in_company.mean() >= 0.5 and width * len(members) <= SPARSE * len(records))
    shares = shares and pairs == len(records)
    if not shares:  # each configuration counts its own
        for runs in members:
            repetition[runs] = np.arange(len(runs))
    return Study(
        directory=directory,
        names=[str(row.get("name") or "") for row in records],
        status=np.array([str(row.get("status") or "missing") for row in records], dtype=object),
        messages=[str(row.get("message") or "") for row in records],
        values={name: _column(records, name) for name in (*metrics, *NUMBERS)},
        factors=factors,
        seeds=seeds,
        configuration=configuration,
        repetition=repetition,
        shares_seeds=shares and bool(seeds),
        members=members,
    )


def _numbered(codes: Sequence[np.ndarray], length: int) -> np.ndarray:
    """(N,) equal numbers where all codes are equal, in order of first appearance."""
    if not codes:
        return np.zeros(length, np.intp)
    _, first, inverse = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.intp)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse.reshape(-1)]


def _members(configuration: np.ndarray) -> list[np.ndarray]:
    if not configuration.size:
        return []
    order = np.argsort(configuration, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(configuration[order])) + 1)


def _column(records: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    found = (row.get(name) for row in records)
    return np.array([v if isinstance(v, int | float) else np.nan for v in found], dtype=float)
