"""The keys of training: loss, optimizer, averages, pruning, stacks, records. This file imports nothing heavy."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mlpexp.config.field_types import (
    SCHEMA,
    Count,
    Finite,
    Flag,
    NonNegative,
    OpenShare,
    OptionValues,
    Positive,
    Share,
    Whole,
    choice,
)
from mlpexp.nn.losses import LOSSES
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.schedules import SCHEDULES
from mlpexp.runtime.declared_options import Options

Optimizer = Annotated[str, choice(lambda: OPTIMIZERS)]
Schedule = Annotated[str, choice(lambda: SCHEDULES)]
Loss = Annotated[str, choice(lambda: LOSSES)]
Accelerator = Literal["cpu", "gpu", "cuda", "mps", "tpu", "auto"]


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class LossConfig:
    name: Loss | None = None
    """what is minimised; null: cross_entropy for classes, mse for values; mse, mae, huber take classes as one-hot"""
    label_smoothing: Share = 0.0
    """share of each class that training spreads over all classes; validation and test are not smoothed"""
    delta: Positive = 1.0
    """huber only: the absolute error from which the loss is linear; of values in their standard deviations"""
    options: OptionValues = Field(default_factory=Options)
    """options of your own loss, e.g. loss.options.margin=2"""


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
    options: OptionValues = Field(default_factory=Options)
    """options of your own optimizer or schedule, e.g. optimizer.options.rho=0.1"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class EmaConfig:
    decay: OpenShare | None = None
    """evaluate with an exponential moving average of the weights over steps, e.g. 0.99; null: with the weights"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class SwaConfig:
    start: Whole | None = None
    """evaluate with the mean of the weights at the ends of the epochs from this one on (stochastic weight averaging)"""
    lr: Positive | None = None
    """the learning rate in these epochs, after an annealing from the schedule's; null: the schedule goes on"""
    anneal_epochs: Whole = 10
    """epochs of that annealing; 0 and 1: none"""
    anneal_strategy: Literal["cos", "linear"] = "cos"
    """the form of that annealing"""


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class PruneConfig:
    fraction: OpenShare | None = None
    """share of the weights that is pruned in the end, the smallest of all weight matrices first; null: none"""
    rounds: Count = 1
    """prunings, each by the same factor of what is left"""
    every: Count | None = None
    """epochs before each pruning; null: the training in equal parts, the last one after the last pruning"""
    rewind: Count | Literal["initial"] | None = None
    """after each pruning all parameters return to their values, initial or after so many epochs; null: they stay"""


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
