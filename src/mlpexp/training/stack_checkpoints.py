"""Checkpoints of runs that trained in a stack, in the form that Lightning writes for a run alone.

A test compares them with those of a run alone, key by key.
"""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from mlpexp.config.schema import Config, plain
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.run_average import TRAINING_WEIGHTS
from mlpexp.models.run_pruning import MASKS
from mlpexp.models.torch_mlp import advance_optimizer, make_optimizer
from mlpexp.models.training_state import Snapshot
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.optimizers.muon import hidden_matrices
from mlpexp.nn.pruning import MASK, REWOUND
from mlpexp.nn.schedules import Plateau, changes_by_step
from mlpexp.nn.weight_averaging import AVERAGE
from mlpexp.runtime import software_versions
from mlpexp.runtime.object_cache import ByObject
from mlpexp.store.checkpoint_archive import Pickled


def assemble(
    cfg: Config,
    data: Prepared,
    snapshot: Snapshot,
    run: int,
    *,
    epochs: int,
    steps_per_epoch: int,
    wall_times: list[float],
    monitored: Sequence[float],
) -> dict[str, Any]:
    """The content of a checkpoint that is saved at the end of epoch number `epochs`, for `checkpoint_archive`.

    Args:
        run: the row of `snapshot`.
        wall_times: seconds since 1970, the start and the end of each epoch.
        monitored: the monitor in the epochs before the last one.
    """
    network = cfg.model.network(data.num_inputs, data.num_classes)
    training: dict[str, dict[str, Tensor]] = {}
    if cfg.uses_average(epochs - 1):
        training = {TRAINING_WEIGHTS: {name: values[run] for name, values in snapshot.parameters.items()}}
    if cfg.prune.fraction is not None:
        masks = dict(zip(network.shapes, snapshot.state[MASK], strict=True))
        training[MASKS] = {name: masks[name][run] for name in network.weight_names}
    if cfg.rewound_epochs is not None and epochs > cfg.rewound_epochs:
        earlier = zip(network.shapes, snapshot.state[REWOUND], strict=True)
        training[REWOUND] = {name: values[run] for name, values in earlier}
    steps = epochs * steps_per_epoch
    optimizer_steps = steps - cfg.optimizer_begins(epochs - 1) * steps_per_epoch
    reduced = Plateau(cfg.optimizer, cfg.monitor, monitored).factor
    optimizer, schedulers, is_scheduled = _optimizer(cfg, network, epochs, steps_per_epoch, reduced)
    state = _state(cfg, network, snapshot, run, optimizer_steps)
    network_part = network_only(cfg, data, snapshot, run, epochs=epochs, wall_times=wall_times)
    return {
        "epoch": epochs - 1,
        "global_step": steps,
        "pytorch-lightning_version": software_versions.versions()["lightning"],
        "state_dict": network_part["state_dict"],
        "loops": _loops(epochs, steps_per_epoch, _schedule_steps(cfg, steps_per_epoch) if is_scheduled else 0),
        "callbacks": network_part["callbacks"],
        "optimizer_states": [{"state": state, "param_groups": optimizer}],
        "lr_schedulers": schedulers,
        "hparams_name": None,
        "hyper_parameters": network_part["hyper_parameters"],
    } | training


def network_only(
    cfg: Config, data: Prepared, snapshot: Snapshot, run: int, *, epochs: int, wall_times: list[float]
) -> dict[str, Any]:
    """The part of a checkpoint from which the network is rebuilt; arguments as for `assemble`."""
    weights = {name: values[run] for name, values in snapshot.parameters.items()}
    if cfg.uses_average(epochs - 1):
        shapes = cfg.model.network(data.num_inputs, data.num_classes).shapes
        weights = {name: values[run] for name, values in zip(shapes, snapshot.state[AVERAGE], strict=True)}
    return {
        "state_dict": weights,
        "callbacks": {"Recorder": {"started": wall_times[0], "saved_at": wall_times[epochs], "epochs": epochs}},
        "hyper_parameters": {
            "config": _config(cfg),
            "num_features": data.num_inputs,
            "num_classes": data.num_classes,
            "data": _description(data.description),
        },
    }


def _state(cfg: Config, network: NetworkSpec, snapshot: Snapshot, run: int, steps: int) -> dict[int, dict[str, Tensor]]:
    rule, matrices = OPTIMIZERS[cfg.optimizer.name], hidden_matrices(network)
    states: dict[int, dict[str, Tensor]] = {}
    for i, parameter in enumerate(network.shapes):
        names = rule.state_of_parameter(cfg.optimizer, parameter in matrices)  # the stack may have more
        if not names:
            continue
        shared = {"step": torch.tensor(float(steps))} | rule.further_state(cfg.optimizer, steps)
        states[i] = {name: shared[name] if name in shared else snapshot.state[name][i][run] for name in names}
    return states


