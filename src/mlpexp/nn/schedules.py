"""Learning-rate schedules over epochs or steps, one registry entry each.

A setting that a new one needs is a field of `OptimizerConfig` in `config/training_config.py` and of `RateSettings`
here, and named in the entry's `keys`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from mlpexp.nn.metric_columns import higher_is_better
from mlpexp.runtime.registry import Registry

PLATEAU_THRESHOLD = 1e-4  # relative; torch's default


class RateSettings(Protocol):
    """The settings of a schedule; `OptimizerConfig` has them."""

    @property
    def lr(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def warmup_epochs(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def step_epochs(self) -> int: ...
    @property
    def step_factor(self) -> float: ...
    @property
    def patience(self) -> int: ...
    @property
    def pct_start(self) -> float: ...
    @property
    def options(self) -> Mapping[str, object]: ...


class AveragingSettings(Protocol):
    """The settings of stochastic weight averaging's learning rate; `SwaConfig` has them."""

    @property
    def start(self) -> int | None: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def anneal_epochs(self) -> int: ...
    @property
    def anneal_strategy(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One schedule: exactly one of `factor`, `by_step` and `follows_monitor` says what it does.

    Attributes:
        factor: (elapsed, epochs, settings) -> what the learning rate is multiplied by in the epoch `elapsed`, from 0,
            of `epochs`; both are counted without the warm-up.
        by_step: (elapsed, steps, warmup, settings) -> the same in the step `elapsed` of `steps`, both without the
            `warmup` steps before.
        follows_monitor: the factor depends on the validation metric of the epochs so far, see `Plateau`.
        keys: of the configuration's `optimizer` group that only this schedule reads.
        is_constant: the factor is always 1.
        depends_on_length: the factor depends on the length, so that a finished training cannot be made longer.
    """

    factor: Callable[[int, int, RateSettings], float] | None = None
    by_step: Callable[[int, int, int, RateSettings], float] | None = None
    follows_monitor: bool = False
    keys: tuple[str, ...] = ()
    is_constant: bool = False
    depends_on_length: bool = False

    def __post_init__(self) -> None:
        if (self.factor is not None) + (self.by_step is not None) + self.follows_monitor != 1:
            raise ValueError("a schedule has one of factor, by_step and follows_monitor")


def _one_cycle(elapsed: int, steps: int, warmup: int, settings: RateSettings) -> float:
    """`torch.optim.lr_scheduler.OneCycleLR` (Smith & Topin 2017): from lr / 25 up to lr, down to lr / 25e4."""
    initial, final = 1 / 25, 1 / 25 / 1e4
    peak, end = settings.pct_start * steps - 1, steps - 1

    def between(start: float, stop: float, share: float) -> float:
        return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))

    if elapsed <= peak:
        return between(initial, 1.0, elapsed / peak) if peak > 0 else 1.0
    return between(1.0, final, (elapsed - peak) / (end - peak)) if end > peak else final


SCHEDULES: Registry[Schedule] = Registry(
    "schedule",
    {
        "constant": Schedule(factor=lambda elapsed, epochs, settings: 1.0, is_constant=True),
        "cosine": Schedule(
            factor=lambda elapsed, epochs, settings: 0.5 * (1 + math.cos(math.pi * elapsed / max(1, epochs))),
            depends_on_length=True,
        ),
        "step": Schedule(
            factor=lambda elapsed, epochs, settings: settings.step_factor ** (elapsed // settings.step_epochs)
        ),
        "one_cycle": Schedule(by_step=_one_cycle, keys=("pct_start",), depends_on_length=True),
        "inverse_sqrt": Schedule(
            by_step=lambda elapsed, steps, warmup, settings: math.sqrt(max(1, warmup) / (max(1, warmup) + elapsed))
        ),
        "plateau": Schedule(follows_monitor=True, keys=("patience",)),
    },
)


def changes_by_step(settings: RateSettings) -> bool:
    """Whether the learning rate changes within an epoch."""
    return SCHEDULES[settings.schedule].by_step is not None or settings.warmup_steps > 0


def is_constant(settings: RateSettings) -> bool:
    """Whether the learning rate is the same in all epochs."""
    return SCHEDULES[settings.schedule].is_constant and settings.warmup_epochs == 0 and settings.warmup_steps == 0


def rate_factor(
    settings: RateSettings,
    epoch: int,
    max_epochs: int,
    averaging: AveragingSettings | None = None,
    *,
    step: int = 0,
    steps: int = 1,
    reduced: float = 1.0,
) -> float:
    """The factor of `settings.lr` in `epoch`, from 0, of `max_epochs`: linear warm-up, then the schedule.

    Args:
        averaging: from its start on, its own learning rate is approached from the one before, as by
            `torch.optim.swa_utils.SWALR`, whose first step comes before the first epoch that is averaged.
        step: of `steps` in `epoch`, from 0; matters only where the rate `changes_by_step`.
        reduced: what a schedule that follows the monitor has reduced the rate to, see `Plateau`.
    """
    if averaging is not None and averaging.lr is not None and averaging.start is not None and epoch >= averaging.start:
        start, share = averaging.start, min(1.0, (epoch - averaging.start + 1) / max(1, averaging.anneal_epochs))
        weight = share if averaging.anneal_strategy == "linear" else (1 - math.cos(math.pi * share)) / 2
        # with a start at 0 from `settings.lr`
        before = rate_factor(settings, start - 1, max_epochs, step=steps - 1, steps=steps) if start else 1.0
        return averaging.lr / settings.lr * weight + before * (1 - weight)
    entry, step_number = SCHEDULES.entry_with(settings.schedule, settings.options), epoch * steps + step
    if epoch < settings.warmup_epochs:
        return (epoch + 1) / (settings.warmup_epochs + 1)
    if step_number < settings.warmup_steps:
        return (step_number + 1) / (settings.warmup_steps + 1)
    if entry.by_step is not None:
        warmup = settings.warmup_epochs * steps + settings.warmup_steps
        return entry.by_step(step_number - warmup, max_epochs * steps - warmup, warmup, settings)
    if entry.factor is not None:
        return entry.factor(epoch - settings.warmup_epochs, max_epochs - settings.warmup_epochs, settings)
    return reduced


@lru_cache(maxsize=4096)
def epoch_factors(
    settings: RateSettings,
    epoch: int,
    max_epochs: int,
    steps: int,
    reduced: float = 1.0,
    averaging: AveragingSettings | None = None,
) -> tuple[float, ...]:
    """`rate_factor` in each step of an epoch; one number where it does not change within the epoch."""
    count = steps if changes_by_step(settings) else 1
    return tuple(
        rate_factor(settings, epoch, max_epochs, averaging, step=i, steps=steps, reduced=reduced) for i in range(count)
    )


class Plateau:
    """Reduces the rate where the monitor has stopped improving; `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    Its state is a function of the history: it is rebuilt from the metrics where a training continues.

    Attributes:
        factor: what the rate is multiplied by in the next epoch.
    """

    def __init__(self, settings: RateSettings, monitor: str, history: Iterable[float] = ()) -> None:
        self._settings = settings
        self._higher = higher_is_better(monitor)
        self._best, self._waited = -math.inf if self._higher else math.inf, 0
        self.factor = 1.0
        for value in history:
            self.update(value)

    def update(self, value: float) -> None:
        """Add the value of an epoch."""
        if self._higher:
            improved = value > self._best * (1 + PLATEAU_THRESHOLD)
        else:
            improved = value < self._best * (1 - PLATEAU_THRESHOLD)
        if improved:
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        if self._waited > self._settings.patience:
            reduced = self.factor * self._settings.step_factor
            if self._settings.lr * (self.factor - reduced) > 1e-8:  # as torch's eps
                self.factor = reduced
            self._waited = 0
