"""Runs of a sweep that train up to an epoch and pause there, until they continue or stop.

Between two stacks a run is kept on the host as a `TrainingState`, and is stacked again with those of its shape and
epoch; its neighbours change none of its bits.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from mlpexp.config.launcher_settings import Settings
from mlpexp.config.schema import Config
from mlpexp.models import saved_states
from mlpexp.models.stack_module import StackModule
from mlpexp.models.training_state import TrainingState
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, UserError
from mlpexp.store import file_names, run_directory, stack_states
from mlpexp.store.run_store import RunStore
from mlpexp.sweep.jobs import Job, Outcome, failed
from mlpexp.sweep.live_stacks import LiveStacks
from mlpexp.sweep.run_outcomes import data_of, mark_interrupted, write_outcome
from mlpexp.sweep.work_unit import Unit, identities, load_states, train_parts
from mlpexp.training.engine_choice import cannot_be_stacked
from mlpexp.training.planner import plan


def cannot_pause(configs: Sequence[Config], settings: Settings, feature: str) -> Iterator[str]:
    """Why these runs cannot train in parts, one line each.

    Args:
        feature: that makes them pause, as the subject of the lines.
    """
    if settings.backend not in ("auto", "process"):
        yield f"{feature} trains in this process; leave hydra.launcher.backend={settings.backend} out"
    for reason in dict.fromkeys(cannot_be_stacked(cfg) for cfg in configs):
        if reason:
            yield f"{feature} happens in stacks, and a run with {reason} trains alone; leave out the one or the other"


class PausedRuns:
    """A context; where it ends by a signal, the runs in training are saved, and their directories marked.

    Args:
        sweep, outcomes, directory: of the sweep; runs are named by their places in it.
        places: of the runs in training.
        states: of runs that continue, by their places; the others start, or continue from the disk.

    Attributes:
        in_training: places of the runs that have no outcome yet.
        states: of those among them that have trained.
    """

    def __init__(
        self,
        sweep: Sequence[Job],
        outcomes: Sequence[Outcome],
        directory: Path,
        places: Sequence[int],
        states: Mapping[int, TrainingState] | None = None,
    ) -> None:
        self._sweep, self._outcomes, self._directory = sweep, outcomes, directory
        self._store = RunStore(directory)
        self.in_training = set(places)
        new = [place for place in places if place not in (states or {})]
        self.states = {**load_states(self._unit(sorted(new))), **(states or {})} if places else {}
        self._histories: dict[int, Sequence[Mapping[str, float]]] = {}  # of written runs: the table may lack them yet
        self._saved_at = time.monotonic()
        self._live = LiveStacks(directory, [sweep[place] for place in places], "runs in training")

    def __enter__(self) -> "PausedRuns":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.close()
        if isinstance(error, Interrupted):
            self._interrupted(error)

    def train(
        self, places: Sequence[int], until: int | None, report: Callable[[int], None]
    ) -> Iterator[tuple[int, Outcome]]:
        """Train these runs up to an epoch (None: to their ends); yield the outcomes of those that raise.

        Args:
            report: called with the number of its runs after each epoch of a stack.
        """
        for unit in self._stacks(places):
            count = partial(_report_runs, report, len(unit.jobs))
            for part, trained in train_parts(unit, self.states, count, until=until, show=self._show):
                if isinstance(trained, Exception):
                    yield self._ended(part.places[0], failed(part.jobs[0], trained))
                    continue
                self.states |= {place: trained.state(row) for row, place in enumerate(part.places)}
        if (
            self.in_training
            and time.monotonic() - self._saved_at > self._sweep[min(self.in_training)].config.stack.save_every_s
        ):
            self.save()

    def history(self, place: int) -> Sequence[Mapping[str, float]]:
        """The metrics of each epoch so far; empty for a run without an outcome that is not in training.

        Raises:
            UserError: a finished run has none on the disk.
        """
        if place in self.states:
            return self.states[place].record.history
        if place in self._histories:
            return self._histories[place]
        if not self._outcomes[place].is_done:
            return []
        directory = self._sweep[place].directory
        text = self._store.read(self._store.name_of(directory), file_names.METRICS)
        if text is None:
            raise UserError(f"{directory} has no {file_names.METRICS}; move the directory away and start again")
        return run_directory.parse_metrics(text, directory / file_names.METRICS)

    def has_ended(self, place: int) -> bool:
        """Whether the run has trained its last epoch, or was stopped early."""
        return self.states[place].record.has_ended(self._sweep[place].config.trainer.max_epochs)

    def write(self, places: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        """Write runs that leave; a run that leaves before its end has its reason in `record.stop_reason`."""
        with signals.deferred():
            for place in places:
                job = self._sweep[place]
                self._histories[place] = self.states[place].record.history
                yield self._ended(place, write_outcome(job, data_of(job), self.states[place]))

    def _interrupted(self, stop: Interrupted) -> None:
        with signals.deferred():
            self.save()
        mark_interrupted([self._sweep[place] for place in sorted(self.in_training)], stop)

    def save(self) -> None:
        """Save the states of all runs that are not saved yet."""
        unit = self._unit(sorted(self.states))
        saved = stack_states.saved_runs(self._directory) if unit.places else {}
        states = {
            identity: self.states[place]
            for place, identity in zip(unit.places, identities(unit), strict=True)
            if identity not in saved or saved[identity].epochs < len(self.states[place].record.history)
        }
        if states:
            saved_states.save(self._directory, states)
        self._saved_at = time.monotonic()

    def _show(self, jobs: Sequence[Job], module: StackModule) -> None:
        """Show all runs in training: those of this stack, and the others as they paused."""
        in_stack = {job.number for job in jobs}
        others = ((self._sweep[place], state) for place, state in self.states.items())
        self._live.show(jobs, module, (pair for pair in others if pair[0].number not in in_stack))

    def _stacks(self, places: Sequence[int]) -> list[Unit]:
        """Stacks of equal shape and epoch."""
        if not places:
            return []
        jobs = [self._sweep[place] for place in places]
        epochs = [len(self.states[place].record.history) if place in self.states else 0 for place in places]
        division = plan([job.config for job in jobs], [data_of(job) for job in jobs], epochs_done=epochs)
        return [self._unit([places[run] for run in stack.runs]) for stack in division.stacks]

    def _unit(self, places: Sequence[int]) -> Unit:
        return Unit(places=tuple(places), jobs=tuple(self._sweep[place] for place in places), sweep=self._directory)

    def _ended(self, place: int, outcome: Outcome) -> tuple[int, Outcome]:
        self.in_training.discard(place)
        self.states.pop(place, None)
        return place, outcome


def _report_runs(report: Callable[[int], None], runs: int, _: float) -> None:
    report(runs)
