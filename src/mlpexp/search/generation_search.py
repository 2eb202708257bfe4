"""The search: ask for a generation of trials, record it, train it together, tell Optuna the outcome, repeat.

A search that continues replays its record: each recorded generation is launched again, which trains only what is
missing, and reported to a study in memory. So the search does not depend on what an interruption has left in a storage.
"""

import copy
from collections.abc import Iterable, Sequence

import hydra.plugins.launcher
import optuna
from hydra.core.utils import JobReturn
from optuna.trial import FrozenTrial, Trial, TrialState

from mlpexp.config.compose import Composer
from mlpexp.runtime.errors import ConfigError, UserError
from mlpexp.search import finalists, objectives, samplers, search_console, search_space
from mlpexp.search.finalists import Finalist
from mlpexp.search.objectives import Measured
from mlpexp.search.search_plan import Plan
from mlpexp.search.search_record import Generation, Params, SearchRecord
from mlpexp.search.search_space import Runs
from mlpexp.search.study_storage import PROBLEM, RUNS, STUDY, VALUES, StudyMirror
from mlpexp.sweep.checked_runs import check
from mlpexp.sweep.grid import specs


def names_of(runs: Iterable[JobReturn]) -> list[str]:
    """The names of the runs' directories, as far as their launcher returns them."""
    directories = (getattr(run, "directory", None) for run in runs)
    return [directory.name for directory in directories if directory is not None]


