"""A search with a pruner: it ends trials early, and new trials take their places.

A generation is sampled when half the places of the last one are free. The record says after how many stages that
was, so that a search which continues asks, compares and prunes as one that was never interrupted.
"""

from collections import deque
from functools import partial

from hydra.core.utils import JobReturn
from optuna.trial import Trial

from mlpexp.config.overrides import RunSpec, parse
from mlpexp.runtime.terminal import say
from mlpexp.search import search_console
from mlpexp.search.generation_search import GenerationSearch, names_of
from mlpexp.search.objectives import Measured
from mlpexp.search.pruned_trials import Candidate, PrunedTraining, PrunedTrials
from mlpexp.search.search_record import Generation
from mlpexp.search.search_space import Run
from mlpexp.search.study_storage import STOPPED
from mlpexp.sweep.hydra_sweep import Sweep


class PrunedSearch(GenerationSearch):
    """The generations of one command, which overlap."""

    def run(self) -> None:
        sweep, pruning = getattr(self._launcher, "sweep", None), self._plan.pruning
        assert pruning is not None and isinstance(sweep, Sweep)
        self._sweep = sweep
        self._waiting: deque[Generation] = deque(self._record.generations)  # recorded, and not yet replayed
        self._trials = PrunedTrials(pruning, self._plan.names[0], self._conclude)
        self._numbers: dict[Run, int] = {}
        self._returns: dict[Run, JobReturn] = {}
        self._shown = ""
        while self._add_generations():
            self._train_portion()
            if self._trials.active:
                self._show()
        self._show()
        self.returns = list(self._returns.values())

    def _add_generations(self) -> bool:
        """Ask for what is due; whether there is something to train."""
        while self._is_due() or (not self._trials.active and (self._waiting or self._missing)):
            if self._waiting:
                generation = self._waiting.popleft()
                trials = [self._ask_for(params, generation) for params in generation.trials]
            else:
                trials = self._ask(min(self._missing, self._plan.batch_size - self._trials.num_trials))
                self._record.append([trial.params for trial in trials], self._trials.clock)
            for trial in trials:
                self._begin(trial)
        return bool(self._trials.active)

    @property
    def _missing(self) -> int:
        """Trials that have not been sampled yet."""
        return self._plan.num_trials - self._record.num_trials

    def _is_due(self) -> bool:
        """Whether the next generation is sampled now, while other trials train."""
        if self._waiting:
            return self._trials.clock >= self._waiting[0].clock
        free = self._plan.batch_size - self._trials.num_trials
        return self._missing > 0 and free >= max(1, self._plan.batch_size // 2)

    def _begin(self, trial: Trial) -> None:
        runs = self._plan.space.runs(trial.params)
        if runs not in self._outcomes and self._can_be_trained(runs):
            self._trials.add(trial, runs)
        else:
            self._tell(trial, self._outcomes[runs])

    def _train_portion(self) -> None:
        runs = self._trials.runs()
        for run in runs:
            self._numbers.setdefault(run, len(self._numbers))
        specs = [RunSpec(self._numbers[run], tuple(map(parse, run))) for run in runs]
        backend = partial(PrunedTraining, self._trials, self._is_due, self._numbers)
        self._returns |= dict(zip(runs, self._sweep.train_portion(specs, backend), strict=True))
        for trial_runs in self._outcomes:
            self.places[trial_runs] = names_of(self._returns[run] for run in trial_runs if run in self._returns)

    def _conclude(self, candidate: Candidate, outcome: Measured) -> None:
        self._outcomes[candidate.runs] = outcome
        self.num_failed += outcome.may_recover
        for trial in candidate.trials:
            if len(candidate.ends) < len(candidate.runs) and outcome.values is not None:
                trial.set_user_attr(STOPPED, f"after {len(candidate.ends):,} of {len(candidate.runs):,} runs")
            self._tell(trial, outcome)

    def _show(self) -> None:
        study = self.own_study()
        trials = study.get_trials(deepcopy=False)
        for generation in self._record.generations:
            self._store(trials[generation.first : generation.first + len(generation.trials)], generation.first)
        line = search_console.progress(study, self._plan.names, self._plan.num_trials)
        if line != self._shown:
            say(line)
        self._shown = line
