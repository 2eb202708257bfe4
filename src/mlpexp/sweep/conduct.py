"""A sweep from checked configurations to directories: plan, train stack by stack, write, go on after failures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mlpexp import stopping, training
from mlpexp.data.digits import digits_table
from mlpexp.data.prepared import Prepared, prepare
from mlpexp.errors import Interrupted
from mlpexp.models.stack import StackModule
from mlpexp.runs import Result
from mlpexp.sweep import results
from mlpexp.sweep.alone import train_alone
from mlpexp.sweep.division import Plan
from mlpexp.sweep.jobs import Job, Outcome, failed
from mlpexp.sweep.memory import stack_memory
from mlpexp.sweep.plan import plan
from mlpexp.sweep.screen import Screen
from mlpexp.sweep.stack import train_stack
from mlpexp.sweep.write import write_run


def conduct(sweep: Sequence[Job], outcomes: list[Outcome], directory: Path, screen: Screen) -> None:
    """Train the runs that have no outcome yet and write their directories and `results.csv`.

    Args:
        outcomes: of each run; filled in place.

    Raises:
        Interrupted: stopped by a signal; finished runs are kept.
    """
    left = [i for i, job in enumerate(sweep) if job.done is None]
    division = planned([sweep[i] for i in left])
    conductor = _Conductor(sweep, left, outcomes, directory, screen)
    with stopping.interruptible(), training.Quiet(), screen.showing([sweep[i] for i in left], division):
        try:
            conductor.train(division)
        except Interrupted as stop:
            done = sum(outcome.result is not None for outcome in outcomes)
            raise Interrupted(
                f"{stop}; {done:,} of {len(sweep):,} runs are done and kept, the same command carries on",
                stop.exit_code,
            ) from None
        finally:
            results.write(directory, sweep, outcomes)


def planned(jobs: Sequence[Job]) -> Plan:
    """Which of these runs share stacks; positions count within `jobs`."""
    configs = [job.config for job in jobs]
    return plan(configs, [_data(job) for job in jobs], stack_memory(configs[0].stack.memory_mib))


def _data(job: Job) -> Prepared:
    return prepare(digits_table(), job.config.data)


@dataclass
class _Conductor:
    sweep: Sequence[Job]
    left: list[int]  # positions in the sweep of what is to be trained
    outcomes: list[Outcome]
    directory: Path
    screen: Screen

    def train(self, division: Plan) -> None:
        for stack in division.stacks:
            self._stack([self.left[run] for run in stack.runs])
            results.write(self.directory, self.sweep, self.outcomes)
        for run in division.alone:
            self._alone(self.left[run])

    def _stack(self, members: list[int]) -> None:
        """Train these runs together; should that fail, find out by halves whose fault it is."""
        configs = [self.sweep[i].config for i in members]
        torch.set_num_threads(configs[0].stack.threads or configs[0].threads)  # as alone: bits depend on it
        started = time.perf_counter()
        try:
            module = train_stack(configs, [_data(self.sweep[i]) for i in members], [_Epochs(self.screen)])
        except Exception as error:
            if isinstance(error, Interrupted):
                raise
            if len(members) == 1:
                self._failed(members[0], error)
                return
            half = len(members) // 2
            self._stack(members[:half])
            self._stack(members[half:])
            return
        share = (time.perf_counter() - started) / len(members)
        for row, i in enumerate(members):
            result = self._written(module, row, i, share)
            self.outcomes[i] = Outcome(result=result)
        self.screen.finished(self.outcomes[i] for i in members)

    def _written(self, module: StackModule, row: int, i: int, seconds: float) -> Result:
        run = self.sweep[i]
        result = write_run(module, row, run.directory, {"fit": seconds, "total": seconds})
        if result.status == "diverged":
            run.note(f"[WARNING] - {result.message}\n")
        return result

    def _alone(self, i: int) -> None:
        self.outcomes[i] = train_alone(self.sweep[i])
        self.screen.finished([self.outcomes[i]])

    def _failed(self, i: int, error: Exception) -> None:
        self.outcomes[i] = failed(self.sweep[i], error)
        self.screen.finished([self.outcomes[i]])


class _Epochs(Callback):
    """Tells the screen how far a stack is, and keeps our signal handlers in force."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        stopping.arm()  # Lightning has just put its own handler for SIGTERM over ours

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, StackModule)
        self._screen.epoch(len(module.configs) / module.max_epochs)
