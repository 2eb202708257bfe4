"""Many runs as one LightningModule, so that the overhead of Lightning arises once per stack and epoch, not per run.

Letters: R runs of the stack, A those still training, n training samples, m validation samples.
"""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.data.prepared_data import Prepared
from mlpexp.engine.interface import Epoch, StackEngine
from mlpexp.extend.epoch_callback import EpochCallback, StackView, columns_of
from mlpexp.models import stack_engine
from mlpexp.models.classifier import warn_long_warmup, warn_without_effect
from mlpexp.models.run_pruning import prune_due_, sparsity_of
from mlpexp.models.stack_data import StackData
from mlpexp.models.stack_diagnostics import inspected_layers, measured_networks
from mlpexp.models.stack_records import StackRecords
from mlpexp.models.stack_testing import record_confusion, record_hits, tested_weights
from mlpexp.models.training_state import RunRecord, Snapshot, TrainingState
from mlpexp.nn.diagnostics import START
from mlpexp.nn.metric_columns import measure
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import UpdateSettings
from mlpexp.nn.outcomes import Outcomes
from mlpexp.store.weight_trajectory import WeightTrajectory

T = TypeVar("T")


class StackModule(LightningModule):
    """R networks of one shape, each with its own seed, learning rate, data split, best epoch and last epoch.

    One training step is a whole epoch of every run. A run that has finished leaves the stack.

    Args:
        configs: of each run; layer sizes, batch size, optimizer and size of the parts agree, and runs of the
            same activation are neighbours.
        data: of each run; sizes of tables, parts and inputs agree. Runs without a validation part have the metrics of
            training in its place.
        states: from which each run continues; those that have not ended have the same number of epochs behind them.
            Empty: all start.
        until: the epoch after which all pause, counted from the start of the runs; None for their ends.
        callbacks: that see the runs after each epoch, by name.
        trajectories: keep the weights of runs, by their numbers in the stack.

    Attributes:
        best, last: parameters and optimizer state of each run in its best and in its last epoch.
        wall_times: seconds since 1970: the start, then the end of each epoch.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        data: Sequence[Prepared],
        *,
        states: Sequence[TrainingState] = (),
        until: int | None = None,
        callbacks: Mapping[str, EpochCallback] = MappingProxyType({}),
        trajectories: Mapping[int, WeightTrajectory] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self._callbacks, self._trajectories = callbacks, trajectories
        self.automatic_optimization = False
        self.configs, self.data = list(configs), list(data)
        sizes = data[0].num_inputs, data[0].num_classes
        # runs that differ in their seeds only are of one kind: what follows from settings is computed once for it
        keys = [cfg.shared_parts for cfg in configs]
        by_key = dict(zip(keys, configs, strict=True))
        self._kind_configs = list(by_key.values())
        numbers = {key: number for number, key in enumerate(by_key)}
        kinds = [numbers[key] for key in keys]
        self._kinds = torch.tensor(kinds)  # (R,)
        self._kind_networks: list[NetworkSpec] = [cfg.model.network(*sizes) for cfg in self._kind_configs]
        self.networks = [self._kind_networks[kind] for kind in kinds]
        self._states = list(states)
        new_records = [RunRecord.of(cfg) for cfg in self._kind_configs]
        records = [state.record.copy() for state in states] or [new_records[kind].copy() for kind in kinds]
        self._records = StackRecords(configs, records)
        self.training_runs: list[int] = np.flatnonzero(~self._records.ended).tolist()
        starts = set(self._records.epochs[self.training_runs].tolist())
        if len(starts) > 1:
            raise ValueError(f"runs that continue after {sorted(starts)} epochs share no stack")
        self.start = max(starts, default=0)
        longest = max(cfg.trainer.max_epochs for cfg in configs)
        self.max_epochs = longest if until is None else min(until, longest)
        if self.start >= self.max_epochs:
            self.training_runs = []
        self.wall_times: list[float] = []
        self._validated: Outcomes | None = None
        self._inspects = bool(configs[0].tracking.diagnostics)
        self._prunes = any(cfg.prune.fraction is not None for cfg in self._kind_configs)
        self._measures = any(cfg.diagnostics for cfg in self._kind_configs)

    @property
    def records(self) -> list[RunRecord]:
        """The record of each run, up to the latest epoch."""
        return self._records.runs

    @property
    def current_epoch(self) -> int:
        """Counted from the start of the runs, which may have been in another stack."""
        return self.start + super().current_epoch

    def on_fit_start(self) -> None:
        for cfg, network in zip(self._kind_configs, self._kind_networks, strict=True):
            warn_without_effect(cfg.model, network)
        self.wall_times = [time.time()]
        self._all_samples = self._samples = StackData(self.data, self.device)
        self._steps = self.configs[0].data.steps(len(self.data[0].split.train))
        for cfg in self._kind_configs:
            warn_long_warmup(cfg, self._steps)
        of_kinds = self._kind_configs, self._kind_networks
        rates_and_decays = stack_engine.rates_and_decays(*of_kinds)
        update = stack_engine.update_settings(*of_kinds, rates_and_decays).rows(self._kinds)
        by_parameter = None if rates_and_decays is None else rates_and_decays[:, self._kinds]
        self._rates = stack_engine.LearningRates(self.configs, self.records, self._steps, by_parameter)
        if self._states:
            rows = [state.last.parameters for state in self._states]
            initial = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        else:
            initial = stack_engine.initial_parameters(self.configs, self.networks)
        self.engine = self._make_engine(initial, update)
        self.best, self.last = Snapshot.from_engine(self.engine), Snapshot.from_engine(self.engine)
        if not self._states:
            if self._inspects:
                self._inspect_layers(START)
            self._keep_weights(START)
            return
        self.best.fill([state.best for state in self._states])
        self.last.fill([state.last for state in self._states])
        num_steps = self._states[0].num_steps
        self.last.restore(self.engine, self.start * self._steps if num_steps is None else num_steps)
        if 0 < len(self.training_runs) < len(self.configs):
            self._keep(self.training_runs, self.training_runs)

    def on_train_epoch_start(self) -> None:
        if self._prunes:
            configs = self._of_training(self.configs)
            prune_due_(self.engine, configs, self.networks[0], self.current_epoch, self._steps)

    def training_step(self, order: Tensor, batch_index: int) -> None:
        """One epoch and its validation; `order` (A, n) or (n,) indexes the training part."""
        samples, part = self._samples, self._samples.parts["train"]
        index = part[order] if part.ndim == 1 else part.gather(1, order.expand(len(part), -1))
        epoch = Epoch(
            inputs=samples.inputs,
            labels=samples.train_labels,
            order=index,
            batch_size=self.configs[self.training_runs[0]].data.batch(index.shape[-1]),
            lr=self._rates.in_epoch(self.training_runs, self.current_epoch),
            class_weights=samples.class_weights,
            sample_weights=samples.sample_weights,
            first_rows=samples.first_rows,
        )
        self.engine.train_epoch(epoch)
        part = samples.parts["val"]
        if part.shape[-1] == 0:  # what the monitor says is then the loss before each step
            self._validated = self.engine.train_outcomes
        else:
            self._validated = self.engine.evaluate(samples.inputs, samples.labels, part, samples.first_rows)

    def on_train_epoch_end(self) -> None:
        self.wall_times.append(time.time())
        self._record_epoch()
        if self._inspects:
            self._inspect_layers(self.current_epoch)
        self._keep_weights(self.current_epoch)
        if self.current_epoch + 1 >= self.max_epochs:
            leaving = list(self.training_runs)
        else:
            leaving = [run for run, ended in enumerate(self._records.ended.tolist()) if ended]
            leaving = sorted({*leaving} & {*self.training_runs})
        if leaving:
            self._leave(leaving)

    def _record_epoch(self) -> None:
        assert self._validated is not None
        epoch, engine, scale = self.current_epoch, self.engine, self._samples.target_scale
        measured = self._measure("train", engine.train_outcomes, scale)
        if self._validated is engine.train_outcomes:
            measured |= {column.replace("train/", "val/", 1): values for column, values in measured.items()}
        else:
            measured |= self._measure("val", self._validated, scale)
        numbers = torch.stack(list(measured.values())).cpu()  # (columns, A): the epoch's only transfer from the device
        runs = self.training_runs
        improved, monitored = self._records.add(runs, epoch, list(measured), numbers.numpy(), self._further(measured))
        self._rates.update_plateaus(runs, monitored.tolist())
        self.best.take(engine, improved, [runs[place] for place in improved])

    def _further(self, measured: Mapping[str, Tensor]) -> list[dict[str, float]] | None:
        """The columns of each run that is training that are no metrics of its outcomes; None where no run has any."""
        if not (self._prunes or self._measures or self._callbacks):
            return None
        engine, configs, networks = self.engine, self._of_training(self.configs), self._of_training(self.networks)
        diagnosed = measured_networks(configs, networks, engine.parameters, self._samples, self.current_epoch)
        callback_columns = self._call_back(measured)
        return [
            sparsity_of(engine, place, cfg, network)
            | diagnosed.get(place, {})
            | (callback_columns[place] if callback_columns else {})
            for place, (cfg, network) in enumerate(zip(configs, networks, strict=True))
        ]

    def _call_back(self, measured: Mapping[str, Tensor]) -> list[dict[str, float]]:
        """The columns that the callbacks return for each run that is training."""
        if not self._callbacks:
            return []
        view = StackView(
            epoch=self.current_epoch,
            configs=self._of_training(self.configs),
            parameters={name: values.clone() for name, values in self.engine.parameters.items()},
            metrics={column: values.clone() for column, values in measured.items()},
        )
        return columns_of(self._callbacks, view)

    def _inspect_layers(self, epoch: int) -> None:
        networks, loss = self._of_training(self.networks), self.configs[0].loss_function
        for place, rows in inspected_layers(networks, self.engine.parameters, self._samples, loss, epoch):
            self._records.add_layers(self.training_runs[place], rows)

    def _keep_weights(self, epoch: int) -> None:
        if not self._trajectories:
            return
        values = [self.engine.parameters[name].flatten(1) for name in self.networks[0].tensors]
        rows = torch.cat(values, 1).cpu().numpy()  # (A, P)
        for run, row in zip(self.training_runs, rows, strict=True):
            if run in self._trajectories:
                self._trajectories[run].add(epoch, row)

    def _of_training(self, all_runs: Sequence[T]) -> list[T]:
        return [all_runs[run] for run in self.training_runs]

    def _measure(self, part: str, outcomes: Outcomes, scale: Tensor | None) -> dict[str, Tensor]:
        """The metrics of a part by column, those of all runs of the stack; `scale` of the targets (A, C)."""
        if scale is not None:
            outcomes = outcomes.in_target_units(scale, self.configs[0].loss_function.entry.power)
        return measure(part, outcomes, names=self.configs[0].metric_names)

    def _leave(self, leaving: list[int]) -> None:
        """Take finished runs out of the engine; the bits of the others do not change."""
        leaving_runs = set(leaving)
        places = [place for place, run in enumerate(self.training_runs) if run in leaving_runs]
        self.last.take(self.engine, places, leaving)
        staying = [place for place, run in enumerate(self.training_runs) if run not in leaving_runs]
        self.training_runs = [self.training_runs[place] for place in staying]
        if staying:
            self._keep(staying, self.training_runs)
        else:
            self.trainer.should_stop = True

    def _keep(self, places: list[int], runs: list[int]) -> None:
        """Go on with these places of the engine, which are these runs of the stack."""
        self.engine.keep(torch.tensor(places))
        self._samples = self._all_samples.rows(runs)

    def has_ended(self, run: int) -> bool:
        """Whether a run has trained its last epoch or was stopped early."""
        return bool(self._records.ended[run])

    def times(self, run: int) -> list[float]:
        """Seconds since 1970 of a run: its start, then the end of each epoch."""
        earlier = self._states[run].wall_times if self._states else self.wall_times[:1]
        return [*earlier, *self.wall_times[1:]][: int(self._records.epochs[run]) + 1]

    @property
    def epochs_left(self) -> int:
        """Until the last run ends, or all pause."""
        return self.max_epochs - self.start if self.training_runs else 0

    @property
    def progress(self) -> float:
        """See `StackRecords.trained_runs`."""
        return self._records.trained_runs

    def update_last(self) -> None:
        """Bring `last` up to the present epoch for the runs that are still training, so that `state` is current."""
        self.last.take(self.engine, list(range(len(self.training_runs))), self.training_runs)

    def state(self, run: int, *, copy: bool = True, tensors: bool = True) -> TrainingState:
        """A run as it is in `last`; it shares its record with this module.

        Args:
            copy: copy the tensors, for a state that is kept after the stack is deleted.
            tensors: False leaves them out, for a run of which only numbers are kept.
        """
        row = Snapshot.row if copy else Snapshot.view
        none = Snapshot({}, {})
        spent = (self.wall_times[-1] - self.wall_times[0]) / len(self.configs)
        return TrainingState(
            record=self.records[run],
            best=row(self.best, run) if tensors else none,
            last=row(self.last, run) if tensors else none,
            wall_times=self.times(run),
            seconds=spent + (self._states[run].seconds if self._states else 0.0),
        )

    def test(self) -> None:
        """The metrics of the test part, from each run's best weights or its last ones, into the runs' records."""
        samples = self._all_samples
        if samples.parts["test"].shape[-1] == 0:
            return
        weights = tested_weights(self.configs, self.records, self.best, self.last)
        engine = self._make_engine(weights, UpdateSettings())
        tested = engine.evaluate(samples.inputs, samples.labels, samples.parts["test"], samples.first_rows)
        measured = self._measure("test", tested, samples.target_scale)
        for record, row in zip(self.records, torch.stack(list(measured.values()), -1).tolist(), strict=True):
            record.tested = dict(zip(measured, row, strict=True))
        record_hits(self.configs, self.records, tested, self.data)
        if self._inspects:
            record_confusion(self.records, tested)

    def _make_engine(self, parameters: Mapping[str, Tensor], update: UpdateSettings) -> StackEngine:
        device = self._all_samples.inputs.device  # after fit, `self.device` is the CPU again
        return stack_engine.make_engine(self.configs, self.networks, parameters, update, device)

    def configure_optimizers(self) -> None:
        """None: the engine updates the parameters."""
