"""What a search does, from the settings of the sweeper and the command line; checked before anything is trained."""

import re
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mlpexp.analysis.ranking import UNCOMPARABLE
from mlpexp.config import hydra_messages
from mlpexp.config.overrides import parse
from mlpexp.config.schema import Config
from mlpexp.nn.metrics import columns, recorded
from mlpexp.runtime.errors import ConfigError, UserError
from mlpexp.search import objectives, samplers, search_console, search_space
from mlpexp.search.search_space import Space
from mlpexp.store.run_names import UNNAMED
from mlpexp.sweep.checked_runs import check
from mlpexp.sweep.compose import Composer
from mlpexp.sweep.grid import specs

COMPLETIONS = 20  # values of the other keys with which a value that seems wrong is tried


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched and how; checked.

    Attributes:
        names: of the objectives.
        num_trials: in total, earlier ones included.
        batch_size: trials of a generation.
    """

    space: Space
    names: list[str]
    sampler: str
    seed: int
    num_trials: int
    batch_size: int
    dry_run: bool

    @property
    def asked(self) -> dict[str, str]:
        """What makes a search another one: objectives and space, as they were typed."""
        ignored = {*UNNAMED, "experiment"}
        typed = {key: parse(text) for key, text in self.space.typed.items()}
        return {"objectives": ",".join(self.names)} | {
            key: override.value_text or ""
            for key, override in typed.items()
            if re.split("[./]", override.key, maxsplit=1)[0] not in ignored
            and override.key != "trainer.enable_progress_bar"
        }


def make_plan(settings: dict[str, Any], space: Space, composer: Composer) -> Plan:
    """The plan of a search, after every value and setting has been checked.

    Args:
        settings: below `hydra.sweeper`.

    Raises:
        UserError: everything that is wrong with the space, or with the settings.
    """
    cfg = _check_values(space, composer)
    names = [str(name) for name in settings["objectives"] or [cfg.monitor]]
    problems = [
        f"hydra.sweeper.{name}={settings[name]} is out of range: it must be a whole number from {least}, "
        f"e.g. hydra.sweeper.{name}={example}"
        for name, least, example in (("n_trials", 1, 500), ("batch_size", 1, 20), ("seed", 0, 1))
        if settings[name] is not None and not (type(settings[name]) is int and settings[name] >= least)
    ]
    if problems:
        raise ConfigError(problems)
    possible = columns("train", "val", names=cfg.metric_names)
    objectives.check(names, possible)
    if {"val/loss", "train/loss"} & set(names) and (
        varied := [key for key in UNCOMPARABLE if key in space.distributions]
    ):
        raise UserError(
            f"{varied[0]} is searched, and values of several losses cannot be compared; choose another objective, e.g. "
            f"monitor={columns('val', names=recorded(cfg.data.learns))[-1]}"
        )
    name = str(settings["sampler"])
    if warning := samplers.check(name, space, names):
        search_console.warn(warning)
    total = samplers.num_trials(name, settings["n_trials"], space)
    return Plan(
        space=space,
        names=names,
        sampler=name,
        seed=settings["seed"],
        num_trials=total,
        batch_size=samplers.batch_size(name, settings["batch_size"], total),
        dry_run=cfg.dry_run,
    )


def _check_values(space: Space, composer: Composer) -> Config:
    """One valid configuration of the space, after each value of each key has been tried in some combination.

    Raises:
        ConfigError: each value that is wrong whatever the other keys are.
    """
    at_first = {key: search_space.bounds(one)[0] for key, one in space.distributions.items()}
    others = [
        {key: search_space.at(i / COMPLETIONS, one) for key, one in space.distributions.items()}
        for i in range(COMPLETIONS)
    ]
    problems: dict[str, None] = {}
    accepted: Config | None = None
    for key, distribution in space.distributions.items():
        for value in search_space.bounds(distribution):
            first: ConfigError | None = None
            for rest in [at_first, *others]:
                runs = space.runs(rest | {key: value})
                try:
                    composer.compose(specs(runs)[0])
                except (HydraException, OmegaConfBaseException, ValueError) as error:  # whatever the others are
                    problems[hydra_messages.hydra_sentence(error)] = None
                    break
                try:
                    accepted = check(composer, specs(runs))[0].config
                    break
                except ConfigError as error:
                    first = first or error
            else:
                assert first is not None
                problems |= dict.fromkeys(line.split(" (")[0] if len(runs) > 1 else line for line in first.problems)
    if problems:
        raise ConfigError(list(problems))
    assert accepted is not None  # each value has been accepted once
    return accepted
