"""The schema of a run's configuration: names, types, defaults, one line of help for each field.

This file imports nothing heavy: `--help`, `--cfg job` and tab completion read it. `checks.py` checks values.
"""

import json
from collections.abc import Iterator
from copy import copy
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from mlpexp.config.field_types import (
    SCHEMA,
    Count,
    Finite,
    Flag,
    NonNegative,
    OpenShare,
    Positive,
    Seed,
    Share,
    Text,
    Whole,
    choice,
    choices_of,
)
from mlpexp.data.data_config import DataConfig
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.initialisation import INITIALISERS
from mlpexp.nn.losses import DEFAULTS, LOSSES, LossFunction
from mlpexp.nn.measures import MEASURES
from mlpexp.nn.metric_columns import columns
from mlpexp.nn.metrics import METRICS, recorded
from mlpexp.nn.network import NetworkSpec, multilayer_perceptron
from mlpexp.nn.normalisation import NORMS
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.parametrization import PARAMETRIZATIONS
from mlpexp.nn.schedules import SCHEDULES
from mlpexp.nn.user_module import UserModule
from mlpexp.tracking.trackers import NONE, TENSORBOARD, TRACKERS

# keys of earlier schemas that are gone, with the value whose behaviour is left: part of identities, and of recorded
# configurations
REMOVED: dict[str, dict[str, Any]] = {"stack": {"exact": True}}

# fields without a key: Trainer flags and the arguments of the user's own class are keys of their group, and the digest
# of its source is computed
NOT_TYPED = ("trainer.flags", "model.arguments", "model.source")

