"""Learning-rate schedules over epochs, one registry entry each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mlpexp.runtime.registry import Registry


class RateSettings(Protocol):
    """What a schedule reads of the configuration (`OptimizerConfig` has it)."""

    @property
    def lr(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def warmup_epochs(self) -> int: ...
    @property
    def step_epochs(self) -> int: ...
    @property
    def step_factor(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One schedule.

    Attributes:
        factor: (elapsed, epochs, settings) -> what the learning rate is multiplied by in the epoch `elapsed`, from 0,
            of `epochs`; both are counted without the warm-up.
        is_constant: the factor is always 1.
        depends_on_length: the factor depends on `epochs`, so that a finished training cannot be made longer.
    """

    factor: Callable[[int, int, RateSettings], float]
    is_constant: bool = False
    depends_on_length: bool = False


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
    },
)


def learning_rate(settings: RateSettings, epoch: int, max_epochs: int, factor: float = 1.0) -> float:
    """The learning rate in `epoch` (from 0) of a training of `max_epochs`: linear warm-up, then the schedule.

    Args:
        factor: of the parameter, see `parametrization`; multiplied first, as torch's schedules do.
    """
    return (settings.lr * factor) * rate_factor(settings, epoch, max_epochs)


def rate_factor(settings: RateSettings, epoch: int, max_epochs: int) -> float:
    """What `settings.lr` is multiplied by in `epoch`."""
    warmup = settings.warmup_epochs
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    return SCHEDULES[settings.schedule].factor(epoch - warmup, max_epochs - warmup, settings)


def is_constant(settings: RateSettings) -> bool:
    """Whether the learning rate is the same in all epochs."""
    return SCHEDULES[settings.schedule].is_constant and settings.warmup_epochs == 0
