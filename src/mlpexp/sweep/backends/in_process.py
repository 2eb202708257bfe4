"""The default: one unit after the other, in this process."""

from collections.abc import Callable, Iterator, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer

from mlpexp.models.stack_module import StackModule
from mlpexp.runtime import signals
from mlpexp.sweep.backends.base import Watcher
from mlpexp.sweep.run_jobs import Outcome
from mlpexp.sweep.work_unit import Unit, work


class Here:
    """A `Backend`."""

    workers = 1

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        for unit in units:
            yield from work(unit, [_Epochs(watcher.epoch)])


class _Epochs(Callback):
    """Tells how far a stack is, and keeps our signal handlers in force."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._advance = advance

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        signals.arm()  # Lightning has just put its own handler for SIGTERM over ours

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, StackModule)
        self._advance(len(module.configs) / module.max_epochs)