Variant = Literal["torch_nn", "autograd", "backprop"]
Activation = Annotated[str, choice(lambda: ACTIVATIONS)]
Norm = Annotated[str, choice(lambda: ("none", *NORMS))]
Init = Annotated[str, choice(lambda: INITIALISERS)]
Parametrization = Annotated[str, choice(lambda: PARAMETRIZATIONS)]
Measure = Annotated[str, choice(lambda: MEASURES)]
Optimizer = Annotated[str, choice(lambda: OPTIMIZERS)]
Schedule = Annotated[str, choice(lambda: SCHEDULES)]
Loss = Annotated[str, choice(lambda: LOSSES)]
Metric = Annotated[str, choice(lambda: METRICS)]
# of a metric with a value for each class, such as recall, no single one determines the best epoch
Monitor = Annotated[str, choice(lambda: columns("val", names=[n for n, m in METRICS.items() if not m.per_class]))]
Tracker = Annotated[str, choice(lambda: TRACKERS)]
# one may be given without brackets
Trackers = Annotated[tuple[Tracker, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]
Accelerator = Literal["cpu", "gpu", "cuda", "mps", "tpu", "auto"]


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class ModelConfig:
    variant: Variant = "torch_nn"
    """implementation: torch_nn (nn.Linear), autograd (own parameters), backprop (own gradients)"""
    depth: Whole | None = None
    """hidden layers; 0 is a linear classifier; by default 1, or as many as width lists"""
    width: Count | list[Count] = 50
    """units per hidden layer: one number, or a list with one number a layer, e.g. [64,32]"""
    activation: Activation = "tanh"
    """the activation between layers"""
    negative_slope: NonNegative = 0.01
    """activation=leaky_relu only: its slope for negative inputs"""
    alpha: Positive = 1.0
    """activation=elu only: minus its limit for negative inputs"""
    bias: Flag = True
    """dense layers have biases"""
    norm: Norm = "none"
    """normalisation in each hidden layer: layer, batch, rms"""
    norm_position: Literal["pre", "post"] = "pre"
    """norm other than none only: before the activation (pre) or after it (post)"""
    dropout: Share | list[Share] = 0.0
    """share of outputs that is set to 0 in training, after each hidden layer: one number, or a list, e.g. [0.2,0.5]"""
    input_dropout: Share = 0.0
    """the same for the inputs"""
    residual: Flag = False
    """add the input of each block of block_depth hidden layers to its output, where it has as many units"""
    block_depth: Count = 1
    """residual=true only: hidden layers in a block, counted from the first hidden layer"""
    init: Init = "torch"
    """initial weights; torch is what nn.Linear does, notebook is N(0, 1) with zero biases"""
    sigma_w: NonNegative = 1.0
    """init=scaled_normal only: weights ~ N(0, sigma_w²/fan_in)"""
    sigma_b: NonNegative = 0.0
    """init=scaled_normal only: biases ~ N(0, sigma_b²)"""
    parametrization: Parametrization = "standard"
    """mup: weights and rates scale so that one best rate fits every width (Yang et al. 2022); for decay use adamw"""
    base_width: Count = 64
    """parametrization=mup only: the width at which it equals the standard parametrization"""
    _target_: Text | None = None
    """your own network: a class of torch.nn.Module, e.g. my_module.MyNetwork; its arguments are keys of model"""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """its own arguments"""
    source: Text | None = None
    """the digest of its source"""

    @property
    def target(self) -> str | None:
        """The class of a network of the user's own; None for mlpexp's own network."""
        return self._target_

    @property
    def hidden_sizes(self) -> list[int]:
        """Units of each hidden layer, first to last; its length is the depth."""
        if isinstance(self.width, list):
            return list(self.width)
        return [self.width] * (1 if self.depth is None else self.depth)

    def network(self, num_inputs: int, num_classes: int) -> NetworkSpec:
        """The network that these settings describe."""
        if self.target is not None:
            given = json.dumps(self.arguments, sort_keys=True, separators=(",", ":"))
            return NetworkSpec((UserModule(self.target, given, self.source or "", num_inputs, num_classes),))
        hidden = self.hidden_sizes
        return multilayer_perceptron(
            num_inputs,
            hidden,
            num_classes,
            self.activation,
            value=self.activation_value,
            bias=self.bias,
            norm=None if self.norm == "none" else self.norm,
            norm_position=self.norm_position,
            dropout=self.dropout if isinstance(self.dropout, list) else [self.dropout] * len(hidden),
            input_dropout=self.input_dropout,
            block_depth=self.block_depth if self.residual else None,
        )

    @property
    def activation_value(self) -> float | None:
        """Of the activation's own key; None where it has none, or its default."""
        if (key := ACTIVATIONS[self.activation].key) is None:
            return None
        value = float(getattr(self, key))
        return None if value == type(self).__dataclass_fields__[key].default else value


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class LossConfig:
    name: Loss | None = None
    """what is minimised; null: cross_entropy for classes, mse for values; mse, mae, huber take classes as one-hot"""
    label_smoothing: Share = 0.0
    """share of each class that training spreads over all classes; validation and test are not smoothed"""
    delta: Positive = 1.0
    """huber only: the absolute error from which the loss is linear; of values in their standard deviations"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class OptimizerConfig:
    name: Optimizer = "sgd"
    """the update rule"""
    lr: Positive = 0.1
    """learning rate; optimizer=NAME sets a usual one for it, e.g. 0.001 for adam"""
    momentum: Share = 0.0
    """sgd, signsgd, rmsprop and muon only (optimizer=muon sets 0.95)"""
    nesterov: Flag = False
    """sgd and muon with momentum > 0 only (optimizer=muon sets true)"""
    weight_decay: NonNegative = 0.0
    """weight decay, as `decay` says"""
    decay: Literal["coupled", "decoupled"] | None = None
    """coupled: an L2 penalty in the gradient; decoupled: shrinks the weights; null: decoupled in adamw, lion, muon"""
    decay_bias: Flag = True
    """false: biases and the parameters of norms do not decay"""
    betas: tuple[Share, Share] | None = None
    """adam, adamw, nadam, muon, lion: what the running averages keep; null: torch's, [0.9,0.999] (lion [0.9,0.99])"""
    eps: NonNegative | None = None
    """adam, adamw, nadam, muon, rmsprop, adagrad: added to the denominator; null: torch's (1e-8; adagrad 1e-10)"""
    alpha: Share | None = None
    """rmsprop only: what the running square keeps; null: torch's, 0.99"""
    adamw_lr: Positive | None = None
    """muon only: learning rate of what is no weight matrix below the logits; null: lr"""
    max_iter: Count = 20
    """lbfgs only: iterations in a step"""
    history_size: Count = 100
    """lbfgs only: updates from which the curvature is estimated"""
    clip_norm: Positive | None = None
    """largest norm of the gradient over all parameters; a larger one is scaled down (clip_grad_norm_)"""
    clip_value: Positive | None = None
    """largest size of an element of the gradient (clip_grad_value_)"""
    line_search_fn: Literal["strong_wolfe"] | None = None
    """lbfgs only: the line search; null: steps of the size lr"""
    schedule: Schedule = "constant"
    """learning rate over time: constant, cosine (to 0 at the end), step, one_cycle, inverse_sqrt, plateau"""
    step_epochs: Count = 5
    """schedule=step only: epochs between two steps"""
    step_factor: Annotated[Finite, Field(gt=0, le=1)] = 0.1
    """schedule=step and plateau only: factor of the learning rate at each step, or where `monitor` stops improving"""
    patience: Whole = 10
    """schedule=plateau only: epochs without improvement of `monitor` before the rate is reduced"""
    pct_start: OpenShare = 0.3
    """schedule=one_cycle only: share of the steps in which the rate rises"""
    warmup_epochs: Whole = 0
    """epochs of linear warm-up before the schedule"""
    warmup_steps: Whole = 0
    """steps of linear warm-up before the schedule, instead of warmup_epochs"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class EmaConfig:
    decay: OpenShare | None = None
    """evaluate with an exponential moving average of the weights over steps, e.g. 0.99; null: with the weights"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class SwaConfig:
    start: Whole | None = None
    """evaluate with the mean of the weights at the ends of the epochs from this one on (stochastic weight averaging)"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class PruneConfig:
    fraction: OpenShare | None = None
    """share of the weights that is pruned in the end, the smallest of all weight matrices first; null: none"""
    rounds: Count = 1
    """prunings, each by the same factor of what is left"""
    every: Count | None = None
    """epochs before each pruning; null: the training in equal parts, the last one after the last pruning"""
    rewind: Literal["initial"] | None = None
    """initial: all parameters return to their initial values after each pruning (lottery tickets); null: they stay"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class EarlyStoppingConfig:
    patience: Count | None = None
    """stop after this number of epochs without improvement of `monitor`; null: never"""
    min_delta: NonNegative = 0.0
    """smallest change of `monitor` that counts as an improvement"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class TrainerConfig:
    max_epochs: Count = 10
    """number of passes over the training part"""
    accelerator: Accelerator = "cpu"
    """device, as Lightning names it; small networks train fastest on a CPU core"""
    enable_progress_bar: Flag = True
    """show a progress bar while training"""
    flags: dict[str, Any] = Field(default_factory=dict)
    """any other flag of lightning's Trainer, e.g. +trainer.gradient_clip_val=1.0"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class TrackingConfig:
    tensorboard: Flag = True
    """write an event file, where `tracker` has tensorboard"""
    figures: Flag | None = None
    """curves, confusion matrix, mistakes, first-layer weights (PNG and TensorBoard); null: not in a sweep"""
    diagnostics: Flag | None = None
    """per layer, at the start and each epoch: gradients, activations, saturation, histograms; null: not in a sweep"""
    test_hits: Flag = False
    """write which test samples were classified right; the report then compares runs sample by sample"""
    weights: Literal["every"] | None = None
    """every: keep the weights before training and after each epoch, of a long training every 2nd, 4th, ... (64 MiB)"""

    def settled(self, alone: bool) -> "TrackingConfig":
        """The same with every null replaced: true for a single run, false for a run of a sweep."""
        return replace(
            self,
            figures=alone if self.figures is None else self.figures,
            diagnostics=alone if self.diagnostics is None else self.diagnostics,
        )


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class StackConfig:
    engine: Literal["auto", "torch", "compiled", "vmap"] = "auto"
    """what trains a stack: torch (bits of nn.Linear alone), compiled (numba, faster), vmap (networks of your own)"""
    threads: Count | None = None
    """CPU threads of a stack; null: as many as a run alone has (threads), whose bits it then keeps"""
    memory_mib: Count | None = None
    """bound on the memory of one stack; null: chosen from what is free"""
    save_every_s: Positive = 60.0
    """seconds between two savings of a stack's state, from which a stopped sweep continues"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class HalvingConfig:
    rungs: list[Count] | None = None
    """with -m: epochs after which only the best runs of the sweep continue, e.g. [1,3,9]; null: all train to the end"""
    factor: Annotated[int, Field(ge=2, strict=True)] = 3
    """at each rung one in `factor` runs continues"""


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
        found = copy(self)
        object.__setattr__(found, "seed", _seed_type().validate_python(seed))
        return found

    @property
    def writes_events(self) -> bool:
        """Whether the run has an event file of TensorBoard's."""
        return self.tracking.tensorboard and TENSORBOARD in self.tracker

    @property
    def trackers(self) -> tuple[str, ...]:
        """Where the run is recorded beside its own directory, each once."""
        return tuple(dict.fromkeys(name for name in self.tracker if name not in (TENSORBOARD, NONE)))

    @property
    def epochs_before_pruning(self) -> int:
        """Epochs before the first pruning, and between two."""
        return self.prune.every or max(1, self.trainer.max_epochs // (self.prune.rounds + 1))

    def prunings_before(self, epoch: int) -> int:
        """How often the run has been pruned when `epoch` begins, from 0."""
        if self.prune.fraction is None or epoch < 0:
            return 0
        return min(self.prune.rounds, epoch // self.epochs_before_pruning)

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
        """What is minimised."""
        settings = self.loss
        return LossFunction(settings.name or DEFAULTS[self.data.learns], settings.label_smoothing, settings.delta)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics that the run records, in the order of its columns; the monitored one is among them."""
        return recorded(self.data.learns, [*(self.metrics or ()), self.monitor.removeprefix("val/")])

    @property
    def keeps_outputs(self) -> bool:
        """Whether some metric is computed from the network's outputs."""
        return any(METRICS[name].needs_outputs for name in self.metric_names)


@cache
def _seed_type() -> TypeAdapter[int]:
    return TypeAdapter(Seed)


def defaults() -> dict[str, Any]:
    """The default configuration as nested plain builtins, for Hydra's base node."""
    found = plain(Config())
    for key in NOT_TYPED:
        group, name = key.split(".")
        del found[group][name]
    return found


def keys(cls: type = Config, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every key a person can type, with its default and its line of help, in the order of the schema."""
    default = plain(cls())
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]
        if is_dataclass(info.annotation):
            yield from keys(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{name}", default[name], info.description or ""


def choices(cls: type = Config, prefix: str = "") -> dict[str, tuple[str, ...]]:
    """The values of every key that has a fixed set of them, as they are typed."""
    found: dict[str, tuple[str, ...]] = {}
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]
        if is_dataclass(info.annotation):
            found |= choices(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif values := choices_of(info):
            found[f"{prefix}{name}"] = values
    return found


def field_types(cls: type = Config, prefix: str = "") -> dict[str, Any]:
    """The annotation of every key, by its dotted name."""
    found: dict[str, Any] = {}
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]
        if is_dataclass(info.annotation):
            found |= field_types(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            found[f"{prefix}{name}"] = info.annotation
    return found


def plain(value: Any) -> Any:
    """A configuration as nested builtins; several times faster than `dataclasses.asdict`, which copies leaves."""
    if isinstance(value, dict):
        return dict(value)
    if (names := _NAMES.get(type(value))) is None:
        return list(value) if isinstance(value, list | tuple) else value
    return {name: plain(getattr(value, name)) for name in names}


_NAMES = {
    cls: tuple(field.name for field in fields(cls))
    for cls in (
        Config,
        ModelConfig,
        DataConfig,
        LossConfig,
        OptimizerConfig,
        EmaConfig,
        SwaConfig,
        PruneConfig,
        EarlyStoppingConfig,
        TrainerConfig,
        TrackingConfig,
        StackConfig,
        HalvingConfig,
    )
}
