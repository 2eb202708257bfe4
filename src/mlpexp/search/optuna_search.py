"""The search: ask for a generation, train it at once, tell what came of it, as often as it takes.

Optuna's storage remembers what was asked for; the runs' directories are the truth about what was done. So a search
that carries on launches its old generations again, which trains only what is missing.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
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
from mlpexp.store.run_names import UNNAMED
from mlpexp.sweep.compose import Composer
from mlpexp.sweep.hydra_launch import Sweep, check

try:
    import optuna
except ImportError:
    raise UserError("hydra/sweeper=optuna needs the package optuna: pip install 'mlpexp[search]'") from None
from optuna.trial import FrozenTrial, Trial, TrialState

from mlpexp.search import objectives, samplers, search_console, search_space
from mlpexp.search.objectives import Measured
from mlpexp.search.search_space import Space
from mlpexp.search.study_storage import open_storage

STUDY = "mlpexp"
DEFAULT_TRIALS = 100
COMPLETIONS = 20  # other values with which one that seems wrong is tried
# user attributes of trials and of the study
GENERATION, VOID, REPLACES, PROBLEM, ASKED = "generation", "does not count", "replaces", "problem", "search"

Runs = tuple[tuple[str, ...], ...]


def optimise(
    settings: dict[str, Any],
    arguments: Sequence[str],
    context: HydraContext,
    config: DictConfig,
    launcher: hydra.plugins.launcher.Launcher,
) -> list[JobReturn]:
    """Search until the study has its number of trials.

    Raises:
        UserError: what is wrong with the space or the settings; before anything is trained.
        RunsFailed: some runs raised; all others are done.
        Interrupted: stopped from outside; the same command carries on.
    """
    samplers.quiet()
    sweep = getattr(launcher, "sweep", None)
    composer = sweep.composer if isinstance(sweep, Sweep) else Composer(context.config_loader, config)
    typed = [f"{key}={value}" for key, value in (settings["params"] or {}).items()] + list(arguments)
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(typed)
    searched = search_space.read(parsed)
    cfg = _checked(searched, composer)
    plan = _plan(settings, searched, cfg)
    if cfg.dry_run:
        search_console.explain(searched, plan.sampler, plan.num_trials, plan.batch_size, plan.names)
        return []
    directory = Path(str(config.hydra.sweep.dir)).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, directory / "multirun.yaml")
    storage, flush = open_storage(settings["storage"], directory)
    study = optuna.create_study(
        storage=storage, study_name=STUDY, directions=objectives.directions(plan.names), load_if_exists=True
    )
    _refuse_another(study, searched, plan.names, directory)
    if isinstance(sweep, Sweep):
        sweep.in_portions = True
    search = _Search(plan=plan, study=study, composer=composer, launcher=launcher)
    try:
        search.carry_on()
        while (missing := plan.num_trials - search.count()) > 0:
            search.generation(min(missing, plan.batch_size))
            flush()
            search.finish()
            flush()
    finally:
        flush()
    search_console.conclude(study, plan.names, searched, directory, search.places)
    if isinstance(sweep, Sweep):
        sweep.conclude()
    if search.raised:
        raise RunsFailed(f"{search.raised:,} trials failed; the same command tries them again")
    return search.returns


@dataclass(frozen=True, kw_only=True)
class _Plan:
    space: Space
    names: list[str]
    sampler: str
    seed: int
    num_trials: int
    batch_size: int
    points: samplers.Points | None


class _Search:
    """The generations of one command.

    Attributes:
        places: of each trial that was trained, the directory of its first run.
        raised: trials that ended with an error in this command.
    """

    def __init__(
        self, *, plan: _Plan, study: optuna.Study, composer: Composer, launcher: hydra.plugins.launcher.Launcher
    ) -> None:
        self._plan, self._study, self._composer, self._launcher = plan, study, composer, launcher
        self._known: dict[Runs, Measured] = {}
        self._open: list[Trial] = []
        self._jobs = 0
        self.places: dict[Runs, str] = {}
        self.returns: list[JobReturn] = []
        self.raised = 0

    def count(self) -> int:
        """Trials that have an answer, or wait for one; one that was tried again counts once."""
        trials = self._all()
        return sum(VOID not in trial.user_attrs for trial in trials) - len(_replaced(trials))

    def carry_on(self) -> None:
        """Everything that was asked for before: what is done is recognised, what is not is trained."""
        generations: dict[int, list[FrozenTrial]] = defaultdict(list)
        replaced = _replaced(self._all())
        for trial in self._all():
            if trial.state == TrialState.WAITING or VOID in trial.user_attrs:
                continue
            if GENERATION not in trial.user_attrs:
                self._forget(trial)  # killed while it was asked for
            else:
                generations[trial.user_attrs[GENERATION]].append(trial)
        for trials in generations.values():
            self._open = [Trial(self._study, trial._trial_id) for trial in trials if not trial.state.is_finished()]
            self._train([trial.params for trial in trials])
            for trial in trials:
                if trial.state == TrialState.FAIL and trial.number not in replaced:
                    self._replace(trial, self._of(trial.params))
            self.finish()

    def generation(self, size: int) -> None:
        """Ask for so many trials."""
        plan, study = self._plan, self._study
        first = len(self._all())
        study.sampler = samplers.sampler(plan.sampler, plan.seed, first, plan.batch_size)
        if plan.points is not None:
            for params in plan.points(self.count(), size):
                study.enqueue_trial(params)
        self._open = [study.ask(plan.space.distributions) for _ in range(size)]
        for trial in self._open:
            trial.set_user_attr(GENERATION, first)

    def finish(self) -> None:
        """Train the open trials and tell the study."""
        if not self._open:
            return
        self._train([trial.params for trial in self._open])
        for trial in self._open:
            self._tell(trial, self._of(trial.params))
        numbers = [trial.number for trial in self._open]
        search_console.generation(self._study, self._plan.names, numbers, self._plan.num_trials)
        self._open = []

    def _train(self, asked: Sequence[dict[str, Any]]) -> None:
        """Launch what has no answer yet, each different trial once."""
        new: list[Runs] = []
        for runs in dict.fromkeys(tuple(self._plan.space.runs(params)) for params in asked):
            if runs in self._known:
                continue
            try:
                check(self._composer, list(enumerate(runs)))
            except ConfigError as error:  # values that are right one by one, but not together
                self._known[runs] = Measured(
                    None, error.problems[0].removesuffix(f" ({len(runs):,} of {len(runs):,} runs)")
                )
                continue
            new.append(runs)
        if not new:
            return
        jobs = [list(one) for runs in new for one in runs]
        ended = list(self._launcher.launch(jobs, initial_job_idx=self._jobs))
        self._jobs += len(jobs)
        self.returns += ended
        for runs in new:
            own, ended = ended[: len(runs)], ended[len(runs) :]
            found = self._known[runs] = objectives.measured(own, self._plan.names)
            self.raised += found.may_recover
            if found.values is not None:
                self.places[runs] = search_console.place(own[0])

    def _of(self, params: dict[str, Any]) -> Measured:
        return self._known[tuple(self._plan.space.runs(params))]

    def _tell(self, trial: Trial, found: Measured) -> None:
        if found.values is None:
            trial.set_user_attr(PROBLEM, found.problem)
            self._study.tell(trial, state=TrialState.FAIL)
        elif found.epochs is not None:
            trial.report(found.values[0], found.epochs)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, found.values)

    def _replace(self, trial: FrozenTrial, found: Measured) -> None:
        """A trial that failed and was tried again with success: Optuna does not change what was told."""
        if found.values is None:
            return
        attributes = {GENERATION: trial.user_attrs[GENERATION], REPLACES: trial.number}
        self._study.add_trial(
            optuna.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                values=found.values,
                user_attrs=attributes,
            )
        )

    def _forget(self, trial: FrozenTrial) -> None:
        if not trial.state.is_finished():
            Trial(self._study, trial._trial_id).set_user_attr(VOID, "torn")
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _all(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def _replaced(trials: Sequence[FrozenTrial]) -> set[int]:
    return {trial.user_attrs[REPLACES] for trial in trials if REPLACES in trial.user_attrs}


def _plan(settings: dict[str, Any], searched: Space, cfg: Config) -> _Plan:
    """The settings, checked.

    Raises:
        ConfigError: all that is wrong with them.
    """
    names = [str(name) for name in settings["objectives"] or [cfg.monitor]]
    problems = [
        f"hydra.sweeper.{name}={settings[name]} is out of range: it must be a whole number from {least}, "
        f"e.g. hydra.sweeper.{name}={example}"
        for name, least, example in (("n_trials", 1, 500), ("batch_size", 1, 50), ("seed", 0, 1))
        if settings[name] is not None and not (type(settings[name]) is int and settings[name] >= least)
    ]
    if problems:
        raise ConfigError(problems)
    objectives.directions(names)
    name = str(settings["sampler"])
    if warning := samplers.refuse_unfit(name, searched, names):
        search_console.warn(warning)
    wanted = settings["n_trials"]
    if name == "grid":
        size = samplers.grid_size(searched)
        wanted = size if wanted is None else min(wanted, size)
    return _Plan(
        space=searched,
        names=names,
        sampler=name,
        seed=settings["seed"],
        num_trials=DEFAULT_TRIALS if wanted is None else wanted,
        batch_size=settings["batch_size"],
        points=samplers.points(name, settings["seed"], searched),
    )


def _checked(searched: Space, composer: Composer) -> Config:
    """One configuration of the space, once each value of each key has been tried in some combination.

    Raises:
        ConfigError: each value that is wrong whatever the others are.
    """
    at_first = {key: search_space.bounds(one)[0] for key, one in searched.distributions.items()}
    others = [
        {key: search_space.at(share, one) for key, one in searched.distributions.items()}
        for share in (i / COMPLETIONS for i in range(COMPLETIONS))
    ]
    problems: dict[str, None] = {}
    accepted: Config | None = None
    for key, distribution in searched.distributions.items():
        for value in search_space.bounds(distribution):
            first: ConfigError | None = None
            for rest in [at_first, *others]:
                runs = searched.runs(rest | {key: value})
                try:
                    composer.compose(runs[0], 0)
                except (HydraException, OmegaConfBaseException, ValueError) as error:  # whatever the others are
                    problems[hydra_messages.hydra_sentence(error)] = None
                    break
                try:
                    accepted = check(composer, list(enumerate(runs)))[0][1]
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


def _refuse_another(study: optuna.Study, searched: Space, names: Sequence[str], directory: Path) -> None:
    """
    Raises:
        UserError: the directory holds a search of another space, or for other objectives.
    """
    hydras = ("hydra", *UNNAMED, "trainer.enable_progress_bar")
    now = {"objectives": ",".join(names)} | {
        key: override.value_text or ""
        for key, override in ((key, parse(text)) for key, text in searched.typed.items())
        if not override.key.startswith(hydras)
    }
    before = study.user_attrs.get(ASKED)
    if before is None:
        study.set_user_attr(ASKED, json.dumps(now))
        return
    there = json.loads(before)
    for key in dict.fromkeys([*there, *now]):
        if there.get(key) != now.get(key):
            raise UserError(
                f"{directory} holds another search: {key} is {there.get(key, 'not given')} there and "
                f"{now.get(key, 'not given')} here; choose another name=…"
            )
