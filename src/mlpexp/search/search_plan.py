"""What a search does, from the settings of the sweeper and the command line; checked before anything is trained."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mlpexp.analysis.ranking import is_loss_key
from mlpexp.config import hydra_messages
from mlpexp.config.compose import Composer
from mlpexp.config.launcher_settings import Settings
from mlpexp.config.overrides import parse
from mlpexp.config.run_names import UNNAMED
from mlpexp.config.schema import Config
from mlpexp.nn.metric_columns import columns
from mlpexp.nn.metrics import recorded
from mlpexp.runtime.errors import ConfigError, UserError
from mlpexp.runtime.terminal import say
from mlpexp.search import finalists, objectives, pruners, samplers, search_space
from mlpexp.search.pruners import Pruning
from mlpexp.search.search_space import Space
from mlpexp.sweep.checked_runs import check
from mlpexp.sweep.grid import specs
from mlpexp.sweep.paused_runs import cannot_pause

COMPLETIONS = 20  # values of the other keys with which a value that seems wrong is tried


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched and how; checked.

    Attributes:
        names: of the objectives.
        num_trials: in total, earlier ones included.
        batch_size: trials of a generation; with a pruner, trials that are in training at the same time.
        pruning: None where all trials are trained to their ends.
        warm_start: an earlier sweep, from whose runs the sampler learns.
        final_seeds: further seeds of the best trials; 0: none are trained again; None: none by default.
        config: one of the space.
    """

    space: Space
    names: list[str]
    sampler: str
    seed: int
    num_trials: int
    batch_size: int
    pruning: Pruning | None
    warm_start: str | None
    final_seeds: int | None
    config: Config

    @property
    def asked(self) -> dict[str, str]:
        """What makes a search another one: objectives and space, as they were typed."""
        ignored = {*UNNAMED, "experiment"}
        typed = {key: parse(text) for key, text in self.space.typed.items()}
        asked = {"objectives": ",".join(self.names)} | {
            key: override.value_text or ""
            for key, override in typed.items()
            if re.split("[./]", override.key, maxsplit=1)[0] not in ignored
            and override.key != "trainer.enable_progress_bar"
        }
        if self.pruning is not None:
            options = ",".join(f"{key}={value}" for key, value in sorted(self.pruning.given.items()))
            asked["hydra.sweeper.pruner"] = f"{self.pruning.name} ({options})" if options else self.pruning.name
        if self.space.conditions:
            asked["hydra.sweeper.conditions"] = " ".join(
                f"{key}:" + "&".join(f"{parent}={'|'.join(sorted(texts))}" for parent, texts in parents.items())
                for key, parents in self.space.conditions.items()
            )
        if self.warm_start is not None:
            asked["hydra.sweeper.warm_start"] = os.path.relpath(self.warm_start)
        return asked


def make_plan(settings: dict[str, Any], space: Space, composer: Composer, launcher: Settings | None) -> Plan:
    """The plan of a search, after every value and setting has been checked.

    Args:
        settings: below `hydra.sweeper`.
        launcher: of mlpexp's launcher; None with another one.

    Raises:
        UserError: everything that is wrong with the space, or with the settings.
    """
    _check_keys(space, settings["objectives"])
    accepted = _check_values(space, composer)
    cfg = accepted[-1]
    names = _names(settings["objectives"]) or [cfg.monitor]
    problems = [
        f"hydra.sweeper.{name}={settings[name]} is out of range: it must be a whole number from {least}, "
        f"e.g. hydra.sweeper.{name}={example}"
        for name, least, example in (("n_trials", 1, 500), ("batch_size", 1, 20), ("seed", 0, 1), ("final_seeds", 0, 4))
        if settings[name] is not None and not (type(settings[name]) is int and settings[name] >= least)
    ]
    if problems:
        raise ConfigError(problems)
    possible = columns("train", "val", names=cfg.metric_names)
    objectives.check(names, possible)
    if {"val/loss", "train/loss"} & set(names) and (varied := [key for key in space.distributions if is_loss_key(key)]):
        raise UserError(
            f"{varied[0]} is searched, and values of several losses cannot be compared; choose another objective, e.g. "
            f"monitor={columns('val', names=recorded(cfg.data.learns))[-1]}"
        )
    if settings["final_seeds"] and len(names) > 1:
        raise UserError(
            f"hydra.sweeper.final_seeds chooses by one objective, not by {' and '.join(names)}; leave it out, or give "
            "every trial several seeds, e.g. hydra.sweeper.seeds=5"
        )
    name = str(settings["sampler"])
    if warning := samplers.check(name, space, names):
        say(warning, error=True)
    total = samplers.num_trials(name, settings["n_trials"], space)
    if not samplers.SAMPLERS[name].finite and (size := search_space.size(space, total - 1)):
        say(
            f"the space has {size:,} different trials, fewer than the {total:,} that are asked for; equal ones are "
            "trained once, and hydra.sweeper.sampler=grid takes each once",
            error=True,
        )
    final_seeds = settings["final_seeds"]
    if final_seeds is None:
        final_seeds = finalists.default_seeds(names, total)
    pruning = None
    if settings["pruner"] is not None:
        pruning = _pruning(settings, accepted, space, names, launcher)
    elif settings["pruner_options"]:
        raise UserError("hydra.sweeper.pruner_options need a pruner, e.g. hydra.sweeper.pruner=median")
    return Plan(
        space=space,
        names=names,
        sampler=name,
        seed=settings["seed"],
        num_trials=total,
        batch_size=samplers.batch_size(name, settings["batch_size"], total),
        pruning=pruning,
        warm_start=_warm_start(settings["warm_start"], name, pruning),
        final_seeds=final_seeds,
        config=cfg,
    )


