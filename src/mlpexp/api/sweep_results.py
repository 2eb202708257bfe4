"""The results of a sweep: one table, curves, layers, weights and predictions of all runs, the report.

Letters: R runs, N samples, C classes, T values of a regression.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlpexp.analysis import load_sweep
from mlpexp.api.inline_report import InlineReport
from mlpexp.api.predictor import Predictor, prepared_inputs
from mlpexp.api.python_settings import leaves, plain_value, sweep_call
from mlpexp.api.run_results import RunResults, curves_of, layers_of, weights_after
from mlpexp.api.tables import Columns, Records
from mlpexp.runtime.errors import UserError, did_you_mean
from mlpexp.store import results_table
from mlpexp.store.file_names import RESULTS
from mlpexp.store.run_directory import FINITE

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlpexp.analysis.sweep_analysis import Analysis
    from mlpexp.api.ensemble_results import EnsembleResults
    from mlpexp.data.prepared_data import Prepared
    from mlpexp.evaluation.stacked_networks import StackedNetworks

Run = int | str | Mapping[str, Any]


class StackedWeights(dict[str, "Tensor"]):
    """Tensors (R, ...) by name; `runs` has the number of each run in the sweep, R."""

    runs: list[int]


class SweepResults(Predictor):
    """The runs of a sweep, in the order of its grid, or some of them (`select`).

    Attributes:
        directory: of the sweep.
    """

    def __init__(self, directory: Path, numbers: list[int] | None = None) -> None:
        self.directory = directory
        self._numbers = numbers
        _ = self.table

    @cached_property
    def table(self) -> Records:
        """One record for each run: `run`, `name`, `status`, the swept keys, metrics, epochs, seconds."""
        if (self.directory / RESULTS).is_file():
            records = results_table.load_results(self.directory)
        else:  # another launcher of Hydra's
            records = load_sweep.read(self.directory)[1].records
        return Records(row for row in records if self._numbers is None or row["run"] in self._numbers)

    @property
    def keys(self) -> list[str]:
        """The swept keys."""
        from mlpexp.analysis.sweep_table import is_swept

        return [name for name in (self.table[0] if self.table else ()) if is_swept(name)]

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[RunResults]:
        return (self[row["run"]] for row in self.table)

    def __getitem__(self, run: Run) -> RunResults:
        """A run by its number, its name, or its record."""
        name = str(self._record(run)["name"])
        return RunResults(self.directory / name, self.directory, name)

    def select(self, settings: Mapping[str, Any]) -> "SweepResults":
        """The runs with these values of swept keys, e.g. `select({"model.width": 64, "seed": [0, 1]})`.

        Raises:
            UserError: a key was not swept, or no run has such values.
        """
        values = {key: plain_value(value) for key, value in leaves(settings)}
        for key in values:
            if key not in (*self.keys, "run", "name", "status"):
                hint = did_you_mean(key, self.keys, f"swept were: {', '.join(self.keys) or 'none'}", cutoff=0.4)
                raise UserError(f"{key} was not swept in {self.directory}; {hint}")
        numbers = [row["run"] for row in self.table if all(_matches(row[key], value) for key, value in values.items())]
        if not numbers:
            raise UserError(f"no run of {self.directory} has {', '.join(f'{k}={v}' for k, v in values.items())}")
        return SweepResults(self.directory, numbers)

    def best(self) -> dict[str, Any]:
        """The record of the best run of the best configuration, by the monitored validation metric.

        Raises:
            UserError: no run has finite numbers.
        """
        from mlpexp.analysis.ranking import best_run

        study = self.analysis.study
        run = best_run(study, self.analysis.ranking)
        if run is None:
            raise UserError(f"no run of {self.directory} has finite numbers; results.csv says why")
        return self._record(study.names[run])

    def curves(self) -> Columns:
        """All epochs of all runs: `run`, the swept keys, `epoch`, `train/loss`, `val/acc`, ..."""
        return self._joined([curves_of(self.directory, str(row["name"])) for row in self.table])

    def layers(self) -> Columns:
        """Gradients and activations of each run, epoch (-1: before training) and layer, where they were recorded.

        Raises:
            UserError: no run has recorded them.
        """
        tables = [layers_of(self.directory, str(row["name"])) for row in self.table]
        if not any(tables):
            raise UserError(f"{self.directory} has no records of layers; train with tracking={{'diagnostics': True}}")
        return self._joined(tables)

    def model(self, run: Run | None = None) -> "nn.Module":
        """The network of a run (by default the best) as a module of torch; see `RunResults.model`."""
        return self[self.best() if run is None else run].model()

    def weights(self, epoch: int | None = None) -> StackedWeights:
        """The weights of all runs with finite numbers, stacked: `layers.0.weight` is (R, outputs, inputs).

        Args:
            epoch: those that were trained up to the end of this epoch, from 0; -1 is before training. By default those
                that each run was tested with.

        Raises:
            UserError: the runs have networks of different shapes; names the keys to `select` by. Or a run has not kept
                the weights of that epoch (`tracking.weights=every`).
        """
        groups = self._stacks
        shapes = {tuple(group.network.tensors.items()) for group in groups}
        if len(shapes) > 1:
            keys = ", ".join(key for key in self.keys if key.startswith(("model", "data"))) or "the architecture"
            raise UserError(f"the networks have different shapes; select runs of one shape, by {keys}")
        import torch

        order = [index for group in groups for index in group.runs]
        by_index = sorted(range(len(order)), key=order.__getitem__)
        weights = StackedWeights(
            {name: torch.cat([group.weights[name] for group in groups])[by_index] for name in groups[0].weights}
        )
        weights.runs = [self._finite[index]["run"] for index in sorted(order)]
        if epoch is None:
            return weights
        for row, index in enumerate(sorted(order)):
            directory = self.directory / str(self._finite[index]["name"])
            for name, values in weights_after(directory, epoch, {n: v[row] for n, v in weights.items()}).items():
                weights[name][row] = values
        return weights

    @property
    def class_names(self) -> list[str]:
        return list(self._stacks[0].data.class_names)

    def _outputs(self, samples: Any) -> NDArray[np.float64]:
        groups = self._stacks
        if len({(*group.data.class_names, None, *group.data.target_names) for group in groups}) > 1:
            raise UserError("the runs were trained on different classes; select runs of one data set")
        row_of = {row["run"]: index for index, row in enumerate(self.table)}
        outputs: NDArray[np.float64] | None = None
        for group in groups:
            values = group.predictions(prepared_inputs(samples, group.data))
            if outputs is None:
                outputs = np.full((len(self.table), *values.shape[1:]), np.nan)
            outputs[[row_of[self._finite[index]["run"]] for index in group.runs]] = values
        assert outputs is not None
        return outputs

    def ensemble(
        self, count: int | Literal["all"], by: Literal["best", "greedy", "seeds"] = "best"
    ) -> "EnsembleResults":
        """The average of runs that are chosen by validation; see docs/evaluate.md. `select` limits the choice.

        Args:
            count: of members, with `greedy` of picks, or `"all"`.
            by: best: the best runs. greedy: picks, with replacement, that lower the validation loss of the ensemble.
                seeds: runs of the best configuration.

        Raises:
            UserError: there are too few runs, or they differ in data, target, preprocessing or split.
        """
        from mlpexp.api.ensemble_results import EnsembleResults
        from mlpexp.evaluation import ensemble
        from mlpexp.evaluation.ensemble_members import Choice

        if count != "all" and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise UserError(f"ensemble({count!r}): give a number of members, 1 or more, or 'all'")
        if by not in ("best", "greedy", "seeds"):
            raise UserError(f"ensemble(by={by!r}): choose best, greedy or seeds")
        names = frozenset(str(row["name"]) for row in self.table)
        choice = Choice(count=None if count == "all" else count, by=by, names=names)
        return EnsembleResults(ensemble.load(self.directory, choice))

    @property
    def data(self) -> "Prepared":
        """The data of the best run; with swept data keys, `results[run].data` has that of another."""
        return self[self.best()].data

    def report(self) -> InlineReport:
        """Write the report into `report/` of the sweep's directory; a notebook shows it. It is of all runs."""
        return InlineReport.write(self.directory)

    @cached_property
    def analysis(self) -> "Analysis":
        """Ranking, comparisons and intervals, as the report shows them, of the runs in `table`.

        The directory may have more runs: those of a larger grid that was trained before.
        """
        from mlpexp.analysis.sweep_analysis import analyse, analyse_table
        from mlpexp.analysis.sweep_table import from_records

        of_all = analyse(self.directory)
        if set(of_all.study.names) == {str(row["name"]) for row in self.table}:
            return of_all
        results = of_all.sources.results
        identities = [results[name].identity if (name := str(row["name"])) in results else None for row in self.table]
        return analyse_table(from_records(self.directory, self.table, identities), of_all.sources)

    @property
    def _finite(self) -> list[dict[str, Any]]:
        return [row for row in self.table if row["status"] in FINITE]

    @cached_property
    def _stacks(self) -> "list[StackedNetworks]":
        """Places count within `_finite`."""
        from mlpexp.evaluation.stacked_networks import load_stacks

        directories = [self.directory / str(row["name"]) for row in self._finite]
        if not directories:
            raise UserError(f"no run of {self.directory} has finite numbers; results.csv says why")
        return list(load_stacks(directories))

    def _record(self, run: Run) -> dict[str, Any]:
        number_or_name = run["run"] if isinstance(run, Mapping) else run
        column = "name" if isinstance(number_or_name, str) else "run"
        for row in self.table:
            if row[column] == number_or_name:
                return row
        raise UserError(
            f"{self.directory} has no run {number_or_name!r}; `table` lists {len(self.table):,} by run and name"
        )

    def _joined(self, tables: Sequence[Columns]) -> Columns:
        """The tables of all runs as one, with each run's number and swept keys; NaN where a run lacks a column."""
        sizes = [table.num_rows for table in tables]
        joined = Columns()
        for key in ("run", *self.keys):
            joined[key] = np.repeat(_column([row[key] for row in self.table]), sizes)
        for name in dict.fromkeys(chain.from_iterable(tables)):
            pieces = [
                table.get(name, np.full(size, np.nan)) for table, size in zip(tables, sizes, strict=True) if table
            ]
            joined[name] = np.concatenate(pieces)
        return joined

    def __repr__(self) -> str:
        return f"<sweep {self.directory}: {len(self):,} runs of {', '.join(self.keys) or 'one configuration'}>"

    def _repr_html_(self) -> str:
        from mlpexp.report.sentences import headline

        try:
            lines = [sentence.split("\n") for sentence in headline(self.analysis)]
        except UserError as error:  # a notebook shows a result that cannot be displayed as a traceback
            lines = [[str(error)]]
        sentences = "".join(
            f"<p>{escape(first)}</p>" + "".join(f"<pre>{escape(sweep_call(command))}</pre>" for command in commands)
            for first, *commands in lines
        )
        return f"<p><code>{escape(str(self.directory))}</code>, {len(self):,} runs</p>{sentences}"


def _matches(value: Any, selected: Any) -> bool:
    return value in selected if isinstance(selected, list) else bool(value == selected)


def _column(values: list[Any]) -> np.ndarray:
    """An array of numbers, texts or booleans; of objects where values are of different types, or lists."""
    if {type(value) for value in values} in ({int}, {float}, {str}, {bool}):
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column
