"""Compares the training state in a checkpoint with the configuration that the checkpoint is of.

Lightning restores counters, optimizer and schedule as they are, so that a changed file would train otherwise unnoticed.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mlpexp.config.schema import Config
from mlpexp.models.classifier import Classifier
from mlpexp.models.run_average import TRAINING_WEIGHTS
from mlpexp.models.run_pruning import MASKS
from mlpexp.models.torch_mlp import TorchMLP, advance, last_factor, set_rates
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.pruning import REWOUND, pruned_share
from mlpexp.nn.schedules import SCHEDULES, Plateau, changes_by_step
from mlpexp.runtime.errors import UserError

# flags of the Trainer with which an epoch has another number of steps
OTHER_STEPS = {"accumulate_grad_batches", "limit_train_batches", "max_steps", "overfit_batches", "fast_dev_run"}
OTHER_STEPS |= {"devices", "num_nodes", "max_time"}


def check_training_state(
    path: Path, loaded: Mapping[str, Any], cfg: Config, module: Classifier, history: Sequence[Mapping[str, float]]
) -> None:
    """Compare counters, optimizer and schedule with those of a run of `cfg` after the epochs of `history`.

    Args:
        module: the untrained network of `cfg`.

    Raises:
        UserError: naming the first that differs.
    """

    def refuse(what: str) -> UserError:
        return UserError(f"{path} is damaged: {what} is not that of its configuration; train the run again")

    steps, epochs = loaded.get("global_step"), len(history)
    if not isinstance(steps, int) or not _counts(loaded.get("loops"), epochs, steps):
        raise refuse("the count of its epochs and steps")
    flags = cfg.trainer.flags.keys() & OTHER_STEPS
    if not flags and steps % epochs:
        raise refuse("the count of its steps")
    if cfg.prune.fraction is not None and not _has_masks(loaded.get(MASKS), cfg, module, epochs):
        raise refuse("what its masks of pruned weights say")
    kept = cfg.rewound_epochs
    if kept is not None and epochs > kept and not _has_weights(loaded.get(REWOUND), module):
        raise refuse("the weights to which its prunings return")
    if (TRAINING_WEIGHTS in loaded) != cfg.uses_average(epochs - 1):
        raise refuse("whether it holds an average of the weights")
    optimizers: list[torch.optim.Optimizer] = []
    schedules: list[torch.optim.lr_scheduler.LambdaLR] = []
    if isinstance(module, TorchMLP):
        made, schedule = module.make_optimizer(max(1, steps // epochs))
        optimizers, schedules = [made], [] if schedule is None else [schedule]
        if SCHEDULES[cfg.optimizer.schedule].follows_monitor:
            reduced = Plateau(cfg.optimizer, cfg.monitor, [row[cfg.monitor] for row in history[:-1]]).factor
            factor = last_factor(cfg, epochs, max(1, steps // epochs), reduced)
            set_rates(made, [group["lr"] for group in made.param_groups], factor)
    states, schedule_states = loaded.get("optimizer_states"), loaded.get("lr_schedulers")
    if states == [{}]:  # what Lightning writes where there is no optimizer
        states = []
    if not isinstance(states, list) or len(states) != len(optimizers):
        raise refuse("the number of its optimizers")
    if not isinstance(schedule_states, list) or len(schedule_states) != len(schedules):
        raise refuse("the number of its schedules")

    for schedule, state in zip(schedules, schedule_states, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # there was no step of the optimizer
            advance(schedule, steps if changes_by_step(cfg.optimizer) else epochs)
        if not isinstance(state, dict) or any(
            state.get(name) != value
            for name, value in schedule.state_dict().items()
            if name in ("last_epoch", "base_lrs")
        ):
            raise refuse("its schedule")
    for optimizer, state in zip(optimizers, states, strict=True):
        if not isinstance(state, dict) or not _same_groups(
            state.get("param_groups"), optimizer.state_dict()["param_groups"]
        ):
            raise refuse("a setting of its optimizer, such as the learning rate,")
        if not _same_state(
            state.get("state"),
            optimizer,
            cfg,
            0 if flags else steps - cfg.optimizer_begins(epochs - 1) * (steps // epochs),
        ):
            raise refuse("the state of its optimizer")
    own: dict[str, Any] = {}
    module.on_save_checkpoint(own)
    if any(not _has_same_shapes(loaded.get(name), value) for name, value in own.items()):
        raise refuse("the state of its training")


def _has_masks(found: Any, cfg: Config, module: Classifier, epochs: int) -> bool:
    """Whether these are masks with as many zeros as prunings in so many epochs leave."""
    shapes = {name: module.network.shapes[name] for name in module.network.weight_names}
    if not isinstance(found, dict) or found.keys() != shapes.keys():
        return False
    for name, mask in found.items():
        if not isinstance(mask, torch.Tensor) or mask.shape != shapes[name] or mask.dtype != torch.float32:
            return False
        if not bool(((mask == 0) | (mask == 1)).all()):
            return False
    total = sum(mask.numel() for mask in found.values())
    zeros = total - sum(int(mask.count_nonzero()) for mask in found.values())
    return zeros == round(pruned_share(cfg.prune, cfg.prunings_before(epochs - 1)) * total)


def _has_weights(found: Any, module: Classifier) -> bool:
    shapes = module.network.shapes
    if not isinstance(found, dict) or found.keys() != shapes.keys():
        return False
    return all(isinstance(found[n], torch.Tensor) and found[n].shape == shape for n, shape in shapes.items())


def _counts(loops: Any, epochs: int, steps: int) -> bool:
    """Whether the Trainer's counters say what the number of epochs and of steps says."""
    try:
        fit = loops["fit_loop"]
        progress = fit["epoch_progress"]
        counted = [progress[part][name] for part in ("total", "current") for name in ("ready", "started", "processed")]
        done = [progress[part]["completed"] for part in ("total", "current")]
        automatic = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
        manual = fit["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
    except (KeyError, TypeError):
        return False
    return set(counted) <= {epochs} and set(done) <= {epochs - 1, epochs} and automatic + manual == steps


def _same_groups(found: Any, expected: Sequence[Mapping[str, Any]]) -> bool:
    if not isinstance(found, list) or len(found) != len(expected):
        return False
    return all(
        isinstance(one, dict)
        and "lr" in one
        and one.get("params") == other["params"]
        # other versions of torch have other keys
        and all(one[name] == value for name, value in other.items() if name in one)
        for one, other in zip(found, expected, strict=True)
    )


def _same_state(found: Any, optimizer: torch.optim.Optimizer, cfg: Config, steps: int) -> bool:
    """Whether it is the state after steps of this optimizer: tensors of these names and shapes for each parameter.

    Args:
        steps: that were made; 0: any number.
    """
    rule, settings = OPTIMIZERS[cfg.optimizer.name], cfg.optimizer
    groups = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    if rule.trains_alone:  # its state is of another form, and torch checks it when it is loaded
        return isinstance(found, dict)
    expected = {
        i: names
        for i, (_, group) in enumerate(groups)
        if (names := set(rule.state_of_parameter(settings, group.get("is_matrix", False))))
    }
    if not isinstance(found, dict) or found.keys() != expected.keys():
        return False
    for index, state in found.items():
        if not isinstance(state, dict) or state.keys() != expected[index]:
            return False
        numbers = {"step", *rule.further_state(settings, 0)}
        for name, value in state.items():
            shape = () if name in numbers else groups[index][0].shape
            if not isinstance(value, torch.Tensor) or value.shape != shape:
                return False
            if name == "step" and steps and float(value) != steps:
                return False
    return True


def _has_same_shapes(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(_has_same_shapes, found, expected))
    if isinstance(expected, torch.Tensor):
        return isinstance(found, torch.Tensor) and found.shape == expected.shape
    return type(found) is type(expected)
