"""The evaluation of a regression: metrics, tables and figures.

Letters: N samples, T targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from mlpexp.data.data_description import Description
from mlpexp.evaluation.evaluation_files import Content
from mlpexp.store.csv_tables import csv_text
from mlpexp.tracking import figures


@dataclass(frozen=True, kw_only=True)
class TargetMetrics:
    """Metrics of one target in its units; `bias` is the mean of predicted minus true values."""

    name: str
    rmse: float
    mae: float
    r2: float
    bias: float


@dataclass(frozen=True, kw_only=True)
class ValueEvaluation:
    """Predictions of a regression, and their errors.

    Attributes:
        index: the samples' rows in the whole data set, (N,).
        predicted, true: (N, T) in the units of the targets.
        measured: the metrics that the run records, of these samples.
    """

    index: NDArray[np.int64]
    predicted: NDArray[np.float64]
    true: NDArray[np.float64]
    measured: Mapping[str, float]
    data: Description

    @property
    def targets(self) -> list[TargetMetrics]:
        """The metrics of each target; R² is NaN for fewer than two samples."""
        metrics = []
        for name, predicted, true in zip(self.data.target_names, self.predicted.T, self.true.T, strict=True):
            metrics.append(
                TargetMetrics(
                    name=name,
                    rmse=float(root_mean_squared_error(true, predicted)),
                    mae=float(mean_absolute_error(true, predicted)),
                    r2=float(r2_score(true, predicted)) if len(true) > 1 else float("nan"),
                    bias=float((predicted - true).mean()),
                )
            )
        return metrics

    def tables(self) -> dict[str, str]:
        """CSV files; floats at full precision."""
        names = self.data.target_names
        kinds = ("true", "predicted", "error")
        rows = (
            [i, *(cell for pair in zip(t.tolist(), p.tolist(), (p - t).tolist(), strict=True) for cell in pair)]
            for i, t, p in zip(self.index.tolist(), self.true, self.predicted, strict=True)
        )
        return {
            "per_target.csv": csv_text(
                ["target", "rmse", "mae", "r2", "bias"], ([t.name, t.rmse, t.mae, t.r2, t.bias] for t in self.targets)
            ),
            "predictions.csv": csv_text(["sample", *(f"{kind} {name}" for name in names for kind in kinds)], rows),
        }

    def content(self) -> Content:
        """The figures, tables and metrics that are written."""
        figure = figures.predicted_values(self.predicted, self.true, self.data.target_names)
        measured = {"samples": len(self.true), **self.measured}
        targets = [vars(target) for target in self.targets]
        return Content(
            figures=[("predicted", figure)],
            tables=self.tables(),
            measured={"metrics": measured, "targets": targets},
        )

    def shown(self) -> Table:
        """A table for the terminal."""
        table = Table(header_style="bold")
        table.add_column("target")
        for name in ("RMSE", "mean absolute error", "R²", "bias"):
            table.add_column(name, justify="right")
        for target in self.targets:
            cells = [f"{value:.4g}" for value in (target.rmse, target.mae, target.r2, target.bias)]
            table.add_row(Text(" ".join(target.name.split())), *cells)
        return table