class GenerationSearch:
    """The generations of one command.

    Attributes:
        study: in memory; after what was known before, its trials are those of the record, in their order.
        places: the names of the directories of each trial's runs.
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
        self.study = optuna.create_study(
            study_name=STUDY,
            directions=objectives.directions(plan.names),
            pruner=plan.pruning.make() if plan.pruning is not None else None,
        )
        for trial in record.search.known:
            self.study.add_trial(
                optuna.trial.create_trial(
                    params=trial.params,
                    distributions={key: plan.space.distributions[key] for key in trial.params},
                    values=trial.values,
                )
            )
        self.places: dict[Runs, list[str]] = {}
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

    def train_finalists(self, further: int) -> list[Finalist]:
        """The best trials by their means over their own seeds and so many further ones, the best one first."""
        plan, study = self._plan, self.own_study()
        trials = finalists.best_trials(study)
        space, num_seeds = finalists.further_seeds(plan.space, further, plan.config.seed)
        runs = [space.runs(trial.params) for trial in trials]
        self._launch(runs)
        share = further / (num_seeds + further)
        return finalists.ranked(study, trials, [self._outcomes[key] for key in runs], share)

    def own_study(self) -> optuna.Study:
        """The study without what was known before; its trials are numbered like those of the record."""
        if not self._record.search.known:
            return self.study
        study = optuna.create_study(study_name=STUDY, directions=objectives.directions(self._plan.names))
        study.add_trials(self.study.get_trials(deepcopy=False)[len(self._record.search.known) :])
        return study

    def _set_sampler(self, first: int, size: int) -> None:
        """The sampler of the generation whose first trial has this number."""
        plan = self._plan
        is_conditional = bool(plan.space.conditions)
        self.study.sampler = samplers.sampler(plan.sampler, plan.seed, first, size, is_conditional=is_conditional)

    def _ask(self, size: int) -> list[Trial]:
        plan, first = self._plan, self._record.num_trials
        self._set_sampler(first, plan.batch_size)
        if points := samplers.SAMPLERS[plan.sampler].points:
            for params in points(plan.space, plan.seed, first, size):
                self.study.enqueue_trial(params)
        return [self._ask_one() for _ in range(size)]

    def _ask_one(self) -> Trial:
        space, trial = self._plan.space, self.study.ask()
        for key, distribution in space.distributions.items():
            if space.is_active(key, trial.params):
                search_space.suggest(trial, key, distribution)
        return trial

    def _ask_for(self, params: Params, generation: Generation) -> Trial:
        """An open trial with these parameters, by way of its sampler, which may keep a state in the study's trials.

        Raises:
            UserError: the parameters are outside of the space.
        """
        number = len(self.study.get_trials(deepcopy=False)) - len(self._record.search.known)
        if number == generation.first:
            self._set_sampler(number, max(self._plan.batch_size, len(generation.trials)))
        distributions = {k: d for k, d in self._plan.space.distributions.items() if k in params}
        try:  # a finished trial is checked when it is made
            optuna.trial.create_trial(params=params, distributions=distributions, values=[0.0] * len(self._plan.names))
        except ValueError as error:
            message = f"{self._record.directory}: trial {number + 1:,} of the record is outside of the space; {error}"
            raise UserError(message) from error
        self.study.enqueue_trial(params)
        trial = self._ask_one()
        if samplers.SAMPLERS[self._plan.sampler].keeps_state:
            _ = trial.relative_params  # computed at the first use
        return trial

    def _train(self, generation: Generation, trials: Sequence[Trial]) -> None:
        """Train what has no outcome yet, and tell the study."""
        self._launch([self._plan.space.runs(trial.params) for trial in trials])
        for trial in trials:
            self._tell(trial, self._outcomes[self._plan.space.runs(trial.params)])
        study = self.own_study()
        generation_trials = study.get_trials(deepcopy=False)[generation.first :]
        self._store(generation_trials, generation.first)
        search_console.generation(study, self._plan.names, generation_trials, self._plan.num_trials)

    def _store(self, trials: Sequence[FrozenTrial], first: int) -> None:
        """Let the study in the storage follow these trials of the generation that begins with trial `first`."""
        self._mirror.follow([self._stored(trial) for trial in trials if not self._mirror.has(trial)], first)

    def _stored(self, trial: FrozenTrial) -> FrozenTrial:
        """The trial for Optuna's tools: with the values that were trained, and what its runs have given."""
        stored, runs = copy.copy(trial), self._plan.space.runs(trial.params)
        stored.params = self._plan.space.trained(trial.params)
        stored.user_attrs = dict(trial.user_attrs)
        if trial.state.is_finished() and (names := self.places.get(runs)):
            stored.user_attrs[RUNS] = names
            if len(by_run := self._outcomes[runs].by_run) > 1:
                stored.user_attrs[VALUES] = [row[0] if len(row) == 1 else row for row in by_run]
        return stored

    def _tell(self, trial: Trial, outcome: Measured) -> None:
        if outcome.values is None:
            trial.set_user_attr(PROBLEM, outcome.problem)
            # samplers ignore failed trials, and count pruned ones as worse than all that have a value
            self.study.tell(trial, state=TrialState.FAIL if outcome.may_recover else TrialState.PRUNED)
        elif outcome.epochs is not None:
            if outcome.epochs not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
                trial.report(outcome.values[0], outcome.epochs)
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, outcome.values)

    def _launch(self, trials: Sequence[Runs]) -> None:
        """Train the runs of trials that have no outcome yet, each different trial once."""
        new = [runs for runs in dict.fromkeys(trials) if runs not in self._outcomes and self._can_be_trained(runs)]
        if not new:
            return
        jobs = [list(overrides) for runs in new for overrides in runs]
        remaining = list(self._launcher.launch(jobs, initial_job_idx=len(self.returns)))
        self.returns += remaining
        for runs in new:
            ends, remaining = remaining[: len(runs)], remaining[len(runs) :]
            outcome = self._outcomes[runs] = objectives.measured(list(map(objectives.outcome, ends)), self._plan.names)
            self.num_failed += outcome.may_recover
            self.places[runs] = names_of(ends)

    def _can_be_trained(self, runs: Runs) -> bool:
        """Whether the values of a trial, allowed one by one, are allowed together; else its outcome is noted."""
        try:
            check(self._composer, specs(runs))
        except ConfigError as error:
            count = f" ({len(runs):,} of {len(runs):,} runs)"
            self._outcomes[runs] = Measured(None, error.problems[0].removesuffix(count))
            return False
        return True
