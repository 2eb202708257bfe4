"""Compares the training state in a checkpoint with the configuration in it.

Lightning restores counters, optimizer and schedule unchecked, so a changed file would silently train another run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mlpexp.config.schema import Config
from mlpexp.models.classifier import Classifier
from mlpexp.models.run_average import TRAINING_WEIGHTS
from mlpexp.models.run_pruning import MASKS
from mlpexp.models.torch_mlp import TorchMLP, advance_optimizer
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.pruning import REWOUND, pruned_share
from mlpexp.nn.schedules import Plateau
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
    for part, is_sound in _checks(loaded, cfg, module, history):
        if not is_sound:
            raise UserError(f"{path} is damaged: {part} is not that of its configuration; train the run again")


def _checks(
    loaded: Mapping[str, Any], cfg: Config, module: Classifier, history: Sequence[Mapping[str, float]]
) -> Iterator[tuple[str, bool]]:
    """The name and the result of each check; later checks rely on the earlier ones."""
    steps, epochs = loaded.get("global_step"), len(history)
    yield "the count of its epochs and steps", _counts(loaded.get("loops"), epochs, steps)
    assert isinstance(steps, int)
    flags = cfg.trainer.flags.keys() & OTHER_STEPS
    yield "the count of its steps", bool(flags) or steps % epochs == 0
    if cfg.prune.fraction is not None:
        yield "what its masks of pruned weights say", _has_masks(loaded.get(MASKS), cfg, module, epochs)
    if cfg.rewound_epochs is not None and epochs > cfg.rewound_epochs:
        weights = _tensors(module, module.network.shapes)
        yield "the weights to which its prunings return", _has_same_shapes(loaded.get(REWOUND), weights)
    yield "whether it holds an average of the weights", (TRAINING_WEIGHTS in loaded) == cfg.uses_average(epochs - 1)
    steps_per_epoch = max(1, steps // epochs)
    optimizers: list[torch.optim.Optimizer] = []
    schedules: list[torch.optim.lr_scheduler.LambdaLR] = []
    if isinstance(module, TorchMLP):
        optimizer, schedule = module.make_optimizer(steps_per_epoch)
        optimizers, schedules = [optimizer], [] if schedule is None else [schedule]
        reduced = Plateau(cfg.optimizer, cfg.monitor, [row[cfg.monitor] for row in history[:-1]]).factor
        advance_optimizer(cfg, (optimizer, schedule), epochs, steps_per_epoch, steps, reduced)
    states, schedule_states = loaded.get("optimizer_states"), loaded.get("lr_schedulers")
    if states == [{}]:  # what Lightning writes where there is no optimizer
        states = []
    yield "the number of its optimizers", isinstance(states, list) and len(states) == len(optimizers)
    yield "the number of its schedules", isinstance(schedule_states, list) and len(schedule_states) == len(schedules)
    for schedule, state in zip(schedules, schedule_states or (), strict=True):
        expected = schedule.state_dict()
        names = expected.keys() & {"last_epoch", "base_lrs"}
        yield "its schedule", isinstance(state, dict) and all(state.get(name) == expected[name] for name in names)
    optimizer_steps = 0 if flags else steps - cfg.optimizer_begins(epochs - 1) * (steps // epochs)
    for optimizer, state in zip(optimizers, states or (), strict=True):
        is_sound = isinstance(state, dict) and _same_groups(state.get("param_groups"), optimizer)
        yield "a setting of its optimizer, such as the learning rate,", is_sound
        yield "the state of its optimizer", _same_state(state.get("state"), optimizer, cfg, optimizer_steps)
    module_state: dict[str, Any] = {}
    module.on_save_checkpoint(module_state)
    is_sound = all(_has_same_shapes(loaded.get(name), value) for name, value in module_state.items())
    yield "the state of its training", is_sound


def _tensors(module: Classifier, names: Iterable[str]) -> dict[str, torch.Tensor]:
    values = module.parameter_values()
    return {name: values[name] for name in names}


def _has_masks(masks: Any, cfg: Config, module: Classifier, epochs: int) -> bool:
    """Whether these are masks with the number of zeros that pruning leaves after `epochs`."""
    if not _has_same_shapes(masks, _tensors(module, module.network.weight_names)):
        return False
    if any(mask.dtype != torch.float32 or not bool(((mask == 0) | (mask == 1)).all()) for mask in masks.values()):
        return False
    total = sum(mask.numel() for mask in masks.values())
    zeros = total - sum(int(mask.count_nonzero()) for mask in masks.values())
    return zeros == round(pruned_share(cfg.prune.fraction, cfg.prune.rounds, cfg.prunings_before(epochs - 1)) * total)


def _counts(loops: Any, epochs: int, steps: Any) -> bool:
    """Whether the Trainer's counters agree with the number of epochs and of steps."""
    try:
        fit = loops["fit_loop"]
        progress = fit["epoch_progress"]
        counted = [progress[part][name] for part in ("total", "current") for name in ("ready", "started", "processed")]
        done = [progress[part]["completed"] for part in ("total", "current")]
        automatic = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
        manual = fit["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
    except (KeyError, TypeError):
        return False
    if not isinstance(steps, int) or automatic + manual != steps:
        return False
    return set(counted) <= {epochs} and set(done) <= {epochs - 1, epochs}


def _same_groups(groups: Any, optimizer: torch.optim.Optimizer) -> bool:
    expected_groups = optimizer.state_dict()["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(expected_groups):
        return False
    return all(
        isinstance(group, dict)
        and "lr" in group
        and group.get("params") == expected["params"]
        # other versions of torch have other keys
        and all(group[name] == value for name, value in expected.items() if name in group)
        for group, expected in zip(groups, expected_groups, strict=True)
    )


def _same_state(states: Any, optimizer: torch.optim.Optimizer, cfg: Config, steps: int) -> bool:
    """Whether it is a state of this optimizer: each parameter has tensors with the right names and shapes.

    Args:
        steps: the expected count of steps; 0: any.
    """
    rule, settings = OPTIMIZERS[cfg.optimizer.name], cfg.optimizer
    groups = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    if rule.trains_alone:  # its state is of another form, and torch checks it when it is loaded
        return isinstance(states, dict)
    expected = {
        i: names
        for i, (_, group) in enumerate(groups)
        if (names := set(rule.state_of_parameter(settings, group.get("is_matrix", False))))
    }
    if not isinstance(states, dict) or states.keys() != expected.keys():
        return False
    for index, state in states.items():
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


def _has_same_shapes(value: Any, expected: Any) -> bool:
    """Whether nested dicts and lists have equal names and lengths, tensors equal shapes, other values equal types."""
    if isinstance(expected, dict):
        names = expected.keys()
        return (
            isinstance(value, dict)
            and value.keys() == names
            and all(_has_same_shapes(value[name], expected[name]) for name in names)
        )
    if isinstance(expected, list):
        return isinstance(value, list) and len(value) == len(expected) and all(map(_has_same_shapes, value, expected))
    if isinstance(expected, torch.Tensor):
        return isinstance(value, torch.Tensor) and value.shape == expected.shape
    return type(value) is type(expected)
