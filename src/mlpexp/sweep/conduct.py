"""A sweep from checked configurations to directories: plan, train stack by stack, write, go on after failures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mlpexp import atomic, stopping, training
from mlpexp.data.digits import digits_table
from mlpexp.data.prepared import Prepared, prepare
from mlpexp.errors import Interrupted
from mlpexp.models.stack import StackModule
from mlpexp.runs import Result
from mlpexp.sweep import results, threads
from mlpexp.sweep.alone import train_alone
from mlpexp.sweep.jobs import Job, Outcome, failed
from mlpexp.sweep.memory import stack_memory
from mlpexp.sweep.plan import Plan, plan
from mlpexp.sweep.screen import Screen
from mlpexp.sweep.stack import train_stack
from mlpexp.sweep.write import write_run


def conduct(sweep: Sequence[Job], directory: Path, screen: Screen) -> list[Outcome]:
    """Train all runs and write their directories and `results.csv`; outcomes are in the order of `sweep`.

    Raises:
        Interrupted: stopped by a signal; finished runs are kept.
    """
    table = digits_table()
    data = [prepare(table, run.config.data) for run in sweep]
    configs = [run.config for run in sweep]
    planned = plan(configs, data, stack_memory(configs[0].stack.memory_mib if configs else None))
    outcomes = [Outcome() for _ in sweep]
    conductor = _Conductor(sweep, data, outcomes, directory, screen)
    with stopping.interruptible(), training.Quiet(), screen.showing(sweep, planned):
        try:
            conductor.train(planned)
        except Interrupted as stop:
            done = sum(outcome.result is not None for outcome in outcomes)
            raise Interrupted(f"{stop}; {done:,} of {len(sweep):,} runs are done and kept", stop.exit_code) from None
        finally:
            conductor.write_table()
    screen.conclude(sweep, outcomes, directory)
    return outcomes


@dataclass
class _Conductor:
    sweep: Sequence[Job]
    data: list[Prepared]
    outcomes: list[Outcome]
    directory: Path
    screen: Screen

    def train(self, planned: Plan) -> None:
        for stack in planned.stacks:
            self._stack(stack.runs)
            self.write_table()
        for run in planned.alone:
            self._alone(run)
        if planned.alone:
            self.write_table()

    def _stack(self, members: list[int]) -> None:
        """Train these runs together; should that fail, find out by halves whose fault it is."""
        configs = [self.sweep[i].config for i in members]
        torch.set_num_threads(threads.choose(configs[0].stack.threads))
        started = time.perf_counter()
        try:
            module = train_stack(configs, [self.data[i] for i in members], [_Epochs(self.screen)])
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

    def write_table(self) -> None:
        rows = [
            (
                run.number,
                run.directory.name,
                run.overrides,
                outcome.result,
                f"{type(outcome.error).__name__}: {outcome.error}" if outcome.error else "",
            )
            for run, outcome in zip(self.sweep, self.outcomes, strict=True)
            if outcome.result is not None or outcome.error is not None
        ]
        atomic.write(self.directory / results.RESULTS, results.table(rows))


class _Epochs(Callback):
    """Tells the screen how far a stack is, and keeps our signal handlers in force."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        stopping.arm()  # Lightning has just put its own handler for SIGTERM over ours

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, StackModule)
        self._screen.epoch(len(module.configs) / module.max_epochs)
