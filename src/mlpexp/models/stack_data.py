"""The samples of the runs of a stack, on its device: what all runs share is there once.

Letters: R runs, N samples of a table, n samples of a part, I inputs, C classes or target values.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from mlpexp.data.prepared_data import Prepared
from mlpexp.nn.outcomes import labels_at


class StackData:
    """Tensors with a row for each run; without that axis where they are the same for all.

    Args:
        data: of each run; sizes of tables, parts and inputs agree.

    Attributes:
        inputs: of all runs concatenated, equal ones once, (M, I).
        first_rows: the row of `inputs` at which each run's samples begin, (R, 1); None for row 0.
        labels, train_labels: (N,) or (R, N), in a regression (N, C) or (R, N, C); the latter with label noise.
        parts: indices of the samples of `train`, `val` and `test`, (n,) or (R, n).
        sample_weights: (N,) or (R, N); None where all weigh the same.
        class_weights: (R, C), or None.
        target_scale: (R, C), or None.
    """

    def __init__(self, data: Sequence[Prepared], device: torch.device) -> None:
        places = {key: place for place, key in enumerate(dict.fromkeys(map(id, data)))}  # most runs share their data
        by_place = {places[id(run)]: run for run in data}
        different = [by_place[place] for place in range(len(places))]
        index = torch.tensor([places[id(run)] for run in data])

        def shared(rows: list[Tensor]) -> Tensor:
            """The first row if all are equal, else a row for each run."""
            if all(row is rows[0] or torch.equal(row, rows[0]) for row in rows):
                return rows[0].to(device)
            return torch.stack(rows)[index].to(device)

        first = data[0]
        inputs, first_rows = _joined(data)
        self.inputs = inputs.to(device)
        self.first_rows = None if first_rows is None else first_rows.to(device)
        self.labels = shared([run.labels for run in different])
        self._label_axes = first.labels.ndim
        self.train_labels = shared([run.train_labels for run in different])
        self.parts = {
            name: shared([torch.from_numpy(getattr(run.split, name)) for run in different])
            for name in ("train", "val", "test")
        }
        even = torch.ones(len(first.labels))
        is_weighted = any(run.sample_weights is not None for run in different)
        sample_weights = [even if run.sample_weights is None else run.sample_weights for run in different]
        self.sample_weights = shared(sample_weights) if is_weighted else None
        scales = [run.target_scale for run in different if run.target_scale is not None]
        self.target_scale = torch.stack(scales)[index].to(device) if scales else None
        weights = [run.description.class_weights for run in different]
        equal = [1.0] * first.num_classes
        by_run = torch.tensor([w or equal for w in weights])[index]
        self.class_weights = by_run.to(device) if any(weights) else None

    def rows(self, runs: Sequence[int]) -> "StackData":
        """The samples of these runs."""
        index = torch.tensor(runs, device=self.inputs.device)

        def selected(values: Any, axes_without_runs: int = 1) -> Any:
            return values if values is None or values.ndim == axes_without_runs else values[index]

        data = copy(self)
        data.labels, data.train_labels = (
            selected(labels, self._label_axes) for labels in (self.labels, self.train_labels)
        )
        data.parts = {name: selected(part) for name, part in self.parts.items()}
        for name in ("first_rows", "sample_weights", "class_weights", "target_scale"):
            setattr(data, name, selected(getattr(self, name)))
        return data

    def probe(self, samples: int, runs: int) -> tuple[Tensor, Tensor]:
        """Inputs (R, n, I) and labels of the first training samples of each run.

        Args:
            runs: R.
        """
        part = self.parts["train"][..., :samples]
        inputs = self.inputs[part if self.first_rows is None else part + self.first_rows]
        labels = labels_at(self.train_labels, part)
        if inputs.ndim == 2:
            inputs = inputs.expand(runs, *inputs.shape)
        if labels.ndim == self._label_axes:
            labels = labels.expand(runs, *labels.shape)
        return inputs, labels


def _joined(data: Sequence[Prepared]) -> tuple[Tensor, Tensor | None]:
    """All runs' inputs concatenated, equal ones once, and the row where each run's begin, (R, 1); None for the first.

    Tables and features may differ between runs, because they are fitted to the training part.
    """
    place: dict[object, int] = {}
    different: list[Tensor] = []
    for run in data:
        if run.inputs_key not in place:
            place[run.inputs_key] = len(different) * len(run.labels)
            different.append(run.inputs)
    if len(different) == 1:
        return different[0], None
    return torch.cat(different), torch.tensor([[place[run.inputs_key]] for run in data])
