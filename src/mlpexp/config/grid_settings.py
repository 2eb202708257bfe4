"""`hydra.sweeper.*` of the grid sweeper: which runs there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from omegaconf import OmegaConf

from mlpexp.config import overrides, sweep_syntax
from mlpexp.config.overrides import spell
from mlpexp.config.sweep_syntax import SWEEPER
from mlpexp.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GridSettings:
    """The keys of the grid sweeper, as plain builtins."""

    params: Any = None
    """values by key, as a list or in the syntax of the command line, whose values replace them; or a list of such
    mappings, grids that are trained one after the other"""
    max_batch_size: Any = None
    """runs that are handed to the launcher at once; None: all"""
    zip: Any = None
    """keys that vary together: {model.width: [32, 64], optimizer.lr: [0.1, 0.05]}, or a list of such mappings"""
    skip: Any = None
    """runs that are left out: a condition, e.g. model.depth > 3 and model.width > 128, or a list of conditions"""
    limit: Any = None
    """a random part of so many runs; None: all"""
    seed: Any = 0
    """of the random choice by limit"""

    @classmethod
    def read(cls, settings: Mapping[str, Any], typed: Sequence[str] = ()) -> "GridSettings":
        """
        Args:
            typed: Hydra's own overrides on the command line, whose zip replaces keys of an experiment's `params`.

        Raises:
            ConfigError: numbers that are out of range.
        """
        plain: Any = OmegaConf.to_container(OmegaConf.create(dict(settings)), resolve=True)
        grid = cls(**{field.name: plain[field.name] for field in fields(cls) if field.name in plain})
        bounds = {"max_batch_size": (1, "for all runs"), "limit": (1, "for all runs"), "seed": (0, "")}
        if problems := [
            f"{SWEEPER}{key}={spell(value)} is out of range: it must be a whole number >= {least}"
            + (f", or null {default}" if default else "")
            for key, (least, default) in bounds.items()
            if (value := getattr(grid, key)) is not None or not default
            if type(value) is not int or value < least
        ]:
            raise ConfigError(problems)
        if isinstance(grid.params, dict | list) and any(text.startswith(f"{SWEEPER}zip=") for text in typed):
            replaced = {overrides.parse(text).key for texts in sweep_syntax.groups(grid.zip) for text in texts}
            listed = grid.params if isinstance(grid.params, list) else [grid.params]
            kept = [
                {key: value for key, value in sweep_syntax.leaves(one).items() if key not in replaced}
                if isinstance(one, dict)
                else one
                for one in listed
            ]
            grid = replace(grid, params=kept)
        return grid
