"""Loads a trained network from a run's directory or a checkpoint; every value is checked before it is used."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlpexp import data as datasets
from mlpexp.config.model_config import ModelConfig
from mlpexp.config.schema import Config
from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_description import Description
from mlpexp.evaluation import locate_run, network_outputs
from mlpexp.evaluation.locate_run import CheckpointLocation, Weights
from mlpexp.models.classifier import Classifier
from mlpexp.store import checkpoint_files, file_names, run_directory, run_weights
from mlpexp.store.run_directory import Result
from mlpexp.training import load_network

FULL_PRECISION = (None, 32, "32", "32-true", "single")


class TrainedModel(Protocol):
    """What predictions, evaluations and exports need: of a run (`TrainedRun`), or of an ensemble of runs."""

    @property
    def cfg(self) -> Config:
        """The configuration, of an ensemble that of its first member."""

    @property
    def module(self) -> nn.Module:
        """Prepared inputs (B, I) to logits (B, C), in a regression to outputs in standard deviations."""

    @property
    def data(self) -> Description:
        """What it was trained on, and its preprocessing."""

    @property
    def title(self) -> Path: ...

    @property
    def located_data(self) -> DataConfig: ...

    @property
    def weights_description(self) -> str: ...

    def outputs(self, inputs: Tensor) -> NDArray[np.float64]:
        """Probabilities (N, C) of prepared inputs (N, I); in a regression values (N, T) in the units of the targets.

        Raises:
            UserError: an output is not finite.
        """

    def remark(self) -> str | None: ...

    def origin(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A network with its description.

    Attributes:
        module: in evaluation mode, with the checkpoint's weights.
        data: what the network was trained on, and its preprocessing.
        epoch: from 0, of the weights.
        sha256: of the checkpoint's bytes.
        result: of the run; None where it has not finished, or the file is outside of a run.
    """

    location: CheckpointLocation
    cfg: Config
    module: Classifier
    data: Description
    epoch: int | None
    sha256: str
    result: Result | None

    @property
    def title(self) -> Path:
        """The run's directory, or the file."""
        return self.location.directory or self.location.checkpoint

    @property
    def located_data(self) -> DataConfig:
        """The configuration of its data, with files where they are now."""
        return datasets.locate(self.cfg.data, self.location.directory or self.location.checkpoint, self.data.digest)

    @property
    def weights_description(self) -> str:
        """E.g. `weights of epoch 7 (best by val/loss)`; epochs from 0."""
        epoch = "" if self.epoch is None else f" of epoch {self.epoch}"
        kind = {"best": f" (best by {self.cfg.monitor})", "last": " (the last)", None: ""}[self.location.weights]
        return f"weights{epoch}{kind}"

    def remark(self) -> str | None:
        return precision_remark([self.cfg])

    def outputs(self, inputs: Tensor) -> NDArray[np.float64]:
        if self.data.target_names:
            return self.data.in_target_units(network_outputs.value_outputs(self.module, inputs).numpy())
        probabilities: NDArray[np.float64] = network_outputs.classify(self.module, inputs).numpy()
        return probabilities

    def origin(self) -> dict[str, Any]:
        """What an exported file says of its network, as plain builtins."""
        return {
            "network": {"sizes": self.module.network.sizes} | described_layers(self.cfg.model),
            "checkpoint": {"sha256": self.sha256, "epoch": self.epoch, "weights": self.location.weights},
            "metrics": self.result.metrics if self.result and self.result.epoch == self.epoch else {},
        }


def precision_remark(configs: Iterable[Config]) -> str | None:
    """A note on the precision of the numbers, where it differs from the training's."""
    precisions = [cfg.trainer.flags.get("precision") for cfg in configs]
    for reduced in dict.fromkeys(p for p in precisions if p not in (*FULL_PRECISION, *load_network.DOUBLE)):
        return f"trained with trainer.precision={reduced}, evaluated in full precision: numbers may differ"
    return None


def described_layers(model: ModelConfig) -> dict[str, Any]:
    """The activation, and the keys of the model that change the network's function and differ from their defaults."""
    if model.target is not None:
        return {"_target_": model.target, "arguments": model.arguments, "source": model.source}
    default = ModelConfig()
    keys = ("negative_slope", "alpha", "bias", "norm", "norm_position", "residual", "block_depth", "options")
    changed = {key: getattr(model, key) for key in keys if getattr(model, key) != getattr(default, key)}
    return {"activation": model.activation} | changed


def load(path: Path, weights: Weights | None = None) -> TrainedRun:
    """The network of a run (by default with the weights that it was tested with) or of a checkpoint file.

    Raises:
        UserError: there is none, or it is damaged, malicious, or of another version.
    """
    location, content = checkpoint(path, weights)
    network = load_network.network(location.checkpoint, content)
    torch.set_num_threads(network.cfg.threads)  # as in training: on some machines the bits depend on it
    return TrainedRun(
        location=location,
        cfg=network.cfg,
        module=network.module(),
        data=network.data,
        epoch=_epoch(content),
        sha256=hashlib.sha256(checkpoint_files.read(location.checkpoint)).hexdigest(),
        result=None if location.directory is None else _result(location.directory),
    )


def checkpoint(path: Path, weights: Weights | None = None) -> tuple[CheckpointLocation, dict[str, Any]]:
    """Location and content of a run's checkpoint, by default of the one that the run was tested with.

    Raises:
        UserError: as for `load`.
    """
    location = locate_run.find(path, weights)
    content = checkpoint_files.load(location.checkpoint)
    if location.weights == "best" and weights is None and path.is_dir():
        cfg, _, _ = checkpoint_files.described(location.checkpoint, content)
        if cfg.test_weights == "last":
            return checkpoint(path, "last")
    return location, content


def _result(directory: Path) -> Result | None:
    """How the run ended; None where it has not."""
    path = directory / file_names.RESULT
    if path.is_file():
        return run_directory.read_result(directory)
    text = run_weights.result_text(directory)
    return None if text is None else run_directory.parse_result(text, path)


def _epoch(content: dict[str, Any]) -> int | None:
    """The epoch, from 0, after which the checkpoint was saved."""
    callbacks = content.get("callbacks")
    state = callbacks.get("Recorder") if isinstance(callbacks, dict) else None
    if not isinstance(state, dict):
        return None
    history = state.get("history")  # of an earlier version
    epochs = len(history) if isinstance(history, list) else state.get("epochs")
    return epochs - 1 if isinstance(epochs, int) and epochs > 0 else None
