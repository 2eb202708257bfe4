"""Checks of the keys of training: optimizer, schedule, clipping, averages of the weights, pruning."""

from collections.abc import Iterator

from mlpexp.config.schema import Config, default_values
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.schedules import SCHEDULES


def problems(cfg: Config) -> Iterator[str]:
    """One sentence for each key that does not fit another one."""
    optimizer = cfg.optimizer
    rule = OPTIMIZERS[optimizer.name]
    if optimizer.nesterov and optimizer.momentum == 0 and "nesterov" in rule.keys:
        yield f"optimizer.nesterov=true needs momentum, e.g. optimizer.name={optimizer.name} optimizer.momentum=0.9"
    if optimizer.weight_decay > 0 and not rule.has_decay:
        yield (
            f"optimizer.name={optimizer.name} has no weight decay; leave optimizer.weight_decay out, or choose another "
            "optimizer"
        )
    if optimizer.weight_decay == 0 and (optimizer.decay is not None or not optimizer.decay_bias):
        key = "decay" if optimizer.decay is not None else "decay_bias"
        yield f"optimizer.{key} needs a weight decay, e.g. optimizer.weight_decay=0.01; or leave it out"
    if cfg.model.parametrization == "mup" and rule.is_adaptive is None:
        yield (
            f"model.parametrization=mup has no rule for optimizer.name={optimizer.name}; choose another optimizer, "
            "e.g. optimizer.name=adamw, or model.parametrization=standard"
        )
    if optimizer.name == "muon" and not cfg.model.hidden_sizes:
        yield (
            "optimizer.name=muon trains weight matrices below the logits, and model.depth=0 has none; give at least "
            "model.depth=1, or choose optimizer.name=adamw"
        )
    yield from _schedule(cfg)
    yield from _clipping(cfg)
    yield from _pruning(cfg)
    yield from _averages(cfg)


def _schedule(cfg: Config) -> Iterator[str]:
    optimizer, epochs = cfg.optimizer, cfg.trainer.max_epochs
    if optimizer.warmup_epochs > 0 and optimizer.warmup_steps > 0:
        yield "optimizer.warmup_epochs and optimizer.warmup_steps both say how long the warm-up is; leave one out"
    if optimizer.warmup_epochs > epochs:
        yield (
            f"optimizer.warmup_epochs={optimizer.warmup_epochs} is longer than the training; "
            f"it must be <= trainer.max_epochs={epochs}"
        )


def _pruning(cfg: Config) -> Iterator[str]:
    prune, epochs = cfg.prune, cfg.trainer.max_epochs
    if prune.fraction is None:
        for key in ("rounds", "every", "rewind"):
            if getattr(prune, key) != default_values()[f"prune.{key}"]:
                yield f"prune.{key} needs prune.fraction, e.g. prune.fraction=0.8"
        return
    if prune.rounds * cfg.epochs_before_pruning >= epochs:
        yield (
            f"prune.rounds={prune.rounds} with prune.every={cfg.epochs_before_pruning} leaves no epoch after the last "
            f"pruning; their product must be < trainer.max_epochs={epochs}"
        )
    if cfg.ema.decay is not None or cfg.swa.start is not None:
        yield "prune.fraction and an average of the weights (ema.decay, swa.start) exclude each other; leave one out"
    rule = OPTIMIZERS[cfg.optimizer.name]
    if prune.rewind is not None and rule.trains_alone:
        fitting = [name for name, entry in OPTIMIZERS.items() if not entry.trains_alone]
        yield (
            f"prune.rewind={prune.rewind} begins the optimizer anew, which optimizer.name={cfg.optimizer.name} cannot; "
            f"choose one of {', '.join(fitting)}, or leave prune.rewind out"
        )
    if (rewound_epochs := cfg.rewound_epochs) is None:
        return
    if rewound_epochs > cfg.epochs_before_pruning:
        yield (
            f"prune.rewind={rewound_epochs} is after the first pruning; it must be <= {cfg.epochs_before_pruning}, the "
            "epochs before it (prune.every), or initial"
        )
    if cfg.model.norm == "batch":
        yield (
            f"prune.rewind={rewound_epochs} and model.norm=batch are not possible together: the running statistics of "
            "that epoch are not kept; choose model.norm=layer, or prune.rewind=initial"
        )


def _clipping(cfg: Config) -> Iterator[str]:
    keys = [f"optimizer.{key}" for key in ("clip_norm", "clip_value") if getattr(cfg.optimizer, key) is not None]
    if cfg.trainer.flags.get("gradient_clip_val") is not None:
        keys.append("trainer.gradient_clip_val")
    if len(keys) > 1:
        yield (
            f"{' and '.join(keys)} clip the gradient; give only one of them, e.g. optimizer.clip_norm=1.0, which also "
            "trains in stacks"
        )
    if keys and OPTIMIZERS[cfg.optimizer.name].trains_alone:
        yield (
            f"{keys[0]} is not possible with optimizer.name={cfg.optimizer.name}, which evaluates the gradient "
            "several times in a step; leave it out, or choose another optimizer"
        )


def _averages(cfg: Config) -> Iterator[str]:
    epochs = cfg.trainer.max_epochs
    if cfg.ema.decay is not None and cfg.swa.start is not None:
        yield "ema.decay and swa.start both say with which average of the weights to evaluate; leave one out"
    if (cfg.ema.decay is not None or cfg.swa.start is not None) and cfg.model.norm == "batch":
        key = "ema.decay" if cfg.ema.decay is not None else "swa.start"
        yield (
            f"{key} and model.norm=batch are not possible together: the running statistics belong to the weights, not "
            "to their average; choose model.norm=layer, or leave it out"
        )
    if cfg.swa.lr is not None and cfg.swa.start is None:
        yield "swa.lr needs swa.start, the first epoch that is averaged, e.g. swa.start=5"
    if cfg.swa.lr is not None and SCHEDULES[cfg.optimizer.schedule].follows_monitor:
        yield (
            f"swa.lr and optimizer.schedule={cfg.optimizer.schedule} are not possible together: the schedule would go "
            "on; choose another schedule, e.g. optimizer.schedule=cosine, or leave swa.lr out"
        )
    for key in ("anneal_epochs", "anneal_strategy"):
        if cfg.swa.lr is None and getattr(cfg.swa, key) != default_values()[f"swa.{key}"]:
            yield f"swa.{key} needs swa.lr, e.g. swa.lr=0.05"
    if cfg.swa.start is not None and cfg.swa.start >= epochs:
        yield f"swa.start={cfg.swa.start} is after the training; it must be < trainer.max_epochs={epochs}"
