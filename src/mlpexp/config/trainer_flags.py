"""Flags of Lightning's Trainer below the key `trainer`: which there are, and which cannot be given."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlpexp.config import schema
from mlpexp.config.overrides import spell
from mlpexp.runtime.errors import did_you_mean

# the flags of lightning.pytorch.Trainer; a test holds this list against the installed signature
TRAINER_FLAGS = frozenset(
    [
        "accelerator",
        "accumulate_grad_batches",
        "barebones",
        "benchmark",
        "callbacks",
        "check_val_every_n_epoch",
        "default_root_dir",
        "detect_anomaly",
        "deterministic",
        "devices",
        "enable_autolog_hparams",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "fast_dev_run",
        "gradient_clip_algorithm",
        "gradient_clip_val",
        "inference_mode",
        "limit_predict_batches",
        "limit_test_batches",
        "limit_train_batches",
        "limit_val_batches",
        "log_every_n_steps",
        "logger",
        "max_epochs",
        "max_steps",
        "max_time",
        "min_epochs",
        "min_steps",
        "model_registry",
        "num_nodes",
        "num_sanity_val_steps",
        "overfit_batches",
        "plugins",
        "precision",
        "profiler",
        "reload_dataloaders_every_n_epochs",
        "strategy",
        "sync_batchnorm",
        "use_distributed_sampler",
        "val_check_interval",
    ]
)
# flags that mlpexp sets itself, and the key to use instead
OWN_FLAGS = {
    "callbacks": "add yours below callbacks, e.g. +callbacks.mine._target_=…",
    "logger": "add yours below logger, e.g. +logger.mine._target_=…",
    "default_root_dir": "the run's directory is Hydra's, e.g. hydra.run.dir=DIR",
    "enable_checkpointing": "the checkpoints belong to the run's directory",
    "barebones": "it would leave out the metrics that a run is for",
}
# values of other flags with which a run would have no training or no metrics
REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "limit_train_batches": (lambda value: value == 0, "nothing would be trained"),
    "limit_val_batches": (lambda value: value == 0, "every epoch is validated"),
    "limit_test_batches": (lambda value: value == 0, "a run without a test is data.test_fraction=0"),
    "check_val_every_n_epoch": (lambda value: value != 1, "every epoch is validated"),
    "num_nodes": (lambda value: value != 1, "a run trains on one device"),
}


def problems(flags: Mapping[str, Any]) -> Iterator[str]:
    for name, value in flags.items():
        if name in OWN_FLAGS:
            yield f"trainer.{name} is set by mlpexp; {OWN_FLAGS[name]}"
        elif name in REFUSED and REFUSED[name][0](value):
            yield f"trainer.{name}={spell(value)} is not possible: {REFUSED[name][1]}; leave it out"
        elif name not in TRAINER_FLAGS and name != "_target_":
            own = [key.removeprefix("trainer.") for key in schema.default_values() if key.startswith("trainer.")]
            see = "see lightning.pytorch.Trainer for its flags"
            yield f"unknown key 'trainer.{name}'; {did_you_mean(name, [*TRAINER_FLAGS, *own], see, prefix='trainer.')}"
