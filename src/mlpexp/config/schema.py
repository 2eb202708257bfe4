"""The schema of a run's configuration: names, types, defaults, one line of help for each field.

This file imports nothing heavy: `--help`, `--cfg job` and tab completion read it. `checks.py` checks values.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from mlpexp.config.field_types import SCHEMA, Count, Flag, Seed, Text, choice, choices_of
from mlpexp.config.model_config import ModelConfig
from mlpexp.config.training_config import (
    EarlyStoppingConfig,
    EmaConfig,
    HalvingConfig,
    LossConfig,
    OptimizerConfig,
    PruneConfig,
    StackConfig,
    SwaConfig,
    TrackingConfig,
    TrainerConfig,
)
from mlpexp.data.data_config import DataConfig
from mlpexp.nn.losses import DEFAULTS, LossFunction
from mlpexp.nn.measures import MEASURES
from mlpexp.nn.metric_columns import columns
from mlpexp.nn.metrics import METRICS, recorded
from mlpexp.runtime.declared_options import Options
from mlpexp.tracking.trackers import NONE, TENSORBOARD, TRACKERS

# keys that change no number of a run and say nothing about its network; of groups, all their keys
WITHOUT_EFFECT = frozenset(
    {"name", "resume", "threads", "dry_run", "report", "record", "keep_weights", "diagnostics_every"}
    | {"tracker", "tracking"}
)

# keys of earlier schemas that are gone, with the value whose behaviour is left: part of identities, and of recorded
# configurations
REMOVED: dict[str, dict[str, Any]] = {"stack": {"exact": True}}

# fields without a key: Trainer flags and the arguments of a user-defined class are keys of their group, and the digest
# of its source is computed
NOT_TYPED = ("trainer.flags", "model.arguments", "model.source")

Measure = Annotated[str, choice(lambda: MEASURES)]
Metric = Annotated[str, choice(lambda: METRICS)]
# of a metric with a value for each class, such as recall, no single one determines the best epoch
Monitor = Annotated[str, choice(lambda: columns("val", names=[n for n, m in METRICS.items() if not m.per_class]))]
Tracker = Annotated[str, choice(lambda: TRACKERS)]
# one may be given without brackets
Trackers = Annotated[tuple[Tracker, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


@dataclass(kw_only=True, frozen=True, slots=True, config=SCHEMA)
class Config:
    seed: Seed = 0
    """initial weights and batch order"""
    name: Text | None = None
    """name of the sweep's directory below multirun; null: date and time"""
    monitor: Monitor = "val/loss"
    """validation metric that determines the best epoch and early stopping"""
    metrics: tuple[Metric, ...] | None = None
    """metrics beside loss and accuracy (of values: loss and RMSE), e.g. [f1,auroc]"""
    diagnostics: tuple[Measure, ...] = ()
    """measures of the network after each epoch, columns of metrics.csv, e.g. [weight_distance,effective_rank,cka]"""
    diagnostics_every: Count = 1
    """epochs from one computation of `diagnostics` to the next; the other epochs have NaN"""
    plugins: tuple[Text, ...] = ()
    """your own modules, which register activations, losses, ...: files or import names, e.g. [my_plugin.py]"""
    test_weights: Literal["best", "last"] = "best"
    """weights for the final test: those of the best validation epoch, or of the last one"""
    threads: Count = 1
    """CPU threads of a run trained alone"""
    record: Literal["run", "table"] = "run"
    """table, with -m: no directory per run, only results.csv and the epochs' metrics of all runs in one file"""
    keep_weights: Flag = False
    """with record=table: keep the weights that each run was tested with, of all runs in one file"""
    dry_run: Flag = False
    """with -m: print what the sweep would do, and do nothing"""
    report: Flag = False
    """with -m: make the report when the sweep ends"""
    tracker: Trackers = (TENSORBOARD,)
    """where runs are recorded beside their files: tensorboard, csv, mlflow, wandb, none, or several: [mlflow,csv]"""
    resume: Text | None = None
    """directory of a run to continue, up to a larger trainer.max_epochs"""
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    ema: EmaConfig = Field(default_factory=EmaConfig)
    swa: SwaConfig = Field(default_factory=SwaConfig)
    prune: PruneConfig = Field(default_factory=PruneConfig)
    early_stopping: EarlyStoppingConfig = Field(default_factory=EarlyStoppingConfig)
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    stack: StackConfig = Field(default_factory=StackConfig)
    halving: HalvingConfig = Field(default_factory=HalvingConfig)
    callbacks: dict[str, Any] = Field(default_factory=dict)
    """your own Lightning callbacks, e.g. +callbacks.mine._target_=package.Class"""
    logger: dict[str, Any] = Field(default_factory=dict)
    """your own Lightning loggers by _target_, in addition to the built-in one"""

    def measures_after(self, epoch: int) -> bool:
        """Whether `diagnostics` are computed after this epoch, from 0."""
        return bool(self.diagnostics) and (epoch + 1) % self.diagnostics_every == 0

    def with_seed(self, seed: Any) -> "Config":
        """The same with another seed; all else is shared: a sweep has a hundred thousand configurations.

        Raises:
            ValidationError: it is no seed.
        """
        config, put = object.__new__(Config), object.__setattr__
        put(config, "seed", _seed_type().validate_python(seed))
        for name, value in zip(_ALL_BUT_THE_SEED, _values(self), strict=True):  # `copy` takes twice as long
            put(config, name, value)
        return config

    @property
    def shared_parts(self) -> tuple[int, ...]:
        """The ids of all values but the seed; equal for the runs of a sweep that differ in their seeds only."""
        return tuple(map(id, _values(self)))

    @property
    def writes_events(self) -> bool:
        """Whether the run has an event file of TensorBoard's."""
        return self.tracking.tensorboard and TENSORBOARD in self.tracker

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers that record the run beside its directory, each once."""
        return tuple(dict.fromkeys(name for name in self.tracker if name not in (TENSORBOARD, NONE)))

    @property
    def epochs_before_pruning(self) -> int:
        """Epochs before the first pruning, and between two."""
        return self.prune.every or max(1, self.trainer.max_epochs // (self.prune.rounds + 1))

    def prunings_before(self, epoch: int) -> int:
        """The number of prunings before `epoch`, from 0."""
        if self.prune.fraction is None or epoch < 0:
            return 0
        return min(self.prune.rounds, epoch // self.epochs_before_pruning)

    @property
    def rewound_epochs(self) -> int | None:
        """After how many epochs the weights are kept to which prunings return; None: none are kept."""
        return self.prune.rewind if isinstance(self.prune.rewind, int) else None

    def optimizer_begins(self, epoch: int) -> int:
        """The epoch, up to `epoch`, at whose beginning the optimizer's state was that of a new one."""
        return 0 if self.prune.rewind is None else self.prunings_before(epoch) * self.epochs_before_pruning

    @property
    def first_epoch(self) -> int:
        """The first epoch that can be the best one: with the network that is trained in the end."""
        return 0 if self.prune.fraction is None else self.prune.rounds * self.epochs_before_pruning

    def uses_average(self, epoch: int) -> bool:
        """Whether the run is evaluated with an average of its weights after `epoch`, from 0."""
        return self.ema.decay is not None or (self.swa.start is not None and epoch >= self.swa.start)

    @property
    def stack_threads(self) -> int:
        """CPU threads of a stack with this run."""
        return self.stack.threads or self.threads

    @property
    def loss_function(self) -> LossFunction:
        """The loss that is minimised."""
        settings = self.loss
        name = settings.name or DEFAULTS[self.data.learns]
        return LossFunction(name, settings.label_smoothing, settings.delta, Options(settings.options))

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics that the run records, in the order of its columns; the monitored one is among them."""
        return recorded(self.data.learns, [*(self.metrics or ()), self.monitor.removeprefix("val/")])

    @property
    def keeps_outputs(self) -> bool:
        """Whether some metric is computed from the network's outputs."""
        return any(METRICS[name].needs_outputs for name in self.metric_names)


