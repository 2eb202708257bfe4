"""Records a run while it is trained: metrics, events, checkpoints; decides which epoch is the best.

A Lightning callback. Files other than the event file are rewritten whole and at most every ten seconds, so
that a short run pays for its files once and a long one loses little when it is killed.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.extend.epoch_callback import EpochCallback, StackView, columns_of
from mlpexp.models.classifier import Classifier
from mlpexp.models.run_average import AVERAGED_WEIGHTS, TRAINING_WEIGHTS
from mlpexp.models.stack_diagnostics import measured_network
from mlpexp.models.training_state import RunRecord
from mlpexp.nn.diagnostics import PROBE_SAMPLES, START, inspect
from mlpexp.nn.metric_columns import columns
from mlpexp.nn.pruning import SPARSITY
from mlpexp.runtime import distributed, signals
from mlpexp.store import atomic_files, checkpoint_files, file_names, run_directory
from mlpexp.store.weight_trajectory import WeightTrajectory
from mlpexp.tracking.event_files import EventLog
from mlpexp.tracking.events import histogram, scalars
from mlpexp.tracking.run_events import layers_event

FLUSH_EVERY_S = 10.0


class DeferredCheckpointIO(CheckpointIO):
    """Keeps the run's two checkpoints in memory until `flush`; writes those of other callbacks at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.deferred = {str(directory / name) for name in (file_names.LAST, file_names.BEST)}
        self.pending: dict[str, bytes] = {}
        self.last = b""
        """the latest checkpoint, as it was saved at the end of its epoch"""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = checkpoint_files.to_bytes(checkpoint)
        if str(path) in self.deferred:
            self.pending[str(path)] = content
            self.last = content
        else:
            checkpoint_files.save(Path(path), content)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        if Path(path).name == ".temp.ckpt":  # the weights alone, as Lightning brings them back from ranks it has forked
            return torch.load(path, map_location=map_location, weights_only=True)
        loaded = checkpoint_files.load(Path(path))
        if TRAINING_WEIGHTS in loaded:
            loaded[AVERAGED_WEIGHTS] = loaded["state_dict"]
            loaded["state_dict"] = loaded.pop(TRAINING_WEIGHTS)
        return loaded

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)

    def flush(self) -> None:
        for path, content in sorted(self.pending.items()):  # best before last: last never runs ahead of it
            checkpoint_files.save(Path(path), content)
        self.pending.clear()

    def keep_final_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Save the weights at the end of training, if a callback has changed those of the last epoch.

        Training continues from the weights of the last epoch; everything else uses those at the end.
        """
        if not self.last:
            return
        loaded = torch.load(io.BytesIO(self.last), map_location="cpu", weights_only=True)
        saved = loaded["state_dict"]
        if saved.keys() == weights.keys() and not all(
            torch.allclose(saved[name], weights[name].cpu(), rtol=0, atol=0, equal_nan=True) for name in saved
        ):
            loaded |= {"state_dict": {name: tensor.cpu() for name, tensor in weights.items()}, TRAINING_WEIGHTS: saved}
            self.pending[str(self.directory / file_names.LAST)] = checkpoint_files.to_bytes(loaded)

    def keep_as_best(self) -> None:
        """Keep the latest checkpoint as the best one."""
        if not distributed.is_first():
            return  # nothing was saved here
        self.pending[str(self.directory / file_names.BEST)] = self.pending[str(self.directory / file_names.LAST)]


class Recorder(Checkpoint):
    """One run's history.

    It is a `Checkpoint` because Lightning calls those last, when the epoch's metrics are known.

    Attributes:
        record: what the run has recorded so far.
        started: seconds since 1970.
        epoch_ends: the same of the end of each epoch that this process has trained.
        in_epoch: the weights are those of an epoch that is not finished.
        before_writing: called each time before files of the run are written.
    """

    def __init__(
        self,
        cfg: Config,
        directory: Path,
        events: EventLog | None,
        io: DeferredCheckpointIO,
        callbacks: Mapping[str, EpochCallback] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            callbacks: that see the run as a stack of one, by name.
        """
        self.cfg, self.directory, self.events, self.io, self._callbacks = cfg, directory, events, io, callbacks
        self.before_writing: Callable[[], None] = lambda: None
        self.started = time.time()
        self.epoch_ends: list[float] = []
        self.begin([], [])
        self.in_epoch = False
        self._probe: tuple[Tensor, Tensor] | None = None
        self._trajectory = WeightTrajectory(directory, cfg.trainer.max_epochs)
        self._flushed_at = time.monotonic()

    def begin(self, history: Sequence[Mapping[str, float]], layer_rows: Sequence[list[float | str]]) -> None:
        """Start after these epochs."""
        self.record = RunRecord.of(self.cfg, history, layer_rows)
        self._written = len(self.record.history) or -1  # of a new run even an empty table is written

    @property
    def has_unwritten(self) -> bool:
        """Whether there is an epoch that the files do not have."""
        return len(self.record.history) > self._written

    def state_dict(self) -> dict[str, Any]:
        """Times and the number of epochs; the history, which grows with each epoch, is in `metrics.csv`."""
        return {"started": self.started, "saved_at": time.time(), "epochs": len(self.record.history)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing: `begin` was called with the checked history of the run's files."""

    def on_train_start(self, trainer: Trainer, module: Classifier) -> None:  # type: ignore[override]
        distributed.end_with_parent()
        if not distributed.is_first():
            self.events = None
        signals.install_handlers()  # Lightning has just put its own handler for SIGTERM over ours
        inputs, labels = trainer.datamodule.prepared.part("train")  # type: ignore[attr-defined]
        self._probe = inputs[:PROBE_SAMPLES].to(module.device), labels[:PROBE_SAMPLES].to(module.device)
        if self.cfg.tracking.diagnostics and not self.record.history and not self.record.layer_rows:
            self._inspect(module, START, self.started)
        if not self.record.history:
            self._keep_weights(module, START)

    def on_train_epoch_start(self, trainer: Trainer, module: Classifier) -> None:  # type: ignore[override]
        module.metrics.clear()
        self.in_epoch = True

    def on_train_epoch_end(self, trainer: Trainer, module: Classifier) -> None:  # type: ignore[override]
        names = columns("train", "val", names=self.cfg.metric_names, num_outputs=module.network.sizes[-1])
        if not module.metrics.keys() >= set(names):
            return  # stopped in the middle, by max_steps, say: no epoch of the run
        self.in_epoch = False
        epoch, now = trainer.current_epoch, time.time()
        row = {name: module.metrics[name] for name in names}
        if module.pruning is not None:
            row[SPARSITY] = module.pruning.sparsity
        row |= self._measures(module, epoch) | self._columns_of_callbacks(module, epoch, row)
        best = self.record.add(row, self.cfg.monitor)
        self.epoch_ends.append(now)
        if self.events is not None:
            self.events.add(scalars(epoch, row, now))
        if self.cfg.tracking.diagnostics:
            self._inspect(module, epoch, now)
        self._keep_weights(module, epoch)
        if self.events is not None:
            self.events.flush()
        trainer.save_checkpoint(self.directory / file_names.LAST)  # into memory, in case training is stopped
        if best:
            self.io.keep_as_best()
        if self.record.progress.stopped:
            trainer.should_stop = True
        if time.monotonic() - self._flushed_at > FLUSH_EVERY_S:
            self.flush()

    def on_train_end(self, trainer: Trainer, module: Classifier) -> None:  # type: ignore[override]
        if not self.in_epoch:
            module.use_average(len(self.record.history) - 1)
            self.io.keep_final_weights(module.state_dict())
        self.flush()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        # the weights may be in the middle of an epoch; the epoch before is complete
        self.flush()

    def seconds_per_epoch(self) -> dict[str, float]:
        """The median time between the ends of two epochs, as `epoch`; the slow first epoch hardly changes it."""
        times = self.epoch_ends
        return {"epoch": median(b - a for a, b in pairwise(times))} if len(times) > 1 else {}

    def flush(self) -> None:
        """Write all files up to the latest finished epoch; the history first, since the checkpoint relies on it."""
        if not distributed.is_first() or not (self.has_unwritten or self.io.pending):
            return
        self.before_writing()
        atomic_files.write(self.directory / file_names.METRICS, run_directory.metrics_csv(self.record.history))
        if self.record.layer_rows:
            atomic_files.write(self.directory / file_names.LAYERS, run_directory.layers_csv(self.record.layer_rows))
        self.io.flush()
        self._written = len(self.record.history)
        self._flushed_at = time.monotonic()

    def _measures(self, module: Classifier, epoch: int) -> dict[str, float]:
        if not self.cfg.diagnostics:
            return {}
        assert self._probe is not None
        inputs, labels = (values.unsqueeze(0) for values in self._probe)
        parameters = {name: values.unsqueeze(0) for name, values in module.parameter_values().items()}
        return measured_network(self.cfg, module.network, parameters, inputs, labels, epoch)

    def _keep_weights(self, module: Classifier, epoch: int) -> None:
        if self.cfg.tracking.weights is None or not distributed.is_first():
            return
        values = module.parameter_values()
        self.before_writing()
        self._trajectory.add(epoch, torch.cat([values[n].flatten() for n in module.network.tensors]).cpu().numpy())

    def _columns_of_callbacks(self, module: Classifier, epoch: int, row: Mapping[str, float]) -> dict[str, float]:
        if not self._callbacks:
            return {}
        parameters = {name: values.clone().unsqueeze(0) for name, values in module.parameter_values().items()}
        metrics = {name: torch.tensor([value], dtype=torch.float64) for name, value in row.items()}
        view = StackView(epoch=epoch, configs=[self.cfg], parameters=parameters, metrics=metrics)
        return columns_of(self._callbacks, view)[0]

    def _inspect(self, module: Classifier, epoch: int, now: float) -> None:
        assert self._probe is not None
        parameters = module.parameter_values()
        numbers, gradients = inspect(module.network, parameters, *self._probe, module.loss)
        [rows] = numbers.rows(epoch)
        self.record.layer_rows += rows
        if self.events is None:
            return
        self.events.add(layers_event(epoch, rows, now))
        linear = module.network.linear
        for i in sorted({0, len(linear) // 2, len(linear) - 1}):
            name = module.network.names[linear[i][0]]["weight"]
            for group, tensor in (("weights", parameters[name]), ("gradients", gradients.parameters[name])):
                self.events.add(histogram(f"within/{group}/layer_{i}", epoch, tensor.cpu().float().numpy(), now))
