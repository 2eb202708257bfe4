"""The search: ask for a generation of trials, record it, train it together, tell Optuna the outcome, repeat.

A search that continues replays its record: each recorded generation is launched again, which trains only what is
missing, and told to a study in memory. So the search does not depend on what an interruption has left in a storage.
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra.plugins.launcher
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlpexp.config import hydra_messages
from mlpexp.config.overrides import parse
from mlpexp.config.schema import Config
from mlpexp.runtime.errors import ConfigError, RunsFailed, UserError
from mlpexp.store import atomic_files, directory_lock
from mlpexp.store.run_names import UNNAMED
from mlpexp.sweep.check_runs import check
from mlpexp.sweep.compose import Composer
from mlpexp.sweep.grid import specs
from mlpexp.sweep.hydra_launch import Sweep

try:
    import optuna
except ImportError:
    raise UserError("hydra/sweeper=optuna needs the package optuna: pip install 'mlpexp[search]'") from None
from optuna.trial import Trial, TrialState

from mlpexp.search import objectives, samplers, search_console, search_space
from mlpexp.search.objectives import Measured
from mlpexp.search.search_record import Generation, Params, SearchRecord, open_record
from mlpexp.search.search_space import Space
from mlpexp.search.study_storage import PROBLEM, StudyMirror

COMPLETIONS = 20  # values of the other keys with which a value that seems wrong is tried

Runs = tuple[tuple[str, ...], ...]  # the overrides of each run of a trial


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


def optimise(
    settings: dict[str, Any],
    arguments: Sequence[str],
    context: HydraContext,
    config: DictConfig,
    launcher: hydra.plugins.launcher.Launcher,
) -> list[JobReturn]:
    """Search until there are as many trials as asked for.

    Raises:
        UserError: what is wrong with the space or the settings; before anything is trained.
        RunsFailed: some runs raised an error; all others are done.
        Interrupted: stopped by a signal; the same command continues.
    """
    samplers.silence_optuna()
    sweep = getattr(launcher, "sweep", None)
    composer = sweep.composer if isinstance(sweep, Sweep) else Composer(context.config_loader, config)
    typed = [f"{key}={value}" for key, value in (settings["params"] or {}).items()] + list(arguments)
    space = search_space.read(OverridesParser.create(config_loader=context.config_loader).parse_overrides(typed))
    cfg = _check_values(space, composer)
    plan = _plan(settings, space, cfg)
    if cfg.dry_run:
        search_console.explain(plan)
        return []
    directory = Path(str(config.hydra.sweep.dir)).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if isinstance(sweep, Sweep):  # it has locked the directory
            sweep.in_portions = True
        else:
            stack.enter_context(directory_lock.hold(directory))
        mirror = stack.enter_context(
            closing(StudyMirror(settings["storage"], directory, objectives.directions(plan.names)))
        )
        record, warning = open_record(directory, plan.asked, mirror.earlier())
        mirror.claim(record.id, record.asked)
        for line in filter(None, (warning, mirror.warning)):
            search_console.warn(line)
        atomic_files.write(directory / "multirun.yaml", OmegaConf.to_yaml(config))
        search = _Search(plan=plan, record=record, mirror=mirror, composer=composer, launcher=launcher)
        search_console.begin(plan, record)
        search.run()
    search_console.conclude(search.study, plan, directory, search.places)
    if isinstance(sweep, Sweep):
        sweep.conclude()
    if search.num_failed:
        raise RunsFailed(f"{search.num_failed:,} trials failed; the same command tries them again")
    return search.returns


class _Search:
    """The generations of one command.

    Attributes:
        study: in memory; its trials are numbered like those of the record.
        places: the directory of the first run of each trial that has an outcome.
        num_failed: trials that ended with an error in this command.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        record: SearchRecord,
        mirror: StudyMirror,
        composer: Composer,
        launcher: hydra.plugins.launcher.Launcher,
    ) -> None:
        self._plan, self._record, self._mirror = plan, record, mirror
        self._composer, self._launcher = composer, launcher
        self._outcomes: dict[Runs, Measured] = {}
        self.study = optuna.create_study(directions=objectives.directions(plan.names))
        self.places: dict[Runs, str] = {}
        self.returns: list[JobReturn] = []
        self.num_failed = 0

    def run(self) -> None:
        """Replay the record, then ask for what is missing."""
        for generation in list(self._record.generations):
            self._train(generation, [self._ask_for(params, generation) for params in generation.trials])
        while (missing := self._plan.num_trials - self._record.num_trials) > 0:
            trials = self._ask(min(missing, self._plan.batch_size))
            generation = self._record.append([trial.params for trial in trials])
            self._train(generation, trials)

    def _ask(self, size: int) -> list[Trial]:
        plan, first = self._plan, self._record.num_trials
        self.study.sampler = samplers.sampler(plan.sampler, plan.seed, first, plan.batch_size)
        if points := samplers.SAMPLERS[plan.sampler].points:
            for params in points(plan.space, plan.seed, first, size):
                self.study.enqueue_trial(params)
        return [self.study.ask(plan.space.distributions) for _ in range(size)]

    def _ask_for(self, params: Params, generation: Generation) -> Trial:
        """An open trial with these parameters, by way of its sampler, which may keep a state in the study's trials.

        Raises:
            UserError: the parameters are outside of the space.
        """
        number = len(self.study.get_trials(deepcopy=False))
        if number == generation.first:
            size = max(self._plan.batch_size, len(generation.trials))
            self.study.sampler = samplers.sampler(self._plan.sampler, self._plan.seed, number, size)
        distributions = self._plan.space.distributions
        if params.keys() != distributions.keys() or not all(
            one._contains(one.to_internal_repr(params[key])) for key, one in distributions.items()
        ):
            raise UserError(f"{self._record.directory}: trial {number + 1:,} of the record is outside of the space")
        self.study.enqueue_trial(params)
        trial = self.study.ask(distributions)
        _ = trial.relative_params  # computed at the first use, and what the CMA-ES sampler keeps its state by
        return trial

    def _train(self, generation: Generation, trials: Sequence[Trial]) -> None:
        """Train what has no outcome yet, and tell the study."""
        self._launch([self._plan.space.runs(trial.params) for trial in trials])
        for trial in trials:
            outcome = self._outcomes[tuple(self._plan.space.runs(trial.params))]
            if outcome.values is None:
                trial.set_user_attr(PROBLEM, outcome.problem)
                self.study.tell(trial, state=TrialState.FAIL)
            elif outcome.epochs is not None:
                trial.report(outcome.values[0], outcome.epochs)
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, outcome.values)
        own = self.study.get_trials(deepcopy=False)[generation.first :]
        self._mirror.follow(own, generation.first)
        search_console.generation(self.study, self._plan.names, own, self._plan.num_trials)

    def _launch(self, asked: Sequence[Sequence[tuple[str, ...]]]) -> None:
        """Train the runs of trials that have no outcome yet, each different trial once."""
        new: list[Runs] = []
        for runs in dict.fromkeys(map(tuple, asked)):
            if runs in self._outcomes:
                continue
            try:
                check(self._composer, specs(runs))
            except ConfigError as error:  # values that are allowed one by one, but not together
                count = f" ({len(runs):,} of {len(runs):,} runs)"
                self._outcomes[runs] = Measured(None, error.problems[0].removesuffix(count))
                continue
            new.append(runs)
        if not new:
            return
        jobs = [list(overrides) for runs in new for overrides in runs]
        ended = list(self._launcher.launch(jobs, initial_job_idx=len(self.returns)))
        self.returns += ended
        for runs in new:
            own, ended = ended[: len(runs)], ended[len(runs) :]
            outcome = self._outcomes[runs] = objectives.measured(own, self._plan.names)
            self.num_failed += outcome.may_recover
            if outcome.values is not None:
                self.places[runs] = search_console.place(own[0])


def _plan(settings: dict[str, Any], space: Space, cfg: Config) -> Plan:
    """
    Raises:
        ConfigError: everything that is wrong with the settings.
    """
    names = [str(name) for name in settings["objectives"] or [cfg.monitor]]
    problems = [
        f"hydra.sweeper.{name}={settings[name]} is out of range: it must be a whole number from {least}, "
        f"e.g. hydra.sweeper.{name}={example}"
        for name, least, example in (("n_trials", 1, 500), ("batch_size", 1, 20), ("seed", 0, 1))
        if settings[name] is not None and not (type(settings[name]) is int and settings[name] >= least)
    ]
    if problems:
        raise ConfigError(problems)
    objectives.directions(names)
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
