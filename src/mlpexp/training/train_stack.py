"""Trains a stack with one Trainer; reports progress, saves states and stops between epochs."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.data import batches
from mlpexp.data.batches import epoch_orders
from mlpexp.data.prepared_data import Prepared
from mlpexp.engine.compiled import availability, draws
from mlpexp.models.stack_module import StackModule
from mlpexp.models.training_state import TrainingState
from mlpexp.runtime import signals
from mlpexp.runtime.portable import available_cores
from mlpexp.store.weight_trajectory import WeightTrajectory
from mlpexp.store.worker_session import Gone
from mlpexp.training.trainer_setup import on_this_machine, own_callbacks

WAIT_FOR_EPOCH_S = 2.0  # a signal waits for the end of an epoch that is expected to take no longer
MAX_THREADS = 8  # that draw orders
SAVE_SHARE = 100  # training takes at least so many times as long as saving


class EpochHooks(Checkpoint):
    """Reports, saves and checks after each epoch. It is a `Checkpoint`, since Lightning calls those after other hooks.

    Args:
        report: called with the training that is done, counted in whole runs, from 0 to R.
        check: raises `Gone` where the training has to stop; the state is saved first.
        save: writes the state of the stack; None where there is nowhere to save.
        save_every_s: seconds between two savings.
        show: called with the stack after each epoch.
    """

    def __init__(
        self,
        *,
        report: Callable[[float], None] = lambda runs: None,
        check: Callable[[], None] = lambda: None,
        save: Callable[[StackModule], None] | None = None,
        save_every_s: float = 60.0,
        show: Callable[[StackModule], None] = lambda module: None,
    ) -> None:
        self._report, self._check, self._save, self._every_s = report, check, save, save_every_s
        self._show = show
        self._epochs_s: deque[float] = deque(maxlen=3)  # the latest ones; the first may have compiled kernels
        self._started = self._due = 0.0
        self._deferring = ExitStack()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        signals.install_handlers()  # Lightning has just put its own handler for SIGTERM over ours
        self._due = time.monotonic() + self._every_s

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._started = time.monotonic()
        if self._save is not None and self._epochs_s and max(self._epochs_s) < WAIT_FOR_EPOCH_S:
            self._deferring.enter_context(signals.deferred())

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, StackModule)
        now = time.monotonic()
        self._epochs_s.append(now - self._started)
        self._report(module.progress)
        self._show(module)
        if module.training_runs:
            try:
                self._check()
            except Gone as gone:
                if not gone.restarted:
                    self._save_state(module)
                raise
            if now >= self._due or signals.is_pending():
                self._save_state(module)
        self._deferring.close()  # raises `Interrupted` where a signal has arrived

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._check()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._deferring.close()

    def _save_state(self, module: StackModule) -> None:
        if self._save is None:
            return
        started = time.monotonic()
        module.update_last()
        self._save(module)
        now = time.monotonic()
        self._due = now + max(self._every_s, SAVE_SHARE * (now - started))


def train_stack(
    configs: Sequence[Config],
    data: Sequence[Prepared],
    hooks: EpochHooks | None = None,
    *,
    states: Sequence[TrainingState] = (),
    until: int | None = None,
    trajectories: Mapping[int, WeightTrajectory] = MappingProxyType({}),
) -> StackModule:
    """Train runs that `plan` has put together; their records and snapshots are in the module afterwards.

    Args:
        states, until, trajectories: see `StackModule`.
    """
    module = StackModule(
        configs,
        data,
        states=states,
        until=until,
        callbacks=own_callbacks(configs[0]),
        trajectories=trajectories,
    )
    # as in a run alone: the bits depend on it; the compiled engine has threads of its own, for which torch's would wait
    # of a user's module they would depend on the stack, with more than one
    torch.set_num_threads(configs[0].stack_threads if configs[0].stack.engine == "torch" else 1)
    ours = ("enable_model_summary", "num_sanity_val_steps")
    flags: dict[str, Any] = {name: flag for name, flag in configs[0].trainer.flags.items() if name not in ours}
    trainer = Trainer(
        max_epochs=module.epochs_left,
        accelerator=configs[0].trainer.accelerator,
        logger=False,
        callbacks=[hooks or EpochHooks()],
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,  # the module validates: Lightning's loop takes longer than all else around an epoch
        plugins=on_this_machine(),
        **({"devices": 1} | flags),
    )
    with torch.no_grad():
        trainer.fit(module, _Orders(module))
        module.test()
    module.best.cpu()
    module.last.cpu()
    _separate(module, trainer)
    return module


def _separate(module: StackModule, trainer: Trainer) -> None:
    """Break the reference cycles between a Trainer and its module, so that tensors are freed with the module.

    The garbage collector would free them too late: few objects hold a lot of memory.
    """
    vars(trainer).clear()
    module.trainer = None
    del module.engine


class _Orders(LightningDataModule):
    """One item per epoch: the order of every run's training samples, (A, n), or (n,) unshuffled.

    Where a GPU trains, the processor's cores draw the orders of the next epoch meanwhile.
    """

    def __init__(self, module: StackModule) -> None:
        super().__init__()
        self._module = module
        self._size = len(module.data[0].split.train)
        self._threads = ThreadPoolExecutor(min(MAX_THREADS, available_cores()))
        self._permutations = draws.permutations if availability.draws(module.configs) else batches.permutations
        self._buffers: list[Tensor] = []  # two, by turns: one is drawn while the other is read
        self._ahead: tuple[int, list[int], list[Future[Tensor]]] | None = None  # epoch, runs, and who draws for them

    def train_dataloader(self) -> "_OneItem":
        return _OneItem(self._order)

    def teardown(self, stage: str) -> None:
        self._threads.shutdown()

    def _order(self) -> Tensor:
        module = self._module
        runs, epoch = module.training_runs, module.current_epoch
        if not module.configs[0].data.shuffle:
            return torch.arange(self._size)
        if module.device.type == "cpu":
            return epoch_orders(self._size, self._seeds(runs), epoch, draw=self._permutations)
        if self._ahead is None or self._ahead[0] != epoch:
            self._draw(runs, epoch)
        assert self._ahead is not None
        _, drawn, parts = self._ahead
        for part in parts:
            part.result()
        orders = self._buffers[epoch % 2][: len(drawn)]
        if drawn != runs:  # some have left since
            place = {run: i for i, run in enumerate(drawn)}
            orders = orders[[place[run] for run in runs]]
        if epoch + 1 < module.max_epochs:
            self._draw(runs, epoch + 1)
        return orders

    def _draw(self, runs: list[int], epoch: int) -> None:
        if not self._buffers:
            shape, pinned = (len(runs), self._size), torch.cuda.is_available()
            self._buffers = [torch.empty(shape, dtype=torch.int64, pin_memory=pinned) for _ in range(2)]
        share, seeds, rows = -(-len(runs) // MAX_THREADS), self._seeds(runs), self._buffers[epoch % 2][: len(runs)]
        parts = [
            self._threads.submit(
                epoch_orders, self._size, seeds[i : i + share], epoch, rows[i : i + share], self._permutations
            )
            for i in range(0, len(seeds), share)
        ]
        self._ahead = epoch, list(runs), parts

    def _seeds(self, runs: Sequence[int]) -> list[int]:
        return [self._module.configs[run].seed for run in runs]


class _OneItem:
    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make = make

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Tensor]:
        yield self._make()