_NAMES = [field.name for field in fields(Config)]
_OTHERS = [name for name in _NAMES if name != "seed"]
_others = attrgetter(*_OTHERS)
_section = ByObject(lambda section: Pickled(plain(section)))
_description = ByObject(lambda description: Pickled(description.to_plain()))
_optimizers: dict[Any, tuple[Pickled, Pickled, bool]] = {}
MAX_OPTIMIZERS = 4096  # kept; a sweep may give each run a learning rate of its own


def _config(cfg: Config) -> Pickled:
    return Pickled(cfg.seed).inside(_around_the_seed(*_others(cfg)))


def _split(*others: Any) -> tuple[bytes, bytes]:
    parts: dict[str, Any] = dict.fromkeys(_NAMES)
    for name, value in zip(_OTHERS, others, strict=True):
        parts[name] = _section(value) if is_dataclass(value) else plain(value)
    return Pickled.around(parts, "seed")


_around_the_seed = ByObject(_split, max_objects=64)  # many runs of a sweep share all but the seed


def _schedule_steps(cfg: Config, steps: int) -> int:
    """The number of steps of the schedule in an epoch of `steps`."""
    return steps if changes_by_step(cfg.optimizer) else 1


def _optimizer(
    cfg: Config, network: NetworkSpec, epochs: int, steps: int, reduced: float
) -> tuple[Pickled, Pickled, bool]:
    """Parameter groups, schedules (by stepping a real one), and whether there are schedules, after `epochs`."""
    model = cfg.model
    shape = tuple(network.shapes.items())
    settings = cfg.optimizer, cfg.swa, cfg.trainer.max_epochs, model.parametrization, model.base_width
    key = (*settings, shape, epochs, steps, reduced)
    if key not in _optimizers:
        stand_ins = {name: nn.Parameter(torch.zeros(1)) for name in network.shapes}
        optimizer, schedule = make_optimizer(cfg, stand_ins, network, steps)
        advance_optimizer(cfg, (optimizer, schedule), epochs, steps, epochs * steps, reduced)
        schedules = [schedule.state_dict()] if schedule else []
        if len(_optimizers) >= MAX_OPTIMIZERS:
            _optimizers.clear()
        _optimizers[key] = Pickled(optimizer.state_dict()["param_groups"]), Pickled(schedules), bool(schedules)
    return _optimizers[key]


@lru_cache(maxsize=256)
def _loops(epochs: int, steps: int, schedule_steps: int) -> Pickled:
    """Lightning's counters of a fit with `steps` and `schedule_steps` per epoch and one validation batch."""
    total, done = epochs * steps, epochs - 1

    def counts(current: int, total: int, *names: str) -> dict[str, Any]:
        names = names or ("ready", "completed", "started", "processed")
        return {"total": dict.fromkeys(names, total), "current": dict.fromkeys(names, current)}

    def batches(current: int, total: int, is_last: bool) -> dict[str, Any]:
        return counts(current, total) | {"is_last_batch": is_last}

    def idle() -> dict[str, Any]:
        return {"state_dict": {}, "batch_progress": batches(0, 0, False)}

    epoch_counts = {"ready": epochs, "completed": done, "started": epochs, "processed": epochs}
    predict = {"state_dict": {}, "batch_progress": counts(0, 0)}
    counters = {
        "fit_loop": {
            "state_dict": {},
            "epoch_loop.state_dict": {"_batches_that_stepped": total},
            "epoch_loop.batch_progress": batches(steps, total, True),
            "epoch_loop.scheduler_progress": counts(schedule_steps, epochs * schedule_steps, "ready", "completed"),
            "epoch_loop.automatic_optimization.state_dict": {},
            "epoch_loop.automatic_optimization.optim_progress": {
                "optimizer": {
                    "step": counts(steps, total, "ready", "completed"),
                    "zero_grad": counts(steps, total, "ready", "completed", "started"),
                }
            },
            "epoch_loop.manual_optimization.state_dict": {},
            "epoch_loop.manual_optimization.optim_step_progress": counts(0, 0, "ready", "completed"),
            "epoch_loop.val_loop.state_dict": {},
            "epoch_loop.val_loop.batch_progress": batches(1, 1, True),
            "epoch_progress": {"total": dict(epoch_counts), "current": dict(epoch_counts)},
        },
        "validate_loop": idle(),
        "test_loop": idle(),
        "predict_loop": predict,
    }
    return Pickled(counters)
