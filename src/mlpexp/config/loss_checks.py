"""Checks of the loss and the metrics against the task."""

from collections.abc import Iterator

from mlpexp.config.overrides import spell
from mlpexp.config.schema import Config
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.nn.losses import LOSSES
from mlpexp.nn.metric_columns import columns
from mlpexp.nn.metrics import METRICS, recorded


def problems(cfg: Config) -> Iterator[str]:
    """One sentence for each key of the loss and the metrics that does not fit the task or another key."""
    task = cfg.data.learns
    subject = f"data={cfg.data.name} is a {task}" + (" with data.task=regression" if cfg.data.task == task else "")
    loss = LOSSES[cfg.loss_function.name]
    if task not in loss.tasks:
        fitting = ", ".join(name for name, entry in LOSSES.items() if task in entry.tasks)
        yield f"loss.name={cfg.loss.name} is not for values, and {subject}; choose one of {fitting}, or leave it out"
    elif task == "regression" and cfg.loss.label_smoothing:
        yield f"loss.label_smoothing={spell(cfg.loss.label_smoothing)} spreads classes, and {subject}; leave it out"
    possible = [name for name, metric in METRICS.items() if task in metric.tasks]
    for name in dict.fromkeys(cfg.metrics or ()):
        if name not in possible:
            among = ", ".join(possible)
            yield f"metrics={spell(cfg.metrics)}: {name} is not defined here, since {subject}; choose among {among}"
    if cfg.monitor.removeprefix("val/") not in possible:
        usual = columns("val", names=recorded(task))
        yield f"monitor={cfg.monitor} is not defined here, since {subject}; choose e.g. monitor={usual[-1]}"
    if task == "regression" and cfg.tracking.test_hits:
        yield f"tracking.test_hits=true records right classes, and {subject}; leave it out"
    devices = cfg.trainer.flags.get("devices", 1)
    for name in cfg.metric_names if devices not in (1, "1", "auto", [0]) else ():
        if METRICS[name].of_all_samples is not None:
            yield f"the metric {name} needs all samples in one process; leave it out with trainer.devices={devices}"


def few_classes(cfg: Config, classes: int) -> Iterator[str]:
    """One sentence for each metric that is 1 for every network with so few classes, or one on a single class."""
    if DATA_SETS[cfg.data.name].task == "regression" or cfg.data.learns == "regression":
        return
    if classes < 2:
        yield f"data={cfg.data.name} has only one class, so there is nothing to learn; give labels of two or more"
        return
    of_task = {name: entry for name, entry in METRICS.items() if cfg.data.learns in entry.tasks}
    possible = [name for name, entry in of_task.items() if entry.least_classes <= classes]
    for name in cfg.metric_names:
        least = METRICS[name].least_classes
        if classes < least:
            yield (
                f"the metric {name} is 1 for every network with {classes} classes; leave it out, or choose one of "
                f"{', '.join(possible)}"
            )