_ALL_BUT_THE_SEED = tuple(field.name for field in fields(Config) if field.name != "seed")
_values = attrgetter(*_ALL_BUT_THE_SEED)


@cache
def _seed_type() -> TypeAdapter[int]:
    return TypeAdapter(Seed)


def defaults() -> dict[str, Any]:
    """The default configuration as nested plain builtins, for Hydra's base node."""
    values = plain(Config())
    for key in NOT_TYPED:
        group, name = key.split(".")
        del values[group][name]
    return values


def _fields(cls: type = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """Every key in the order of the schema, by its dotted name, with its field and its default."""
    default = plain(cls())
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]
        if is_dataclass(info.annotation):
            yield from _fields(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{name}", info, default[name]


def keys() -> Iterator[tuple[str, Any, str]]:
    """Every key a person can type, with its default and its line of help, in the order of the schema."""
    return ((key, default, info.description or "") for key, info, default in _fields())


@cache
def default_values() -> Mapping[str, Any]:
    """The default of every key, by its dotted name."""
    return {key: default for key, default, _ in keys()}


def choices() -> dict[str, tuple[str, ...]]:
    """The values of every key that has a fixed set of them, as they are typed."""
    return {key: values for key, info, _ in _fields() if (values := choices_of(info))}


@cache
def field_types() -> Mapping[str, Any]:
    """The annotation of every key, by its dotted name."""
    return {key: info.annotation for key, info, _ in _fields()}


def plain(value: Any) -> Any:
    """A configuration as nested builtins; several times faster than `dataclasses.asdict`, which copies leaves."""
    if isinstance(value, dict):
        return dict(value)
    if (names := _NAMES.get(type(value))) is None:
        return list(value) if isinstance(value, list | tuple) else value
    return {name: plain(getattr(value, name)) for name in names}


_GROUPS = [field.type for field in fields(Config) if is_dataclass(field.type)]
_NAMES = {cls: tuple(field.name for field in fields(cls)) for cls in (Config, *_GROUPS)}
