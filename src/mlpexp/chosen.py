"""What a person chose, as TensorBoard's HParams tab and tables show it: a few columns, not sixty."""

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any

from mlpexp import config
from mlpexp.checks import spell
from mlpexp.config import Config

# in the HParams tab of every run; beside them whatever differs from the defaults
ALWAYS_SHOWN = (
    "seed",
    "model.depth",
    "model.width",
    "model.activation",
    "model.init",
    "optimizer.name",
    "optimizer.lr",
    "data.batch_size",
    "trainer.max_epochs",
)
NEVER_SHOWN = (
    "name",
    "resume",
    "threads",
    "tracking.",
    "stack.",
    "trainer.enable_progress_bar",
    "callbacks",
    "logger",
)


def chosen(cfg: Config) -> dict[str, bool | int | float | str]:
    """What a person chose: the few keys that are always of interest, and all that differ from the defaults."""
    found: dict[str, bool | int | float | str] = {}
    for key, default, read in _readers():
        value = read(cfg)
        if key == "model.depth":
            value = len(cfg.model.hidden_sizes)
        if key in ALWAYS_SHOWN or (value != default and not key.startswith(NEVER_SHOWN)):
            found[key] = value if isinstance(value, bool | int | float | str) else spell(value)
    return found


@cache
def _readers() -> list[tuple[str, Any, Callable[[Config], Any]]]:
    return [(key, default, attrgetter(key)) for key, default, _ in config.keys()]
