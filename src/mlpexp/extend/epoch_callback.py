"""User-defined callbacks, called after each epoch with all runs of a stack; a run alone is a stack of one run.

Letters: R runs, O outputs of a layer, I inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.extend.guard import Guard
from mlpexp.nn.metrics import METRICS
from mlpexp.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class StackView:
    """The runs of a stack that have trained this epoch; everything is read-only.

    Attributes:
        epoch: its number, from 0.
        configs: of each run.
        parameters: by name, (R, ...), copies; a run alone has R = 1.
        metrics: of the epoch by column, such as val/loss, (R,) float64.
    """

    epoch: int
    configs: Sequence[Config]
    parameters: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]

    @property
    def weights(self) -> list[Tensor]:
        """The weight of each dense layer, first to last, (R, O, I)."""
        return [values for values in self.parameters.values() if values.ndim == 3]


@runtime_checkable
class EpochCallback(Protocol):
    """An object that `callbacks.NAME._target_` describes, one for each stack."""

    def on_epoch_end(self, stack: StackView, /) -> Mapping[str, Tensor] | None:
        """Called after each epoch; numbers (R,) by name become the columns train/NAME of metrics.csv."""


def columns_of(callbacks: Mapping[str, EpochCallback], view: StackView) -> list[dict[str, float]]:
    """The columns that the callbacks return for each run.

    Args:
        callbacks: by their names in the configuration.

    Raises:
        UserError: one of them raised, changed an argument, or returned something else than numbers of each run.
    """
    runs = len(view.configs)
    columns: dict[str, list[float]] = {}
    for name, callback in callbacks.items():
        guard = Guard("callback", name, callback.on_epoch_end)
        with torch.no_grad(), guard.read_only(*view.parameters.values(), *view.metrics.values()):
            returned: Any = guard.call(callback.on_epoch_end, view)
        if returned is None:
            continue
        if not isinstance(returned, Mapping) or not all(
            isinstance(key, str) and key.isidentifier() for key in returned
        ):
            raise guard.error(f"returned {returned!r:.80}; return a mapping of names to tensors of shape ({runs},)")
        for key, values in returned.items():
            if key in METRICS or f"train/{key}" in {*view.metrics, *columns}:
                raise guard.error(f"returned {key!r}, which is a column already; choose another name")
            columns[f"train/{key}"] = guard.checked(values, (runs,)).tolist()
    return [{column: values[run] for column, values in columns.items()} for run in range(runs)]


def check_is_callback(name: str, built: object) -> None:
    """Check that an object built from `callbacks.NAME` is a callback.

    Raises:
        UserError: it is not.
    """
    if not isinstance(built, EpochCallback):
        raise UserError(
            f"callbacks.{name} is a {type(built).__name__}, not a callback of Lightning's or an object with "
            "on_epoch_end(stack)"
        )
