"""One trained run: numbers, curves, network, data.

Letters: N samples, I inputs, C classes.
"""

from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlpexp.analysis import run_files
from mlpexp.api.inline_report import InlineReport
from mlpexp.api.predictor import Predictor, prepared_inputs
from mlpexp.api.tables import Columns
from mlpexp.runtime.errors import UserError
from mlpexp.store import run_directory, weight_trajectory
from mlpexp.store.file_names import RESULT
from mlpexp.store.run_directory import Result

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlpexp.data.prepared_data import Prepared
    from mlpexp.evaluation.stacked_networks import StackedNetworks


class RunResults(Predictor):
    """A run that has ended, by itself or in a sweep.

    Attributes:
        directory: of the run; with `record="table"` there is none, and `sweep` holds its files.
    """

    def __init__(self, directory: Path, sweep: Path | None = None, name: str | None = None) -> None:
        self.directory = directory
        self._root = directory.parent if sweep is None else sweep
        self._name = directory.name if name is None else name
        _ = self.result

    @cached_property
    def result(self) -> Result:
        """The content of `result.json`.

        Raises:
            UserError: there is none, or it is damaged.
        """
        text = run_files.read_file(self._root, self._name, RESULT)
        if text is None:
            raise UserError(f"{self.directory} holds no finished run; give a run's directory, e.g. outputs/DATE/TIME")
        return run_directory.parse_result(text, self.directory / RESULT)

    @property
    def status(self) -> str:
        """ok, chance, diverged, stopped, failed or interrupted."""
        return self.result.status

    @property
    def metrics(self) -> dict[str, float]:
        """`val/loss`, `test/acc`, ... of the epoch that counts."""
        return dict(self.result.metrics)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration as nested mappings."""
        return run_files.configuration(self._root, self._name)

    def curves(self) -> Columns:
        """The metrics of each epoch: `epoch`, `train/loss`, `val/loss`, ..."""
        return curves_of(self._root, self._name)

    def layers(self) -> Columns:
        """Gradients and activations of each layer and epoch (-1: before training), where they were recorded."""
        if recorded := layers_of(self._root, self._name):
            return recorded
        raise UserError(f"{self.directory} has no records of its layers; train with tracking.diagnostics=true")

    def weight_epochs(self) -> list[int]:
        """The epochs of which the run has kept the weights; empty without `tracking.weights=every`."""
        return list(kept_weights(self.directory, self._own_weights()))

    def _own_weights(self) -> "dict[str, Tensor]":
        return {name: value[0] for name, value in self._stack.weights.items()}

    def model(self) -> "nn.Module":
        """The network as a module of torch: prepared inputs (B, I) to logits (B, C); see `data` for inputs."""
        from mlpexp.api.plain_network import PlainNetwork

        return PlainNetwork(self._stack.network, self.weights())

    def weights(self, epoch: int | None = None) -> "dict[str, Tensor]":
        """The tensors of the checkpoint by name, e.g. `layers.0.weight` (outputs, inputs).

        Args:
            epoch: those that were trained up to the end of this epoch instead, from 0; -1 is before training.

        Raises:
            UserError: the run has not kept those of that epoch (`tracking.weights=every`); names those that it has.
        """
        tensors = self._own_weights()
        if epoch is not None:
            return weights_after(self.directory, epoch, tensors)
        return {name: value.clone() for name, value in tensors.items()}

    def _outputs(self, samples: Any) -> NDArray[np.float64]:
        outputs: NDArray[np.float64] = self._stack.predictions(prepared_inputs(samples, self._stack.data))[0]
        return outputs

    @property
    def class_names(self) -> list[str]:
        return list(self._stack.data.class_names)

    @cached_property
    def data(self) -> "Prepared":
        """The data that the run was trained on: `data.part("train")`, `"val"` or `"test"` gives inputs and labels."""
        from mlpexp import data
        from mlpexp.evaluation import locate_run
        from mlpexp.store import checkpoint_files

        digest, file = self._stack.data.digest, locate_run.find(self.directory).checkpoint
        cfg = checkpoint_files.described(file, checkpoint_files.load(file))[0].data
        prepared = data.prepare(data.locate(cfg, self.directory, digest))
        if prepared.digest != digest:
            raise UserError(f"the data of {self.directory} has changed since it was trained")
        return prepared

    def report(self) -> InlineReport:
        """Write the report into the run's directory; a notebook shows it."""
        return InlineReport.write(self.directory)

    @cached_property
    def _stack(self) -> "StackedNetworks":
        from mlpexp.evaluation.stacked_networks import load_stacks

        return next(load_stacks([self.directory]))

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items() if name != "train/loss")
        return f"<run {self.directory}: {self.status}{', ' * bool(numbers)}{numbers}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{value:.4f}</td></tr>" for name, value in self.metrics.items())
        message = f", {escape(self.result.message)}" if self.result.message else ""
        return f"<p><code>{escape(str(self.directory))}</code>: {self.status}{message}</p><table>{rows}</table>"


def curves_of(root: Path, name: str) -> Columns:
    """The metrics of each epoch of the run `name` below `root`."""
    curves = run_files.curves(root, [name])
    return Columns({"epoch": np.arange(curves.epochs)} | {metric: rows[0] for metric, rows in curves.values.items()})


def layers_of(root: Path, name: str) -> Columns:
    """What a run has recorded of each layer and epoch (-1: before training); without columns where it has not."""
    columns = run_files.layers_of_run(root, name)
    if not columns:
        return Columns()
    epochs, depth = next(iter(columns.values())).shape
    rows = {"epoch": np.repeat(np.arange(-1, epochs - 1), depth), "layer": np.tile(np.arange(depth), epochs)}
    return Columns(rows | {column: values.ravel() for column, values in columns.items()})


def kept_weights(directory: Path, tensors: "Mapping[str, Tensor]") -> dict[int, NDArray[Any]]:
    """By epoch, flat.

    Args:
        tensors: of the run's network, for their shapes and order.
    """
    numbers = sum(values.numel() for values in tensors.values())
    dtype = np.dtype(str(next(iter(tensors.values())).dtype).removeprefix("torch."))
    return weight_trajectory.read(directory, numbers, dtype)


def weights_after(directory: Path, epoch: int, tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Those after an epoch, from 0; -1 is before training. Arguments as of `kept_weights`.

    Raises:
        UserError: the run has not kept them.
    """
    import torch

    by_epoch = kept_weights(directory, tensors)
    if epoch not in by_epoch:
        if not by_epoch:
            raise UserError(f"{directory} has kept no weights of its epochs; train with tracking.weights=every")
        epochs = list(by_epoch)
        listed = ", ".join(map(str, epochs if len(epochs) <= 6 else [*epochs[:3], "...", *epochs[-2:]]))
        raise UserError(f"{directory} has not kept the weights of epoch {epoch}; it has those of {listed}")
    pieces = torch.from_numpy(by_epoch[epoch].copy()).split([values.numel() for values in tensors.values()])
    return {name: piece.view(values.shape) for (name, values), piece in zip(tensors.items(), pieces, strict=True)}
