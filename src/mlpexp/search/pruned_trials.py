"""Trials that are compared while they train, so that the pruner of the study ends some of them early.

Trials advance in stages: to the next epoch at which they are compared, or, with a pruner that compares seeds, by as
many seeds as it needs for the next comparison. The trials that are furthest behind advance first, so that later ones
catch up and share the stacks of earlier ones. All trials of a stage report their values before any is judged, in the
order of their numbers. So every decision follows from the recorded generations and the curves of runs, however these
are divided into stacks, and a search that continues makes the same ones. What a finished run has recorded is never
changed: one that was stopped stays stopped.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import Trial

from mlpexp.models.training_state import TrainingState
from mlpexp.search import objectives
from mlpexp.search.objectives import Measured
from mlpexp.search.pruners import Pruning
from mlpexp.search.search_space import Run, Runs
from mlpexp.sweep.backends.backend import Watcher
from mlpexp.sweep.jobs import Job, Outcome
from mlpexp.sweep.paused_runs import PausedRuns
from mlpexp.sweep.sweep_progress import WHOLE_SWEEP
from mlpexp.sweep.work_unit import Unit


@dataclass
class Candidate:
    """One configuration in training, and the trials with its values: usually one.

    Attributes:
        stage: the number of its completed stages.
        histories: of the runs that have trained.
        ends: of the runs that have ended by the end of the stage.
        was_stopped: an earlier start has stopped a run of it at the end of this stage.
    """

    trials: list[Trial]
    runs: Runs
    stage: int = 0
    histories: dict[Run, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    ends: dict[Run, Outcome] = field(default_factory=dict)
    was_stopped: bool = False

    @property
    def has_ended(self) -> bool:
        return len(self.ends) == len(self.runs)


class PrunedTrials:
    """The trials of a search that are in training.

    Args:
        name: of the objective.
        tell: called with a candidate that has ended, and its outcome.

    Attributes:
        active: candidates, in the order in which they were sampled.
        states: of runs that wait between two portions.
        clock: trained stages, each of all candidates that were furthest behind.
    """

    def __init__(self, pruning: Pruning, name: str, tell: Callable[[Candidate, Measured], None]) -> None:
        self._pruning, self._name, self._tell = pruning, name, tell
        self.states: dict[Run, TrainingState] = {}
        self.active: list[Candidate] = []
        self.clock = 0

    def add(self, trial: Trial, runs: Runs) -> None:
        for candidate in self.active:
            if candidate.runs == runs:
                candidate.trials.append(trial)
                return
        self.active.append(Candidate([trial], runs))

    @property
    def num_trials(self) -> int:
        return sum(len(candidate.trials) for candidate in self.active)

    def runs(self) -> list[Run]:
        """Those that take part in the next portion."""
        if self._pruning.by_seed:
            return [run for candidate in self.group() for run in self.runs_of_stage(candidate)]
        return [run for candidate in self.active for run in candidate.runs]

    def group(self) -> list[Candidate]:
        stage = min(candidate.stage for candidate in self.active)
        return [candidate for candidate in self.active if candidate.stage == stage]

    def runs_of_stage(self, candidate: Candidate) -> Runs:
        if not self._pruning.by_seed:
            return candidate.runs
        ends = [0, *self._pruning.looks, len(candidate.runs)]
        return candidate.runs[ends[candidate.stage] : ends[candidate.stage + 1]]

    def until(self, stage: int) -> int | None:
        """The epoch in which a stage ends; None for the end of the runs."""
        looks = self._pruning.looks
        return None if self._pruning.by_seed or stage >= len(looks) else looks[stage]

    def report(self, candidate: Candidate, jobs: Sequence[Job]) -> bool:
        """Report to its trials what the candidate has reached at the end of its stage: the mean over its runs at an
        epoch, or the value of each run with the number of its seed.

        Args:
            jobs: the runs of the stage.

        Returns:
            Whether all runs of the stage have a value.
        """
        runs = self.runs_of_stage(candidate)
        histories = [candidate.histories.get(run) for run in runs]
        values = [
            objectives.reached(history, self._name, job.config) if history else math.nan
            for history, job in zip(histories, jobs, strict=True)
        ]
        until = self.until(candidate.stage)
        steps: dict[int, float] = {}
        if self._pruning.by_seed:
            steps = {candidate.runs.index(run): value for run, value in zip(runs, values, strict=True)}
        elif until is not None:
            steps = {until: math.fsum(values) / len(values)}
        for step, value in steps.items():
            if math.isfinite(value):
                for trial in candidate.trials:
                    trial.report(value, step)
        return all(map(math.isfinite, values))

    def reason_to_leave(self, candidate: Candidate, has_values: bool) -> str:
        """Why a candidate ends here; empty where it continues.

        Args:
            has_values: whether all its runs have reached a value.
        """
        if self._pruning.by_seed:
            where = f"after {self._pruning.looks[candidate.stage]:,} of {len(candidate.runs):,} seeds"
        else:
            where = f"at epoch {self.until(candidate.stage)}"
        verdicts = [trial.should_prune() for trial in candidate.trials] if has_values else []
        reason = f"stopped {where}: pruner {self._pruning.name}" if any(verdicts) else ""
        if any(end.error is not None for end in candidate.ends.values()):
            return ""  # the next start tries its run again, which needs the others
        if any(objectives.has_diverged(history) for history in candidate.histories.values() if history):
            return f"stopped {where}: another run of the trial diverged"
        return reason or (f"stopped {where}, as before" if candidate.was_stopped else "")

    def conclude(self, candidate: Candidate) -> None:
        """Remove a candidate, and report its outcome."""
        self.active.remove(candidate)
        for run in candidate.runs:
            self.states.pop(run, None)
        ends = [candidate.ends[run] for run in candidate.runs if run in candidate.ends]
        self._tell(candidate, objectives.measured(ends, [self._name]))


class PrunedTraining:
    """A `Backend` that trains one portion: all candidates stage by stage, in this process.

    Args:
        enough: whether the portion ends, though trials are left.
        numbers: of the runs in the sweep.
    """

    workers = 1

    def __init__(
        self,
        trials: PrunedTrials,
        enough: Callable[[], bool],
        numbers: Mapping[Run, int],
        sweep: Sequence[Job],
        outcomes: Sequence[Outcome],
        directory: Path,
    ) -> None:
        self._trials, self._enough = trials, enough
        self._sweep, self._outcomes, self._directory = sweep, outcomes, directory
        place_of = {job.number: place for place, job in enumerate(sweep)}
        self._places = {run: place_of[number] for run, number in numbers.items() if number in place_of}

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        places = [place for unit in units for place in unit.places]
        saved = self._trials.states
        states = {self._places[run]: state for run, state in saved.items() if run in self._places}
        with PausedRuns(self._sweep, self._outcomes, self._directory, places, states) as paused:
            yield from self._stages(paused, _reporter(paused, self._sweep, watcher))
        saved |= {run: paused.states[place] for run, place in self._places.items() if place in paused.states}

    def _stages(self, paused: PausedRuns, report: Callable[[int], None]) -> Iterator[tuple[int, Outcome]]:
        trials = self._trials
        while trials.active and not self._enough():
            group = trials.group()
            until = trials.until(group[0].stage)
            runs = [trials.runs_of_stage(candidate) for candidate in group]
            if any(run not in self._places for stage_runs in runs for run in stage_runs):
                return  # a seed that the next portion brings
            places = [self._places[run] for stage_runs in runs for run in stage_runs]
            yield from paused.train([place for place in places if place in paused.in_training], until, report)
            trials.clock += 1
            ending = [p for p in places if p in paused.states and (until is None or paused.has_ended(p))]
            yield from paused.write(ending)
            have_values = []
            for candidate, stage_runs in zip(group, runs, strict=True):
                self._note(candidate, stage_runs, until, paused)
                have_values.append(trials.report(candidate, [self._sweep[self._places[run]] for run in stage_runs]))
            concluded = []
            for candidate, has_values in zip(group, have_values, strict=True):
                reason = "" if candidate.has_ended else trials.reason_to_leave(candidate, has_values)
                if reason:
                    yield from self._leave(candidate, paused, reason)
                if reason or candidate.has_ended:
                    concluded.append(candidate)
                candidate.stage += 1
            for candidate in concluded:
                trials.conclude(candidate)

    def _note(self, candidate: Candidate, runs: Sequence[Run], until: int | None, paused: PausedRuns) -> None:
        """Take over what the runs have recorded by the end of the stage; an earlier start may have trained more."""
        for run in runs:
            if run in candidate.ends:
                continue
            place = self._places[run]
            candidate.histories[run] = paused.history(place)[:until]
            if not (outcome := self._outcomes[place]).is_known:
                continue
            is_stopped = outcome.result is not None and outcome.result.status == "stopped"
            epochs = outcome.result.epochs if outcome.result is not None and outcome.error is None else 0
            if until is not None and is_stopped and epochs == until:
                candidate.was_stopped = True  # the pruner is asked all the same: it keeps an account of values
            elif until is None or epochs <= until:
                candidate.ends[run] = outcome

    def _leave(self, candidate: Candidate, paused: PausedRuns, reason: str) -> Iterator[tuple[int, Outcome]]:
        places = [self._places[run] for run in candidate.runs if run in self._places]
        for place in places:
            if place in paused.states:
                paused.states[place].record.stop_reason = reason
        yield from paused.write([place for place in places if place in paused.states])
        for run in candidate.runs:
            if run in self._places and (outcome := self._outcomes[self._places[run]]).is_known:
                candidate.ends[run] = outcome


def _reporter(paused: PausedRuns, sweep: Sequence[Job], watcher: Watcher) -> Callable[[int], None]:
    """A function that is called with the number of its runs after each epoch of a stack."""
    num_runs = len(paused.in_training)
    max_epochs = max(job.config.trainer.max_epochs for job in sweep)
    trained_epochs = sum(len(state.record.history) for state in paused.states.values())

    def report(runs: int) -> None:
        nonlocal trained_epochs
        trained_epochs += runs
        watcher.progress(WHOLE_SWEEP, min(num_runs, trained_epochs / max_epochs))

    return report
