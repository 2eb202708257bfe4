"""The parameters of an estimator: checked, and as the configuration of a run.

Their names and defaults are those of scikit-learn where it has them.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mlpexp.config import user_options
from mlpexp.config.field_types import Count, Flag, NonNegative, OpenShare, Positive, Share, choice
from mlpexp.config.model_config import ModelConfig
from mlpexp.config.schema import Config
from mlpexp.config.training_config import (
    EarlyStoppingConfig,
    LossConfig,
    OptimizerConfig,
    TrackingConfig,
    TrainerConfig,
)
from mlpexp.data.data_config import DataConfig
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.initialisation import INITIALISERS
from mlpexp.nn.losses import Task
from mlpexp.nn.normalisation import NORMS
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.schedules import SCHEDULES
from mlpexp.runtime.declared_options import Options

# scikit-learn's names of entries that are called otherwise here
ACTIVATION_NAMES = {"logistic": "sigmoid"}
SCHEDULE_NAMES = {"adaptive": "plateau"}
# half the squared error is the Huber loss whose linear part is never reached
REGRESSION_LOSSES = {
    "squared_error": LossConfig(name="huber", delta=1e30),
    "absolute_error": LossConfig(name="mae"),
    "huber": LossConfig(name="huber"),
}
LARGEST_BATCH = 200  # of batch_size="auto", as in scikit-learn
SETTINGS = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def _solvers() -> list[str]:
    return [name for name, rule in OPTIMIZERS.items() if rule.trains_alone is None]


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _infinite(value: Any) -> Any:
    return None if isinstance(value, float) and value == math.inf else value


@dataclass(kw_only=True, frozen=True, config=SETTINGS)
class EstimatorSettings:
    """See `MLPClassifier` for what they mean."""

    hidden_layer_sizes: Annotated[list[Count], BeforeValidator(_as_list)]
    activation: Annotated[str, choice(lambda: (*ACTIVATIONS, *ACTIVATION_NAMES))]
    solver: Annotated[str, choice(_solvers)]
    alpha: NonNegative
    batch_size: Count | Literal["auto"]
    learning_rate: Annotated[str, choice(lambda: (*SCHEDULES, *SCHEDULE_NAMES))]
    learning_rate_init: Positive
    max_iter: Count
    shuffle: Flag
    tol: NonNegative
    momentum: Share
    nesterovs_momentum: Flag
    early_stopping: Flag
    validation_fraction: OpenShare
    beta_1: Share
    beta_2: Share
    epsilon: NonNegative
    n_iter_no_change: Annotated[Count | None, BeforeValidator(_infinite)]
    norm: Annotated[str, choice(lambda: ("none", *NORMS))]
    dropout: Share
    init: Annotated[str, choice(lambda: INITIALISERS)]
    model_options: dict[str, Any] | None = None
    optimizer_options: dict[str, Any] | None = None
    loss: Annotated[str, choice(lambda: REGRESSION_LOSSES)] = "squared_error"

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "EstimatorSettings":
        """Those of an estimator with these parameters; others than the fields of this class are not read.

        Raises:
            ValueError: naming every parameter that cannot be.
        """
        names = {field.name for field in fields(cls)}
        values = {name: _plain(value) for name, value in parameters.items() if name in names}
        try:
            return _ADAPTER.validate_python(values)
        except ValidationError as error:
            problems: dict[str, str] = {}
            for problem in error.errors(include_url=False):  # a union reports once for each of its arms
                problems.setdefault(str(problem["loc"][0]), _problem(problem))
            raise ValueError("; ".join(f"{name}={values[name]!r} {text}" for name, text in problems.items())) from None

    def config(self, task: Task, seed: int, *, batch_size: int, batch_weight: float, weighted: bool) -> Config:
        """The configuration of a run with these settings.

        Args:
            batch_size: samples in a step.
            batch_weight: the mean over steps of the sum of the samples' weights, by which scikit-learn divides `alpha`.
            weighted: whether samples have weights.

        Raises:
            ValueError: options that the parts of the network or the solver do not have.
        """
        classifies = task == "classification"
        monitor = ("val/acc" if classifies else "val/r2") if self.early_stopping else "val/loss"
        schedule = SCHEDULE_NAMES.get(self.learning_rate, self.learning_rate)
        waits = not SCHEDULES[schedule].follows_monitor and self.n_iter_no_change is not None
        cfg = Config(
            seed=seed,
            monitor=monitor,
            model=ModelConfig(
                width=self.hidden_layer_sizes,
                activation=ACTIVATION_NAMES.get(self.activation, self.activation),
                norm=self.norm,
                dropout=self.dropout,
                init=self.init,
                options=Options(self.model_options or {}),
            ),
            data=DataConfig(
                name="npz",
                task=task,
                batch_size=batch_size,
                shuffle=self.shuffle,
                sample_weight="sample_weight" if weighted else None,
            ),
            loss=LossConfig() if classifies else REGRESSION_LOSSES[self.loss],
            optimizer=self._optimizer(schedule, batch_weight),
            # scikit-learn stops after more than n_iter_no_change epochs
            early_stopping=EarlyStoppingConfig(
                patience=self.n_iter_no_change + 1 if waits and self.n_iter_no_change is not None else None,
                min_delta=self.tol,
            ),
            trainer=TrainerConfig(max_epochs=self.max_iter, enable_progress_bar=False),
            tracking=TrackingConfig(tensorboard=False, figures=False, diagnostics=False),
        )
        cfg, problems = user_options.settled(cfg, is_valid=lambda section, key: True)
        if problems:
            raise ValueError("; ".join(map(_as_parameters, problems)))
        return cfg

    def _optimizer(self, schedule: str, batch_weight: float) -> OptimizerConfig:
        rule = OPTIMIZERS[self.solver]
        optimizer = OptimizerConfig(
            name=self.solver,
            options=Options(self.optimizer_options or {}),
            lr=self.learning_rate_init,
            weight_decay=self.alpha if rule.decoupled_decay else self.alpha / batch_weight,
            decay_bias=False,
            schedule=schedule,
        )
        if "nesterov" in rule.keys:
            nesterov = self.nesterovs_momentum and self.momentum > 0
            optimizer = replace(optimizer, momentum=self.momentum, nesterov=nesterov)
        if {"betas", "eps"} <= set(rule.keys):
            optimizer = replace(optimizer, betas=(self.beta_1, self.beta_2), eps=self.epsilon)
        if SCHEDULES[schedule].follows_monitor:
            optimizer = replace(optimizer, step_factor=0.2, patience=self.n_iter_no_change or self.max_iter)
        return optimizer


_ADAPTER = TypeAdapter(EstimatorSettings)


def _as_parameters(problem: str) -> str:
    """A problem of keys such as `model.options.slope`, said of parameters."""
    text = re.sub(r"e\.g\. (model|optimizer)\.options\.(\w+)=(\S+)", r"e.g. \1_options={'\2': \3}", problem)
    return re.sub(r"'?(model|optimizer)\.options\.(\w+)'?", r"\1_options '\2'", text)


def _plain(value: Any) -> Any:
    """A number of numpy as one of Python, as the values of a grid may be."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _problem(error: Mapping[str, Any]) -> str:
    choices = error.get("ctx", {}).get("choices")
    if choices:
        return f"is not known; choose one of {', '.join(choices)}"
    message = str(error["msg"])
    return f"cannot be: {message[0].lower()}{message[1:]}"
