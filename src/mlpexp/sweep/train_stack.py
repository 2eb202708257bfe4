"""One stack through one Trainer."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.data.batches import epoch_order
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.stack_module import Paused, StackModule

MIN_RUNS = 2


def train_stack(
    configs: Sequence[Config],
    data: Sequence[Prepared],
    callbacks: Sequence[Callback] = (),
    *,
    paused: Sequence[Paused] = (),
    until: int | None = None,
) -> StackModule:
    """Train runs that `plan` has put together; their records and snapshots are in the module afterwards.

    Args:
        paused, until: see `StackModule`.
    """
    module = StackModule(configs, data, exact=configs[0].stack.exact, paused=paused, until=until)
    flags: dict[str, Any] = {"devices": 1} | configs[0].trainer.flags
    trainer = Trainer(
        max_epochs=module.max_epochs - module.start,
        accelerator=configs[0].trainer.accelerator,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{name: flag for name, flag in flags.items() if name not in ("enable_model_summary", "num_sanity_val_steps")},
    )
    with torch.no_grad():
        trainer.fit(module, _Orders(module))
        module.test()
    module.best.cpu()
    module.last.cpu()
    _part(module, trainer)
    return module


def _part(module: StackModule, trainer: Trainer) -> None:
    """Undo the circles between a Trainer and its module, so that the stack's tensors go when the module does.

    The garbage collector would come for them too late: next to all that torch consists of they hardly count for it.
    """
    vars(trainer).clear()
    module.trainer = None


class _Orders(LightningDataModule):
    """One item per epoch: the order of every run's training samples, (A, n), or (n,) unshuffled."""

    def __init__(self, module: StackModule) -> None:
        super().__init__()
        self._module = module

    def train_dataloader(self) -> "_OneItem":
        return _OneItem(self._order)

    def val_dataloader(self) -> "_OneItem":
        return _OneItem(lambda: torch.empty(0))  # the module holds the validation part of every run

    def _order(self) -> Tensor:
        module = self._module
        size = len(module.data[0].split.train)
        if not module.configs[0].data.shuffle:
            return torch.arange(size)
        epoch = module.current_epoch
        return torch.stack([epoch_order(size, module.configs[run].seed, epoch) for run in module.training_runs])


class _OneItem:
    def __init__(self, make: Any) -> None:
        self._make = make

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Tensor]:
        yield self._make()