def _warm_start(directory: Any, sampler: str, pruning: Pruning | None) -> str | None:
    """
    Raises:
        UserError: nothing would learn from it.
    """
    if directory is None:
        return None
    if not samplers.SAMPLERS[sampler].learns:
        raise UserError(
            f"sampler={sampler} does not learn from hydra.sweeper.warm_start; choose hydra.sweeper.sampler=tpe"
        )
    if pruning is not None and pruning.by_seed:
        raise UserError(
            f"pruner={pruning.name} needs the values of each seed, which hydra.sweeper.warm_start does not give; "
            "choose hydra.sweeper.pruner=median"
        )
    return str(directory)


def _pruning(
    settings: dict[str, Any], configs: list[Config], space: Space, names: list[str], launcher: Settings | None
) -> Pruning:
    """
    Args:
        configs: valid ones of the space.

    Raises:
        UserError: the trials cannot be compared while they train.
    """
    options = settings["pruner_options"] or {}
    if not isinstance(options, Mapping):
        raise UserError(
            f"hydra.sweeper.pruner_options={options} is no mapping; give e.g. "
            "'hydra.sweeper.pruner_options={n_warmup_steps:3}'"
        )
    if len(names) > 1 or names[0] in objectives.OTHERS:
        raise UserError(
            f"a pruner compares trials by one metric of each epoch, not by {' and '.join(names)}; choose one, e.g. "
            f"hydra.sweeper.objectives=[val/loss], or leave hydra.sweeper.pruner out"
        )
    if launcher is None:
        raise UserError("hydra.sweeper.pruner compares runs that train in stacks; leave out hydra/launcher")
    if problems := list(cannot_pause(configs, launcher, "hydra.sweeper.pruner")):
        raise ConfigError(problems)
    epochs = max(cfg.trainer.max_epochs for cfg in configs)
    seeds = prod(map(len, space.repetitions.values()))
    return pruners.pruning(str(settings["pruner"]), {str(key): value for key, value in options.items()}, epochs, seeds)


def _names(objectives: Any) -> list[str]:
    """
    Raises:
        UserError: it is neither a name nor a list of names.
    """
    listed = [objectives] if isinstance(objectives, str) else objectives or []
    if not isinstance(listed, Sequence) or not all(isinstance(name, str) for name in listed):
        raise UserError(
            f"hydra.sweeper.objectives={objectives} is no list of metrics; give e.g. [val/acc,num_parameters]"
        )
    return list(listed)


def _check_keys(space: Space, objectives: Any) -> None:
    """
    Raises:
        UserError: a key is searched of which no value is better than another one.
    """
    for key in (key.lstrip("+") for key in space.distributions):
        if re.split("[./]", key, maxsplit=1)[0] in UNNAMED - {"plugins"}:
            raise UserError(f"{key} is searched, but is no setting of a network or its training; give it one value")
        if key == "monitor" and not objectives:
            raise UserError(
                "monitor is searched, and so the objective is not the same in all trials; name it, e.g. "
                "'hydra.sweeper.objectives=[val/loss]'"
            )


def _check_values(space: Space, composer: Composer) -> list[Config]:
    """Valid configurations of the space, one with each value of each key.

    Raises:
        ConfigError: each value that is wrong for all values of the other keys.
    """
    samples = [
        {key: search_space.at(i / COMPLETIONS, distribution) for key, distribution in space.distributions.items()}
        for i in range(COMPLETIONS)
    ]
    problems: dict[str, None] = {}
    accepted: list[Config] = []
    for key, distribution in space.distributions.items():
        for value in search_space.bounds(distribution):
            first_error: ConfigError | None = None
            for sample in samples:
                runs = space.runs(space.active(sample | space.activating(key) | {key: value}))
                try:
                    composer.compose(specs(runs)[0])
                except (HydraException, OmegaConfBaseException, ValueError) as error:  # for all values of the others
                    problems[hydra_messages.hydra_sentence(error)] = None
                    break
                try:
                    accepted.append(check(composer, specs(runs))[0].config)
                    break
                except ConfigError as error:
                    first_error = first_error or error
            else:
                assert first_error is not None
                problems |= dict.fromkeys(
                    line.split(" (")[0] if len(runs) > 1 else line for line in first_error.problems
                )
    if problems:
        raise ConfigError(list(problems))
    return accepted
