"""Whether networks can be members of one ensemble.

Letters: R networks, N samples, C classes or values of a regression.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlpexp import data as datasets
from mlpexp.config.overrides import spell
from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_description import Description
from mlpexp.evaluation.recorded_metrics import are_near
from mlpexp.evaluation.stacked_networks import StackedNetworks
from mlpexp.nn.metric_columns import headline
from mlpexp.nn.metric_columns import measure as measure_metrics
from mlpexp.nn.outcomes import Outcomes
from mlpexp.runtime.errors import UserError

# what may differ between members: it changes how they were trained, not which samples they saw nor their inputs
OF_TRAINING = ("batch_size", "shuffle", "class_weight", "label_noise", "sample_weight")


def check_shared_data(sweep: Path, names: Sequence[str], stacks: Sequence[StackedNetworks]) -> None:
    """
    Raises:
        UserError: two networks differ in data, target, preprocessing, or in their validation or test samples.
    """
    data_of = {
        run: (cfg.data, stack.data) for stack in stacks for run, cfg in zip(stack.runs, stack.configs, strict=True)
    }
    first, first_data = data_of[0]
    equal = {_neutral(first)}
    for run in sorted(data_of):
        cfg, data = data_of[run]
        if _is_equal(data, first_data) and (_neutral(cfg) in equal or _are_samples_equal(sweep, first, cfg, data)):
            equal.add(_neutral(cfg))
            continue
        all_differing = [f.name for f in fields(DataConfig) if getattr(cfg, f.name) != getattr(first, f.name)]
        # a column of sample weights is otherwise a feature
        differing = [name for name in all_differing if name not in OF_TRAINING] or all_differing
        if not differing:
            where, advice = "in the content of the data", "it was changed during the sweep; train them on equal data"
        else:
            values = [f"data.{key} ({spell(getattr(first, key))}; {spell(getattr(cfg, key))})" for key in differing]
            key = "data" if differing[0] == "name" else f"data.{differing[0]}"
            where = f"in {', '.join(values)}"
            advice = f"choose among runs that do not, e.g. --where {key}={spell(getattr(first, differing[0]))}"
        raise UserError(
            f"{names[0]} and {names[run]} differ {where}; members of an ensemble share data set, target, "
            f"preprocessing and split: {advice}"
        )


def _neutral(cfg: DataConfig) -> DataConfig:
    default = DataConfig()
    return replace(cfg, **{key: getattr(default, key) for key in OF_TRAINING})


def _is_equal(a: Description, b: Description) -> bool:
    names = ("digest", "class_names", "target_names", "target_shift", "target_scale", "image_shape")
    return a.features.key == b.features.key and all(getattr(a, name) == getattr(b, name) for name in names)


def _are_samples_equal(sweep: Path, a: DataConfig, b: DataConfig, data: Description) -> bool:
    """Whether two configurations of the same data set have the same validation and the same test samples."""
    try:
        split_a, split_b = (datasets.prepare(datasets.locate(cfg, sweep, data.digest)).split for cfg in (a, b))
    except (UserError, OSError):
        return False
    return np.array_equal(split_a.val, split_b.val) and np.array_equal(split_a.test, split_b.test)


def validation_part(run: Path, stacks: Sequence[StackedNetworks]) -> tuple[Tensor, Tensor] | None:
    """Inputs and labels of the validation part; None where the data has gone or changed."""
    stack = next(stack for stack in stacks if 0 in stack.runs)
    try:
        prepared = datasets.prepare(datasets.locate(stack.configs[stack.runs.index(0)].data, run, stack.data.digest))
    except (UserError, OSError):
        return None
    return prepared.part("val") if prepared.digest == stack.data.digest else None


def check_recorded(
    sweep: Path,
    names: Sequence[str],
    recorded: Mapping[str, Sequence[float]],
    stacks: Sequence[StackedNetworks],
    inputs: Tensor,
    labels: Tensor,
) -> None:
    """Each network has to reach the accuracy or RMSE of the validation part that its run recorded.

    Args:
        recorded: values of the runs by validation metric.

    Raises:
        UserError: one does not, as after a user-defined callback has changed it.
    """
    metric = headline(recorded)
    recorded_values = recorded.get(f"val/{metric}")
    if recorded_values is None:
        return
    for stack in stacks:
        logits = stack.logits(inputs)  # (R, N, C)
        values = bool(stack.data.target_names)
        outcomes = Outcomes(
            torch.zeros(logits.shape[:2]), None if values else logits.argmax(-1), labels, logits.shape[-1], None, logits
        )
        if values:
            outcomes = outcomes._replace(scale=torch.tensor(stack.data.target_scale, dtype=torch.float64))
        measured = measure_metrics("val", outcomes, names=[metric])[f"val/{metric}"].tolist()
        for run, cfg, value in zip(stack.runs, stack.configs, measured, strict=True):
            if not are_near(value, recorded_values[run], cfg):
                raise UserError(
                    f"{sweep / names[run]}: the network rebuilt from its configuration is not the one that was "
                    f"trained: val/{metric} is {value:.4g}, and {recorded_values[run]:.4g} was recorded; leave it out, "
                    "e.g. with --where"
                )
